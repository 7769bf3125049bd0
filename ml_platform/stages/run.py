"""Brings a pipeline up to date from the command line: looks whether anything is to be done, and if so makes one run.

With nothing to do, no Dagster is imported. A run goes through the queue of a Dagster server that is up, or is carried
out in this process; either way it is one Dagster run, seen in the UI like any other.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DeclarationError
from ml_platform.overrides import overridden
from ml_platform.stages import stages_of
from ml_platform.stages.chain import Chain, State, Status
from ml_platform.stages.opening import chain_of
from ml_platform.stages.outcome import problems_of, stages_done, summarize
from ml_platform.stages.stage import UNPARTITIONED
from ml_platform.stages.summary import Progress, RunSummary, StageSummary

if TYPE_CHECKING:
    import dagster as dg

    from ml_platform.pipeline import Pipeline
    from ml_platform.server import Server
    from ml_platform.settings import Settings
    from ml_platform.stages.plan import StagePlan
    from ml_platform.stages.stage import Stage

REPOSITORY_LABEL_TAG = ".dagster/repository"
CODE_LOCATION = "__repository__@ml_platform"
"""As workspace.yaml names it."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to bring up to date.

    Args:
        batches: treat only these; all that have landed, when None.
        select: carry out only these stages; all, when None.
        force: run their bodies even where the result is known.
        replaced: declared values to replace, such as "recipe.epochs=5".
    """

    batches: Collection[str] | None = None
    select: Sequence[str] | None = None
    force: bool = False
    replaced: Sequence[str] = ()

    def config(self) -> dict[str, Any]:
        """As the chain job's run config has it."""
        config: dict[str, Any] = {"force": self.force, "replaced": list(self.replaced)}
        if self.batches is not None:
            config["batches"] = sorted(self.batches)
        if self.select:
            config["stages"] = list(self.select)
        return config


EVERYTHING = Request()


def run_pipeline(
    pipeline: Pipeline,
    settings: Settings,
    request: Request = EVERYTHING,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    queue: bool = False,
) -> RunSummary:
    """Bring a pipeline up to date, in at most one Dagster run.

    Args:
        pipeline: which.
        settings: where everything is.
        request: what of it.
        on_progress: told how the run gets on.
        queue: go through the queue of a Dagster server that is up, if there is one.

    Raises:
        DeclarationError: the request names no stage of the pipeline, or a value that cannot be replaced.
        SetupError: a server that is up does not take the run.
    """
    started = time.monotonic()
    stages = _stages(pipeline, request)
    chain = chain_of(stages, settings)
    if not request.force and (done := _all_done(chain, request)):
        summary = summarize(chain, done, batches=request.batches, problems=_refused(chain, done))
        return _timed(summary, started)
    from ml_platform.dead_runs import mark_dead
    from ml_platform.instance import prepare_instance
    from ml_platform.server import find

    server = find(settings) if queue else None
    with prepare_instance(settings) as instance:
        mark_dead(instance)
        if server is not None:
            run_id = _through_server(server, pipeline, request, instance, on_progress)
        else:
            run_id = _in_process(pipeline, settings, request, instance, on_progress)
        run = instance.get_run_by_id(run_id)
        assert run is not None
        summary = summarize(
            chain_of(stages, settings, instance),
            stages_done(run),
            batches=request.batches,
            run_id=run_id,
            problems=problems_of(instance, run),
        )
    return _timed(summary, started)


def _stages(pipeline: Pipeline, request: Request) -> dict[str, Stage]:
    stages = stages_of(overridden(pipeline, request.replaced))
    if unknown := [name for name in request.select or () if name not in stages]:
        raise DeclarationError(
            "There is no such stage.", where=pipeline.name, got=", ".join(unknown), fix=f"one of {', '.join(stages)}"
        )
    return stages


def _timed(summary: RunSummary, started: float) -> RunSummary:
    return replace(summary, seconds=time.monotonic() - started)


def _all_done(chain: Chain, request: Request) -> list[StageSummary] | None:
    """What each stage would come to if nothing is to be done; None where a run has something to do or to say."""
    done: list[StageSummary] = []
    stopped = False
    for name in request.select or chain.stages:
        statuses = chain.statuses(name, sorted(request.batches) if request.batches is not None else None)
        states = [_settled(chain, name, batch, status) for batch, status in statuses.items()]
        if None in states:
            return None
        if states and State.FRESH not in states and not chain.stages[name].apart:
            whole = not chain.stages[name].partitioned
            # What a gate refuses stops what is below. What reads all batches may wait for some that were not asked for.
            stopped |= whole and (State.REJECTED in states or request.batches is not None)
            if not (whole and stopped):
                return None
        done.append(StageSummary(name=name, fresh=states.count(State.FRESH), rejected=states.count(State.REJECTED)))
    return done if any(stage.fresh for stage in done) else None


def _settled(chain: Chain, name: str, batch: str, status: Status) -> State | None:
    """The state of an artifact that no run would touch; None for any other."""
    if status.state is State.REJECTED:
        assert status.manifest is not None
        told = chain.published.rejections(name).get(batch) == status.manifest.data_version
        return State.REJECTED if told else None
    return status.state if status.state in (State.FRESH, State.BLOCKED) else None


def _refused(chain: Chain, done: Sequence[StageSummary]) -> list[str]:
    """What a gate refuses as a whole, and has refused before."""
    whole = [stage.name for stage in done if stage.rejected and not chain.stages[stage.name].partitioned]
    return [f"{name} was rejected.\n{chain.statuses(name)[UNPARTITIONED].reason}" for name in whole]


def _in_process(
    pipeline: Pipeline,
    settings: Settings,
    request: Request,
    instance: dg.DagsterInstance,
    on_progress: Callable[[Progress], None] | None,
) -> str:
    """Carry the run out here. Returns its id."""
    from ml_platform.dead_runs import PROCESS_TAG, process_tag
    from ml_platform.failures import FAILURE_TAG, STOPPED
    from ml_platform.stages import progress
    from ml_platform.stages.assets import build_chain_job
    from ml_platform.stages.resources import build_resources

    run_id = str(uuid.uuid4())
    with progress.listening(run_id, on_progress or (lambda event: None)):
        result = build_chain_job(stages_of(pipeline)).execute_in_process(
            instance=instance,
            run_id=run_id,
            resources=build_resources(settings),
            # A line for every event would drown the progress that the command line shows. What fails is said in the
            # summary, and in full in the event log: Dagster would print each stack twice.
            run_config={**request.config(), "console": "CRITICAL"},
            # Under this job of this code location, or the UI's timeline and job pages would not know of the run.
            tags={REPOSITORY_LABEL_TAG: CODE_LOCATION, PROCESS_TAG: process_tag()},
            raise_on_error=False,
        )
    if _was_stopped(result):
        instance.add_run_tags(run_id, {FAILURE_TAG: STOPPED})
    return run_id


def _was_stopped(result: dg.ExecuteInProcessResult) -> bool:
    """Whether a person ended the run with Ctrl-C: Dagster says that it failed, and it is not to be tried again."""
    failures = (event.step_failure_data.error for event in result.all_events if event.is_step_failure)
    return any(error is not None and error.cls_name == "DagsterExecutionInterruptedError" for error in failures)


def _through_server(
    server: Server,
    pipeline: Pipeline,
    request: Request,
    instance: dg.DagsterInstance,
    on_progress: Callable[[Progress], None] | None,
) -> str:
    """Put the run into the server's queue and follow it to its end. Returns its id."""
    from ml_platform.stages.assets import chain_job_name
    from ml_platform.stages.follow import follow

    run_id = server.launch(chain_job_name(pipeline), request.config(), {})
    follow(instance, run_id, on_progress or (lambda event: None), where=server.url)
    return run_id


def plan_pipeline(pipeline: Pipeline, settings: Settings, request: Request = EVERYTHING) -> list[StagePlan]:
    """What `run_pipeline` would do, stage by stage. Changes nothing and builds nothing."""
    from ml_platform.stages.plan import make_plan

    chain = chain_of(_stages(pipeline, request), settings)
    chain.planning = True
    forced = (request.select or chain.stages) if request.force else ()
    return make_plan(chain, request.batches, select=request.select, forced=forced)

"""Run a pipeline's chain from the command line: one Dagster run in this process, seen in the UI like any other."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DeclarationError
from ml_platform.stages import stages_of
from ml_platform.stages.chain import State
from ml_platform.stages.execute import Did
from ml_platform.stages.summary import GateOutcome, Progress, RegisteredModel, RunSummary, StageSummary

if TYPE_CHECKING:
    import dagster as dg

    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.chain import Chain

REPOSITORY_LABEL_TAG = ".dagster/repository"
CODE_LOCATION = "__repository__@ml_platform"
"""As workspace.yaml names it."""


class _Collector:
    """Gathers what the steps of one run tell."""

    def __init__(self, on_progress: Callable[[Progress], None] | None) -> None:
        self._on_progress = on_progress
        self.stages: list[StageSummary] = []
        self.reasons: dict[str, Mapping[Did, Mapping[str, str]]] = {}

    def on_progress(self, progress: Progress) -> None:
        if self._on_progress:
            self._on_progress(progress)

    def on_stage(self, summary: StageSummary, reasons: Mapping[Did, Mapping[str, str]]) -> None:
        self.stages.append(summary)
        self.reasons[summary.name] = reasons

    def stood(self, stage: str) -> bool:
        """Whether the run came as far as a stage and left it sound: what was published before says nothing of it."""
        return any(s.name == stage and (s.built or s.cached or s.fresh) for s in self.stages)

    def of(self, stage: str, did: Did) -> Mapping[str, str]:
        return self.reasons.get(stage, {}).get(did, {})


def run_pipeline(
    pipeline: Pipeline,
    settings: Settings,
    *,
    batches: Collection[str] | None = None,
    select: Sequence[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> RunSummary:
    """Bring a pipeline up to date, in one Dagster run.

    Args:
        pipeline: which.
        settings: where everything is.
        batches: treat only these; all that have landed, when None.
        select: carry out only these stages; all, when None.
        on_progress: told how the run gets on.

    Raises:
        DeclarationError: `select` names no stage of the pipeline.
    """
    stages = stages_of(pipeline)
    if unknown := [name for name in select or () if name not in stages]:
        raise DeclarationError(
            "There is no such stage.", where=pipeline.name, got=", ".join(unknown), fix=f"one of {', '.join(stages)}"
        )
    from ml_platform.instance import prepare_instance
    from ml_platform.stages import progress
    from ml_platform.stages.assets import build_chain_job
    from ml_platform.stages.opening import chain_of
    from ml_platform.stages.resources import build_resources

    started = time.monotonic()
    collector = _Collector(on_progress)
    run_id = str(uuid.uuid4())
    with prepare_instance(settings) as instance, progress.listening(run_id, collector):
        result = build_chain_job(stages).execute_in_process(
            instance=instance,
            run_id=run_id,
            resources=build_resources(settings),
            run_config={
                "batches": sorted(batches) if batches is not None else None,
                "stages": list(select) if select else None,
                # A line for every event would drown the progress that the command line shows.
                # What fails is said in the summary, and in full in the event log: Dagster would print each stack twice.
                "console": "CRITICAL",
            },
            # Under this job of this code location, or the UI's timeline and job pages would not know of the run.
            tags={REPOSITORY_LABEL_TAG: CODE_LOCATION},
            raise_on_error=False,
        )
        chain = chain_of(stages, settings, instance)
        return _summary(chain, collector, result, run_id, batches, time.monotonic() - started)


def _summary(
    chain: Chain,
    collector: _Collector,
    result: dg.ExecuteInProcessResult,
    run_id: str,
    batches: Collection[str] | None,
    seconds: float,
) -> RunSummary:
    wanted = chain.taken() if batches is None else [b for b in chain.taken() if b in set(batches)]
    gate = chain.statuses("validated_batch", wanted)
    evaluation = _published_facts(chain, "evaluation") if collector.stood("evaluation") else {}
    model = _published_facts(chain, "registered_model") if collector.stood("registered_model") else {}
    return RunSummary(
        pipeline=chain.pipeline.name,
        run_id=run_id,
        stages=collector.stages,
        accepted=sum(status.state is State.FRESH for status in gate.values()),
        rejected={batch: status.reason for batch, status in gate.items() if status.state is State.REJECTED},
        incomplete=collector.of("raw_batch", Did.BLOCKED),
        metrics=evaluation.get("metrics", {}),
        baseline_metrics=evaluation.get("baseline", {}),
        gates=[GateOutcome(**gate) for gate in evaluation.get("gates", ())],
        model=_model(model),
        problems=_problems(result),
        seconds=seconds,
    )


def _published_facts(chain: Chain, stage: str) -> Mapping[str, Any]:
    print_ = chain.published.fingerprint(stage)
    manifest = chain.lookup(stage, [print_]).get(print_) if print_ else None
    return manifest.facts if manifest else {}


def _model(facts: Mapping[str, Any]) -> RegisteredModel | None:
    if not facts:
        return None
    return RegisteredModel(
        name=facts["name"], version=facts["version"], uri=facts["uri"], aliases=tuple(facts["aliases"])
    )


def _problems(result: dg.ExecuteInProcessResult) -> list[str]:
    """The message of each step that failed; Dagster's own wrapping is left out."""
    problems = []
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            text = data.user_failure_data.description if data.user_failure_data else None
            error = data.error.cause or data.error if data.error else None
            problems.append(text or (error.message.strip() if error else f"{event.step_key} failed"))
    if not problems and not result.success:
        problems.append("The run failed: see it in the UI.")
    return problems

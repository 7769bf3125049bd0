"""What a run came to, put together from its tags and events, and from how the pipeline stands afterwards."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ml_platform.stages.chain import RAW_BATCH, Chain, State
from ml_platform.stages.evidence import promoted
from ml_platform.stages.summary import GateOutcome, RegisteredModel, RunSummary, StageSummary

if TYPE_CHECKING:
    import dagster as dg

    from ml_platform.store.manifest import Manifest

STAGES_TAG = ".dagster/ml_platform/stages"
"""The run tag that holds what became of each stage. The prefix is Dagster's for tags that its pages do not show."""


TAGGING = threading.Lock()
"""Held while a run's tags are read and then written: stages may be carried out side by side."""


def note_stage(instance: dg.DagsterInstance, run_id: str, summary: StageSummary) -> None:
    """Write what became of a stage to its run, where whoever follows the run from another process finds it."""
    with TAGGING:
        run = instance.get_run_by_id(run_id)
        done = stages_done(run) if run is not None else []
        instance.add_run_tags(run_id, {STAGES_TAG: json.dumps([asdict(stage) for stage in (*done, summary)])})


def stages_done(run: dg.DagsterRun) -> list[StageSummary]:
    """What became of the stages that a run has carried out, in the order in which they were done."""
    return [StageSummary(**stage) for stage in json.loads(run.tags.get(STAGES_TAG, "[]"))]


def summarize(
    chain: Chain,
    stages: Sequence[StageSummary],
    *,
    batches: Collection[str] | None,
    run_id: str = "",
    problems: Sequence[str] = (),
) -> RunSummary:
    """What a run came to, for people.

    Args:
        chain: the pipeline as it stands after the run.
        stages: what became of each.
        batches: those that were asked for; all, when None.
        run_id: the Dagster run; "" where there was nothing to run.
        problems: what went wrong.
    """
    wanted, order = (
        None if batches is None else sorted(batches),
        {name: place for place, name in enumerate(chain.stages)},
    )
    raw = chain.statuses(RAW_BATCH, wanted)
    gate = chain.statuses("validated_batch", [batch for batch in chain.taken() if wanted is None or batch in raw])
    accepted = {b: s.manifest for b, s in gate.items() if s.state is State.FRESH and s.manifest is not None}
    evaluation = _facts(chain, "evaluation", stages)
    return RunSummary(
        pipeline=chain.pipeline.name,
        run_id=run_id,
        stages=sorted(stages, key=lambda stage: order.get(stage.name, 0)),  # candidates are done in any order
        accepted=len(accepted),
        waived=[batch for batch, manifest in accepted.items() if manifest.verdict == "waived"],
        rejected={batch: status.reason for batch, status in gate.items() if status.state is State.REJECTED},
        warned=_warned(accepted, run_id) if run_id else {},
        incomplete={b: status.reason for b, status in raw.items() if status.state is State.BLOCKED and b not in gate},
        metrics=evaluation.get("metrics", {}),
        baseline_metrics=evaluation.get("baseline", {}),
        gates=[GateOutcome(**gate) for gate in evaluation.get("gates", ())],
        model=_model(chain, _facts(chain, "registered_model", stages)),
        problems=problems,
    )


def _warned(accepted: Mapping[str, Manifest], run_id: str) -> dict[str, list[str]]:
    """The checks that warn of batches that the run has looked at: of others it was told before.

    What a waived batch breaks is a warning to Dagster. Here it is told as what it is.
    """
    warned = {
        batch: [check["name"] for check in manifest.facts.get("checks", ()) if check.get("warn")]
        for batch, manifest in accepted.items()
        if manifest.run_id == run_id and manifest.verdict != "waived"
    }
    return {batch: checks for batch, checks in warned.items() if checks}


def _facts(chain: Chain, name: str, stages: Sequence[StageSummary]) -> Mapping[str, Any]:
    """Facts of a stage that the run left sound: what was published before says nothing of it."""
    if not any(stage.name == name and (stage.built or stage.cached or stage.fresh) for stage in stages):
        return {}
    manifest = chain.published_artifact(name)
    return manifest.facts if manifest else {}


def _model(chain: Chain, facts: Mapping[str, Any]) -> RegisteredModel | None:
    if not facts:
        return None
    now = promoted(chain, facts["trained_model"], facts["version"])
    waits = now.metadata.get("action") == "waiting"
    version = str(now.metadata["version"])
    return RegisteredModel(
        name=facts["name"],
        version=version,
        uri=f"models:/{facts['name']}/{version}",
        aliases=("champion",) if now.passed else ("challenger",) if waits else (),
        standing="" if now.passed else now.description,
    )


def problems_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    """The message of each step of a run that failed; Dagster's own wrapping is left out.

    A run that ended outside of its steps, such as one whose process was killed, has what was said of its end.
    """
    from dagster import DagsterEventType

    problems = []
    for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.STEP_FAILURE):
        event = entry.get_dagster_event()
        data = event.step_failure_data
        text = data.user_failure_data.description if data.user_failure_data else None
        error = data.error.cause or data.error if data.error else None
        problems.append(text or (error.message.strip() if error else f"{event.step_key} failed"))
    if not problems and not run.is_success:
        ends = {DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_CANCELED}
        said = [entry.get_dagster_event().message for entry in instance.all_logs(run.run_id, of_type=ends)]
        told = next(filter(None, reversed(said)), "see it in the UI.")
        problems.append(f"The run ended as {run.status.value.lower()}: {told}")
    return problems

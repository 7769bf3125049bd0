"""What a run of the chain came to: plain data, filled by `stages.run`, shown by the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """One stage of one run. The counts are batches, or 0 and 1 for a stage that is not partitioned.

    Args:
        name: the stage, such as "validated_batch".
        built: its body ran and committed an artifact.
        cached: the fingerprint was known from history, so the old artifact was published again.
        fresh: nothing had changed, so there was nothing to do.
        rejected: a gate refused it.
        failed: it ended in an error.
        seconds: wall time of the stage.
        detail: a few words more, such as "402 rows/s"; may be empty.
    """

    name: str
    built: int = 0
    cached: int = 0
    fresh: int = 0
    rejected: int = 0
    failed: int = 0
    seconds: float = 0.0
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class GateOutcome:
    """One metric gate of the pipeline, such as "roc_auc >= 0.72", with the value that the model reached."""

    name: str
    value: float
    passed: bool

    def __str__(self) -> str:
        value = "not computed" if math.isnan(self.value) else f"{self.value:.4f}"
        return f"{self.name}: {value}, {'passed' if self.passed else 'FAILED'}"


@dataclass(frozen=True, kw_only=True)
class RegisteredModel:
    """A version in the model registry. `uri` is what `mlflow.pyfunc.load_model` takes; `standing` says why it is not
    the champion."""

    name: str
    version: str
    uri: str
    aliases: Sequence[str] = ()
    standing: str = ""


def was_stopped(problem: str) -> bool:
    """Whether a problem is no other than that somebody ended the run: Dagster tells it as a failure."""
    return "DagsterExecutionInterruptedError" in problem


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run of one pipeline.

    Args:
        pipeline: its name.
        run_id: the Dagster run, or "" when there was nothing to run.
        stages: in the order of the chain.
        accepted: how many batches of this run's selection stand accepted, waived ones among them.
        waived: those of them that a person has accepted though the gate would have rejected them.
        rejected: why, by batch.
        warned: of batches that this run has accepted, without waived ones, the checks that warn, by batch.
        incomplete: which required sources are missing, by batch.
        metrics: of the model on the holdout.
        baseline_metrics: of the baseline on the same rows; may lack metrics.
        gates: the pipeline's metric gates.
        model: the registered version that stands after the run, or None.
        problems: one message for each thing that went wrong; empty when all is well. A rejected batch is a verdict,
            not a problem.
        seconds: wall time of the run.
    """

    pipeline: str
    run_id: str = ""
    stages: Sequence[StageSummary] = ()
    accepted: int = 0
    waived: Sequence[str] = ()
    rejected: Mapping[str, str] = field(default_factory=dict)
    warned: Mapping[str, Sequence[str]] = field(default_factory=dict)
    incomplete: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    baseline_metrics: Mapping[str, float] = field(default_factory=dict)
    gates: Sequence[GateOutcome] = ()
    model: RegisteredModel | None = None
    problems: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def stopped(self) -> bool:
        """Whether somebody ended it with Ctrl-C, or terminated it."""
        return any(map(was_stopped, self.problems))

    @property
    def ok(self) -> bool:
        """Whether nothing failed: no problem, no failed stage, no gate that the model missed."""
        return not self.problems and all(s.failed == 0 for s in self.stages) and all(g.passed for g in self.gates)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What `run_pipeline` tells `on_progress`: `done` of `total` units of a stage, and a few words.

    A stage announces itself with done=0, and its end with done == total; total is at least 1, or None while nobody
    knows it.
    """

    stage: str
    done: int
    total: int | None
    message: str = ""

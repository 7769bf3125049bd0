"""What a team may say about the gate of a model: its slices, its calibration, and how it stands beside the champion;
and about who makes a model that passes it the champion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ml_platform import declared
from ml_platform.errors import DeclarationError
from ml_platform.gates.declaration import Limits

Judgement = Literal["reject", "keep", "warn", "off"]
Decider = Literal["gates", "person"]

LOWER_IS_BETTER = frozenset(
    {"log_loss", "brier", "rmse", "mae", "calibration_error", "error_p50", "error_p90", "error_p99"}
)
"""Metrics of errors; of all others more is better."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """From which probability on a row counts as positive. At most one rule; without any, where F1 is best.

    Args:
        precision: where most of the positive rows are found, of the thresholds at which at least this share of what
            is called positive is.
        recall: where what is called positive is so most often, of the thresholds at which at least this share of the
            positive rows is found.
        at: this very probability.
    """

    precision: float | None = None
    recall: float | None = None
    at: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name in ("precision", "recall", "at") if (value := getattr(self, name)) is not None}
        if len(given) > 1:
            raise DeclarationError("A threshold has one rule.", where="Threshold", got=", ".join(given), fix="keep one")
        for name, value in given.items():
            if not (declared.is_finite(value) and 0 <= value <= 1):
                raise DeclarationError("A share lies in 0 to 1.", where=f"Threshold.{name}", got=repr(value))

    def __str__(self) -> str:
        if self.precision is not None:
            return f"the most recall with a precision of at least {self.precision}"
        if self.recall is not None:
            return f"the most precision with a recall of at least {self.recall}"
        return "the best F1" if self.at is None else f"{self.at} by declaration"


@dataclass(frozen=True, kw_only=True)
class ModelGate:
    """How a model is looked at before it is registered, beside the bounds of its metrics. The defaults need no tuning.

    Args:
        metric: the metric by which slices and the champion are compared; "" for the task's first.
        draws: how often the held-out rows are drawn anew for an interval.
        confidence: share of the draws within an interval.
        champion: what becomes of a model that is worse than the champion beyond noise: "reject" keeps it out of the
            registry, "keep" registers it and lets it wait as challenger, "warn" tells it, "off" compares nothing.
        tolerance: a model that is worse than the champion by less than this share of the champion's figure is let in
            however sure that is: another seed makes as much of a difference.
        slices: columns (categorical features or keys) by whose values the held-out rows are looked at apart; None
            for every categorical feature.
        slice_rows: a slice with fewer rows is not looked at.
        slice_margin: a check warns of a slice whose whole interval is worse than the whole interval of all rows by
            this share of the figure of all rows.
        slice_bound: what the metric must reach in every slice (must not exceed, for an error measure). A model that
            misses it beyond noise, with a whole interval, is rejected. None: no such bound.
        calibration: limits of the expected calibration error, 0 to 1: how far probabilities are from the shares that
            come true. Judged by the lower end of its interval; no limit on a regression.
        threshold: of two classes: from which probability on a row counts as positive.
        importance_rows: in so many held-out rows each feature is shuffled, to see what the model makes of it.
    """

    metric: str = ""
    draws: int = 1000
    confidence: float = 0.95
    champion: Judgement = "reject"
    tolerance: float = 0.01
    slices: tuple[str, ...] | None = None
    slice_rows: int = 200
    slice_margin: float = 0.1
    slice_bound: float | None = None
    calibration: Limits = field(default_factory=lambda: Limits(warn=0.05, reject=None))
    threshold: Threshold = field(default_factory=Threshold)
    importance_rows: int = 2000

    def __post_init__(self) -> None:
        where = "ModelGate"
        declared.text(where, "metric", self.metric)
        declared.whole_number(where, "draws", self.draws, 100)
        declared.whole_number(where, "slice_rows", self.slice_rows, 10)
        declared.whole_number(where, "importance_rows", self.importance_rows, 100)
        declared.instance(where, "calibration", self.calibration, Limits)
        declared.instance(where, "threshold", self.threshold, Threshold)
        if self.slices is not None:
            object.__setattr__(self, "slices", declared.tuple_of(where, "slices", self.slices, str))
        if not (declared.is_finite(self.confidence) and 0.5 <= self.confidence < 1):
            raise DeclarationError("A confidence lies in 0.5 to 1.", where=where, got=repr(self.confidence))
        if self.champion not in ("reject", "keep", "warn", "off"):
            raise DeclarationError(
                "There is no such judgement.",
                where=f"{where}.champion",
                got=repr(self.champion),
                fix="reject, keep, warn, off",
            )
        for name in ("tolerance", "slice_margin"):
            value = getattr(self, name)
            if not (declared.is_finite(value) and 0 <= value < 1):
                raise DeclarationError("A share lies in 0 to 1.", where=f"{where}.{name}", got=repr(value))
        if self.slice_bound is not None and not declared.is_finite(self.slice_bound):
            raise DeclarationError("A bound is a finite number.", where=where, got=repr(self.slice_bound))

    def main(self, first: str) -> str:
        """The metric that is compared; `first` is the task's first one."""
        return self.metric or first


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """Who makes a registered model the champion, and how much better it must be. One of three things becomes of a
    model: it is promoted, is kept as challenger until a person decides, or is rejected and not registered.

    Rejected is what misses a bound of `Pipeline.gates` or `ModelGate`, and with ModelGate.champion="reject" what is
    worse than the champion beyond noise. Of the others, kept as challenger is: all of them, with by="person"; what is
    worse than the champion beyond noise, with ModelGate.champion="keep"; what does not reach `least_gain`; and, unless
    the champion does not matter ("warn", "off"), what the held-out rows are too few to compare.

    Args:
        by: "gates": a model that is neither rejected nor kept is promoted by itself. "person": somebody approves it.
        least_gain: how much better than the champion a model must surely be to be promoted by itself, in the unit of
            `ModelGate.metric`: the lower end of the gain's interval must reach it. 0 asks for a model that is surely
            not worse, more for one that is surely better. Where there is a champion and nothing can be compared, it
            is not reached. None asks for no more than that it is not worse beyond noise.
    """

    by: Decider = "gates"
    least_gain: float | None = None

    def __post_init__(self) -> None:
        if self.by not in ("gates", "person"):
            raise DeclarationError(
                "Nobody of that name decides.", where="Promotion.by", got=repr(self.by), fix="gates, person"
            )
        if self.least_gain is not None and not declared.is_finite(self.least_gain):
            raise DeclarationError(
                "A gain is a finite number.", where="Promotion.least_gain", got=repr(self.least_gain)
            )

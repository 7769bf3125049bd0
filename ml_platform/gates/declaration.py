"""What a team may say about the gates of data: of a batch beside the accepted ones before it, and of all features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ml_platform import declared
from ml_platform.errors import DeclarationError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far a figure may be from what it was, in robust standard deviations of its own history.

    Args:
        warn: from here on a check fails as a warning, and the batch is accepted. None: never.
        reject: from here on the batch is rejected. None: never.
    """

    warn: float | None = 4.5
    reject: float | None = 6.0

    def __post_init__(self) -> None:
        for name in ("warn", "reject"):
            value = getattr(self, name)
            if value is not None and not (declared.is_finite(value) and value > 0):
                raise DeclarationError(
                    "A limit is a positive number, or None.", where=f"Limits.{name}", got=repr(value)
                )
        if self.warn is not None and self.reject is not None and self.warn > self.reject:
            raise DeclarationError(
                "A batch would be rejected before anybody is warned.",
                where="Limits",
                got=f"warn={self.warn}, reject={self.reject}",
                fix="let warn be at most reject, or None",
            )


@dataclass(frozen=True, kw_only=True)
class BatchGate:
    """What a batch is compared with, and how strictly. The defaults work without tuning.

    Args:
        history: with how many accepted batches before it, in name order, a batch is compared.
        least: with fewer of them nothing is compared. A batch that was judged so is judged again once there are
            more before it.
        drift: limits of every column, unless the source has others for it (`Source.drift`).
        volume: limits of the number of rows. Wider by default: a holiday nobody thought of brings a quarter fewer.
    """

    history: int = 28
    least: int = 14
    drift: Limits = field(default_factory=Limits)
    volume: Limits = field(default_factory=lambda: Limits(reject=8.0))

    def __post_init__(self) -> None:
        declared.whole_number("BatchGate", "least", self.least, 3)
        declared.whole_number("BatchGate", "history", self.history, self.least)
        for name in ("drift", "volume"):
            declared.instance("BatchGate", name, getattr(self, name), Limits)


COLUMNS, FINITE, INFORMATIVE, LABEL = "columns_as_declared", "finite", "not_constant", "label_valid"
RATE, DRIFT, SHIFT = "label_rate", "no_drift", "holdout_like_train"
FEATURE_CHECKS: Mapping[str, str] = {
    COLUMNS: "Has every file the declared columns, numbers as double and categories as string?",
    FINITE: "Is no feature and no label infinite? (Not-a-number is a missing value here.)",
    INFORMATIVE: "Has no feature one value only, or none, over all training rows?",
    LABEL: "Can the task be learned from the label: two classes, several classes, a number that differs?",
    RATE: "Is the label distributed in each batch as in the batches before it?",
    DRIFT: "Are the features of each batch distributed as in the batches before it?",
    SHIFT: "Are the held-out rows distributed like the training rows?",
}
"""Checks of the features of all batches together and what each one asks, in the order in which they are looked at."""


@dataclass(frozen=True, kw_only=True)
class FeatureGate:
    """What must hold of the features of all batches together, before a model learns from them.

    Values that are not finite, types that are not the declared ones, and a label that is no label for the task always
    reject: training cannot use them.

    Args:
        may_be_constant: features that may have one value only, or none, over the training rows. Any other such feature
            tells nothing, and rejects: most often a join that has lost its match.
        drift: how far a batch's features, and its label's rate, may be from those of the batches before it
            (`BatchGate.history`, `BatchGate.least`), in robust standard deviations.
        shift: how far the held-out rows may be from the training rows, feature by feature, as population stability
            index: under 0.1 is calm, over 0.25 is commonly called a shift.
    """

    may_be_constant: tuple[str, ...] = ()
    drift: Limits = field(default_factory=lambda: Limits(warn=8.0, reject=None))
    shift: Limits = field(default_factory=lambda: Limits(warn=0.25, reject=None))

    def __post_init__(self) -> None:
        names = declared.tuple_of("FeatureGate", "may_be_constant", self.may_be_constant, str)
        object.__setattr__(self, "may_be_constant", names)
        for name in ("drift", "shift"):
            declared.instance("FeatureGate", name, getattr(self, name), Limits)

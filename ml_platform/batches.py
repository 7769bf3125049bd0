"""How a pipeline's batches are named, and which of them are learned from and held out."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass

from ml_platform.declared import text, tuple_of
from ml_platform.errors import DeclarationError

_BATCH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class DailyBatches:
    """One batch a day, named by its ISO date in `timezone`. `end` is the last day, included; None means open-ended."""

    start: str
    end: str | None = None
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        where = "DailyBatches"
        for value in (self.start, *([] if self.end is None else [self.end])):
            if not self.is_name(value):
                raise DeclarationError(
                    "A day must be an ISO date.", where=where, got=repr(value), fix='write "2013-01-31"'
                )
        if self.end is not None and self.end < self.start:
            raise DeclarationError("The last day is before the first.", where=where, got=f"{self.start}..{self.end}")
        text(where, "timezone", self.timezone)
        try:
            zoneinfo.ZoneInfo(self.timezone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: a region is a folder
            raise DeclarationError("Unknown time zone.", where=where, got=repr(self.timezone)) from error

    @staticmethod
    def is_name(name: object) -> bool:
        """Whether `name` is an ISO date written in full."""
        try:
            return isinstance(name, str) and dt.date.fromisoformat(name).isoformat() == name
        except ValueError:
            return False

    def has(self, name: str) -> bool:
        """Whether `name` is a day of this pipeline, be it past or to come."""
        return self.is_name(name) and self.start <= name and (self.end is None or name <= self.end)

    def accepts(self, name: str) -> bool:
        """Whether `name` is a day of this pipeline; where it is open-ended, one that has begun in `timezone`."""
        return self.has(name) and (self.end is not None or name <= self._today())

    def _today(self) -> str:
        return dt.datetime.now(zoneinfo.ZoneInfo(self.timezone)).date().isoformat()

    def describe(self) -> str:
        """The names that are accepted, in words."""
        return f"one day from {self.start} to {self.end or 'today'} (YYYY-MM-DD)"


@dataclass(frozen=True, kw_only=True)
class NamedBatches:
    """Batches with names of the team's own, ordered by name. A name has letters, digits, dot, dash and underscore."""

    def accepts(self, name: str) -> bool:
        """Whether `name` can name a batch: it can never leave its folder."""
        return _BATCH_NAME.fullmatch(name) is not None and ".." not in name

    def describe(self) -> str:
        """The names that are accepted, in words."""
        return "up to 100 letters, digits, dots, dashes and underscores, beginning with a letter or digit"


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which batches are learned from and which are held out, by name order: the holdout is always later.

    Use `Split.between` for fixed bounds and `Split.rolling` for a window that moves with the data.
    """

    train: tuple[str, str] | None = None
    holdout: tuple[str, str] | None = None
    train_batches: int | None = None
    holdout_batches: int | None = None

    def __post_init__(self) -> None:
        if (self.train is None) != (self.holdout is None) or (
            (self.train is None) == (self.holdout_batches is None)
            or (self.train is not None and self.train_batches is not None)
        ):
            raise DeclarationError(
                "A split has fixed bounds (train and holdout) or counts batches (holdout_batches), one of the two.",
                where="Split",
                got=repr(self),
                fix="use Split.between(train=..., holdout=...) or Split.rolling(holdout=...)",
            )
        if self.train is not None:
            self._check_bounds()
        else:
            for count in (self.holdout_batches, *([] if self.train_batches is None else [self.train_batches])):
                if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                    raise DeclarationError(
                        "A rolling split counts batches, from 1.",
                        where="Split",
                        got=(self.train_batches, self.holdout_batches),
                    )

    def _check_bounds(self) -> None:
        for name in ("train", "holdout"):
            bounds = tuple_of(f"Split.{name}", name, getattr(self, name), str)
            if len(bounds) != 2:
                raise DeclarationError("A split's bounds are two names.", where=f"Split.{name}", got=bounds)
            if bounds[0] > bounds[1]:
                raise DeclarationError("A split's first batch is after its last.", where=f"Split.{name}", got=bounds)
            object.__setattr__(self, name, bounds)
        assert self.train is not None
        assert self.holdout is not None
        if self.holdout[0] <= self.train[1]:
            raise DeclarationError(
                "The holdout overlaps the training window, or comes before it.",
                where="Split",
                got=f"train {self.train[0]}..{self.train[1]}, holdout {self.holdout[0]}..{self.holdout[1]}",
                fix="let the holdout begin after the last training batch",
            )

    @classmethod
    def between(cls, *, train: tuple[str, str], holdout: tuple[str, str]) -> Split:
        """From the first to the last batch named, both included."""
        return cls(train=train, holdout=holdout)

    @classmethod
    def rolling(cls, *, train: int | None = None, holdout: int) -> Split:
        """The last `holdout` batches are held out; the `train` before them (all, when None) are learned from."""
        return cls(train_batches=train, holdout_batches=holdout)

    def divide(self, batches: Sequence[str]) -> tuple[list[str], list[str]]:
        """Divide batch names into (train, holdout), each in name order; names outside both windows are left out."""
        names = sorted(batches)
        if self.train and self.holdout:
            first, last = self.train
            holdout_first, holdout_last = self.holdout
            return [n for n in names if first <= n <= last], [n for n in names if holdout_first <= n <= holdout_last]
        assert self.holdout_batches is not None
        train, holdout = names[: -self.holdout_batches], names[-self.holdout_batches :]
        return train if self.train_batches is None else train[-self.train_batches :], holdout

"""Judges rows each by itself: whether they have the declared types, and which rules they break.

    judge = Judge(feed.schema, columns, text=False)
    judged = judge.judge(chunk)

What depends on other rows (keys, checks of the whole batch) is not asked here; see `ml_platform.gates.schema`.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
from pandera.errors import SchemaErrorReason

from ml_platform.gates.expressions import Rule
from ml_platform.gates.names import literal
from ml_platform.gates.reading import parse_text
from ml_platform.gates.report import BrokenRule
from ml_platform.gates.rules import Plan, declared_types, load_schema, plan

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

CHECK_CRASHES = (Exception, pl.exceptions.PanicException)
"""A team's check function may raise anything, and polars panics derive from BaseException."""


@dataclass(frozen=True)
class Found:
    """Rows that break rules of one family.

    Args:
        family: which.
        frame: the rows that were looked at.
        at: where each of them stands in the chunk; None: they are the chunk.
        masks: for each broken rule, which of them break it.
    """

    family: str
    frame: pl.DataFrame
    at: Rows | None
    masks: Sequence[tuple[BrokenRule, Mask]]

    @property
    def breaking(self) -> Mask:
        """Which of the rows looked at break any of the rules."""
        breaking: Mask = np.logical_or.reduce([mask for _, mask in self.masks])
        return breaking

    def place(self, index: npt.NDArray[np.intp]) -> Rows:
        """Where rows of `frame` stand in the chunk."""
        return index.astype(np.int64) if self.at is None else self.at[index]


@dataclass
class Judged:
    """What is known of one chunk.

    Args:
        rows: how many rows it has.
        frame: those of them that have the declared types, parsed.
        at: where each of these stands in the chunk; None: they are all.
        found: which rows break what.
        refused: (family, rule) of what is broken without a row that could be named, such as a check that crashed.
    """

    rows: int
    frame: pl.DataFrame
    at: Rows | None = None
    found: list[Found] = field(default_factory=list)
    refused: list[tuple[str, BrokenRule]] = field(default_factory=list)

    @property
    def bad(self) -> Mask | None:
        """Which rows of the chunk break anything; None where no row does."""
        if not self.found:
            return None
        bad = np.zeros(self.rows, dtype=np.bool_)
        for found in self.found:
            bad[found.place(np.flatnonzero(found.breaking))] = True
        return bad

    def good(self) -> tuple[pl.DataFrame, Rows]:
        """The typed rows that break nothing, and where they stand in the chunk."""
        at = np.arange(self.rows) if self.at is None else self.at
        bad = self.bad
        if bad is None:
            return self.frame, at
        keep = ~bad[at]
        return self.frame.filter(pl.Series(keep)), at[keep]

    def typed(self) -> tuple[pl.DataFrame, Rows]:
        """The rows that have the declared types, and where they stand in the chunk."""
        return self.frame, np.arange(self.rows) if self.at is None else self.at


class Judge:
    """Judges the chunks of one file. It remembers which checks crashed, and asks them no more.

    Args:
        schema: its name, "module:attribute".
        columns: as the file has them.
        text: whether all values are text, which is parsed into the declared types.

    Raises:
        DeclarationError: the schema cannot be used.
    """

    def __init__(self, schema: str, columns: Mapping[str, pl.DataType], *, text: bool) -> None:
        self._before = dict(columns)
        self._written = declared_types(load_schema(schema), list(columns)) if text else {}
        self.plan: Plan = plan(schema, self._before | self._written)
        self._crashed: set[int] = set()

    def judge(self, raw: pl.DataFrame) -> Judged:
        """What there is to say about a chunk's rows, as they came."""
        judged = self._typed(raw)
        if judged.frame.height:
            judged.found += self._ask(self.plan.rules, judged)
        return judged

    def parse(self, raw: pl.DataFrame) -> pl.DataFrame:
        """Rows that are known to have the declared types, parsed."""
        return self._typed(raw).frame

    def _typed(self, raw: pl.DataFrame) -> Judged:
        judged = Judged(raw.height, raw)
        if self._written:
            self._read_text(raw, judged)
        if self.plan.parse is None:
            judged.frame = judged.frame.select(map(literal, self.plan.columns))
            return judged
        losing = [rule for rule in map(self._loss, self.plan.casts.items()) if rule is not None]
        for found in self._ask(losing, judged):  # one at most: they are all of one family
            judged.found.append(found)
            _leave(judged, found)
        self._coerce(judged)
        return judged

    def _read_text(self, raw: pl.DataFrame, judged: Judged) -> None:
        judged.frame = raw.with_columns(parse_text(name, type_) for name, type_ in self._written.items())
        failing = []
        for name, type_ in self._written.items():
            if judged.frame[name].null_count() > raw[name].null_count():
                rule = BrokenRule(check=f"is written as {type_}", code="value_not_parsed", column=name)
                failing.append((rule, (judged.frame[name].is_null() & raw[name].is_not_null()).to_numpy()))
        if failing:
            found = Found("types", raw, None, failing)
            judged.found.append(found)
            _leave(judged, found)

    def _loss(self, cast: tuple[str, pl.DataType]) -> Rule | None:
        """The rule that a coerced number is still the same number."""
        name, type_ = cast
        before, value = self._before[name], pl.col(literal(name))
        if before.is_float() and type_.is_integer():
            same = value.cast(type_, strict=False).cast(before) == value
        elif before.is_integer() and type_.is_float():
            same = value.cast(type_).cast(before, strict=False).eq_missing(value)
        else:
            return None
        return Rule("types", f"is the same as {type_}", "lossy_coercion", name, same.not_().fill_null(False))

    def _coerce(self, judged: Judged) -> None:
        assert self.plan.parse is not None
        names = [literal(name) for name in self.plan.columns]
        try:
            judged.frame = self.plan.parse(judged.frame.lazy()).select(names).collect()
            return
        except pl.exceptions.PolarsError as error:
            said = error
        code, failing = SchemaErrorReason.DATATYPE_COERCION.value, []
        for name, type_ in self.plan.casts.items():
            column = judged.frame[name]
            try:
                mask = (column.cast(type_, strict=False).is_null() & column.is_not_null()).to_numpy()
            except pl.exceptions.PolarsError as refused:
                rule = BrokenRule(check=f"fits {type_}", code=code, column=name, message=last_line(refused))
                judged.refused.append(("types", rule))
                continue
            if mask.any():
                failing.append((BrokenRule(check=f"fits {type_}", code=code, column=name), mask))
        if failing:
            found = Found("types", judged.frame, judged.at, failing)
            judged.found.append(found)
            _leave(judged, found)
            if not judged.refused:
                try:
                    judged.frame = self.plan.parse(judged.frame.lazy()).select(names).collect()
                    return
                except pl.exceptions.PolarsError as error:
                    said = error
        if not judged.refused:
            judged.refused.append(("types", BrokenRule(check="coerce", code=code, message=last_line(said))))
        judged.frame, judged.at = pl.DataFrame(schema=self.plan.columns), np.empty(0, dtype=np.int64)

    def _ask(self, rules: Sequence[Rule], judged: Judged) -> list[Found]:
        """Ask rules of the typed rows, all at once."""
        rules = [rule for rule in rules if id(rule) not in self._crashed]
        if not rules:
            return []
        frame = judged.frame
        try:
            counts = frame.select(rule.breaks.sum().alias(str(index)) for index, rule in enumerate(rules)).row(0)
        except CHECK_CRASHES:
            return self._ask(self._sound(rules, judged), judged)
        failing = [rule for rule, count in zip(rules, counts, strict=True) if count]
        found = []
        for family in dict.fromkeys(rule.family for rule in failing):
            its = [rule for rule in failing if rule.family == family]
            masks = frame.select(rule.breaks.alias(str(index)) for index, rule in enumerate(its))
            broken = [BrokenRule(check=rule.check, code=rule.code, column=rule.column) for rule in its]
            shown = [(rule, mask.to_numpy()) for rule, mask in zip(broken, masks.get_columns(), strict=True)]
            found.append(Found(family, frame, judged.at, shown))
        return found

    def _sound(self, rules: Sequence[Rule], judged: Judged) -> list[Rule]:
        """Find which of the rules crashes, say so, and return the others."""
        sound = []
        for rule in rules:
            try:
                judged.frame.select(rule.breaks.sum())
                sound.append(rule)
            except CHECK_CRASHES as error:
                self._crashed.add(id(rule))
                judged.refused.append((rule.family, crash(rule.check, rule.column, error)))
        assert len(sound) < len(rules), "the rules crash only together"
        return sound


def crash(check: str, column: str, error: BaseException) -> BrokenRule:
    """What is said of a check that did not run."""
    place = f" on {column}" if column else ""
    message = f"the check {check}{place} did not run: {last_line(error)}"
    return BrokenRule(check=check, code=SchemaErrorReason.CHECK_ERROR.value, column=column, message=message)


def last_line(error: BaseException) -> str:
    """What an error says, in one line; of a polars error the first, which is its message."""
    lines = [line for line in "".join(traceback.format_exception_only(error)).strip().split("\n") if line.strip()]
    return lines[-1][:300] if not isinstance(error, pl.exceptions.PolarsError) else lines[0][:300]


def _leave(judged: Judged, found: Found) -> None:
    """Go on without the rows that break these rules."""
    keep = ~found.breaking
    judged.at = found.place(np.flatnonzero(keep))
    judged.frame = judged.frame.filter(pl.Series(keep))

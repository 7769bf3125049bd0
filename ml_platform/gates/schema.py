"""The data gate: checks a landed file against the schema its team declares, and writes it in canonical form.

    report = check(path, source, memory_mib=512, out=folder / "flights.parquet")

A bad file never raises, it gives a report that says what is wrong; only a wrong declaration or a full disk raises.
Where a person has waived the rules for these very bytes, the canonical file is written all the same, with every row
that came; what cannot be read as the declared columns and types cannot be written, so it cannot be waived either.

Where the gate is stricter than `schema.validate(frame, lazy=True)`, because a gate must not lose anything in silence:
a batch without rows fails; a coercion that changes a number (1.5 to 1) fails; so do times finer than microseconds; a
schema that drops invalid rows is refused. Text from CSV is parsed into the declared types whether or not the schema
coerces, since a CSV file has no types of its own.

Reason codes are pandera's (`pandera.errors.SchemaErrorReason`) and these of the platform: missing_file, empty_file,
not_parquet, not_csv, not_utf8, ragged_rows, damaged, value_not_parsed, lossy_coercion, finer_than_microseconds,
no_rows.
"""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import polars as pl
from pandera.errors import SchemaErrorReason

from ml_platform.gates.expressions import Rule, WholeCheck
from ml_platform.gates.reading import ParquetChunks, Unreadable, open_chunks, parse_text
from ml_platform.gates.report import BrokenRule, GateReport
from ml_platform.gates.rules import Plan, declared_types, load_schema, plan
from ml_platform.gates.tally import Tally, show
from ml_platform.gates.unique import KeyWatch
from ml_platform.gates.writing import CanonicalWriter
from ml_platform.pipeline import Reference, Source

_DATA_FAMILIES = ("nulls", "values", "unique", "rules")


def check(
    path: Path,
    feed: Source | Reference,
    *,
    memory_mib: int,
    out: Path | None,
    batch: str = "",
    waived: bool = False,
) -> GateReport:
    """Check one landed file and, when it is accepted, write its canonical Parquet to `out`.

    Args:
        path: the landed bytes, in the feed's format.
        feed: whose file it is; names the schema.
        memory_mib: MiB that reading, checking and writing may take beyond what the process had before.
        out: where the canonical file goes; nothing is there when the batch is rejected. None only checks.
        batch: the batch's name, for the report.
        waived: write the file also where the report is only `waivable`. The report says the same as ever.

    Returns:
        The report. Every family is in it.

    Raises:
        DeclarationError: the schema cannot be used.
        OSError: no space is left to write to.
    """
    tally = Tally(feed.name, batch)
    load_schema(feed.schema)
    with ExitStack() as cleanup:
        writer = None
        try:
            writer = _Gate(path, feed, memory_mib << 20, out, tally, cleanup, waived).run()
        except Unreadable as error:
            tally.stop(error.family, error.code, error.message, error.cases, error.failures)
        report = tally.report()
        if (report.accepted or (waived and report.waivable)) and out is not None:
            assert writer is not None
            writer.commit()
    return report


class _Gate:
    """One file on its way through the gate. What must be cleaned up afterwards is put on `cleanup`."""

    def __init__(
        self,
        path: Path,
        feed: Source | Reference,
        memory: int,
        out: Path | None,
        tally: Tally,
        cleanup: ExitStack,
        waived: bool,
    ) -> None:
        # polars and pyarrow take some 100 MiB of their own; a chunk is held several times over while it is looked at.
        self._memory = max(memory // 8, memory - (110 << 20))
        self._feed, self._out, self._tally, self._cleanup, self._waived = feed, out, tally, cleanup, waived
        self._chunks = open_chunks(path, feed.format, self._memory // 8)
        self._typed: dict[str, pl.DataType] = {}
        columns = self._chunks.columns
        if not isinstance(self._chunks, ParquetChunks):
            self._typed = declared_types(load_schema(feed.schema), list(columns))
            columns = columns | self._typed
        self._plan: Plan = plan(feed.schema, columns)
        self._crashed: set[int] = set()

    def run(self) -> CanonicalWriter | None:
        """Look at the whole file; returns the finished writer, not yet committed, when nothing failed."""
        tally = self._tally
        tally.columns = self._plan.columns
        tally.reach("columns", "types")
        for family, broken in self._plan.broken.items():
            for rule in broken:
                tally.breaks(family, rule)
        if self._plan.broken:
            tally.reach("readable")
            tally.rows = self._chunks.rows or 0
            return None
        writer = self._writer()
        with ExitStack() as watching:
            watches = [watching.enter_context(watch) for watch in self._watches()]
            only = self._stream(writer, watches)
            tally.reach("readable", "rows")
            if not tally.rows:
                tally.breaks("rows", BrokenRule(check="rows", code="no_rows", message="the file has no rows"))
            if tally.failed("types", "rows"):
                return None
            tally.reach(*_DATA_FAMILIES)
            for watch in watches:
                self._judge_key(watch, only)
        if writer is not None and self._keeps():
            writer.finish()
        self._judge_whole(only, writer)
        return writer

    def _stream(self, writer: CanonicalWriter | None, watches: Sequence[KeyWatch]) -> pl.DataFrame | None:
        """Look at every chunk. Returns the batch when it was a single chunk."""
        tally, only = self._tally, None
        for raw in self._chunks:
            start, tally.rows = tally.rows, tally.rows + raw.height
            frame = self._parse(raw, start)
            if frame is None or tally.failed("types"):
                continue
            self._ask(frame, start)
            for watch in watches:
                watch.add(frame)
            if writer is not None and not tally.failed("types") and self._keeps():
                writer.write(frame)
            only = frame if start == 0 else None
        return only

    def _keeps(self) -> bool:
        """Whether what was read is still worth writing: for the canonical file, or for the checks of the whole."""
        return self._waived or bool(self._plan.whole) or not self._tally.failed()

    def _parse(self, raw: pl.DataFrame, start: int) -> pl.DataFrame | None:
        """The chunk with its declared types; None where a value does not fit, which is then in the tally."""
        frame, failing = raw, []
        if self._typed:
            frame = raw.with_columns(parse_text(name, type_) for name, type_ in self._typed.items())
            for name, type_ in self._typed.items():
                if frame[name].null_count() > raw[name].null_count():
                    rule = BrokenRule(check=f"is written as {type_}", code="value_not_parsed", column=name)
                    failing.append((rule, frame[name].is_null() & raw[name].is_not_null()))
        if failing:
            self._tally.rows_break("types", raw, start, failing)
            return None
        if self._plan.parse is None:
            return frame.select(list(self._plan.columns))
        losing = [rule for rule in map(self._loss, self._plan.casts.items()) if rule is not None]
        if self._ask_rules(losing, frame, start):
            return None
        try:
            return self._plan.parse(frame.lazy()).select(list(self._plan.columns)).collect()
        except pl.exceptions.PolarsError as error:
            self._blame_cast(frame, start, error)
            return None

    def _loss(self, cast: tuple[str, pl.DataType]) -> Rule | None:
        """The rule that a coerced number is still the same number."""
        name, type_ = cast
        before, value = self._chunks.columns[name], pl.col(name)
        if before.is_float() and type_.is_integer():
            same = value.cast(type_, strict=False).cast(before) == value
        elif before.is_integer() and type_.is_float():
            same = value.cast(type_).cast(before, strict=False).eq_missing(value)
        else:
            return None
        return Rule("types", f"is the same as {type_}", "lossy_coercion", name, same.not_().fill_null(False))

    def _blame_cast(self, frame: pl.DataFrame, start: int, error: pl.exceptions.PolarsError) -> None:
        code, found = SchemaErrorReason.DATATYPE_COERCION.value, []
        for name, type_ in self._plan.casts.items():
            try:
                mask = frame[name].cast(type_, strict=False).is_null() & frame[name].is_not_null()
            except pl.exceptions.PolarsError as refused:
                rule = BrokenRule(check=f"fits {type_}", code=code, column=name, message=_last_line(refused))
                self._tally.breaks("types", rule)
                continue
            if mask.any():
                found.append((BrokenRule(check=f"fits {type_}", code=code, column=name), mask))
        if found:
            self._tally.rows_break("types", frame, start, found)
        if not self._tally.failed("types"):
            rule = BrokenRule(check="coerce", code=code, message=_last_line(error))
            self._tally.breaks("types", rule)

    def _ask(self, frame: pl.DataFrame, start: int) -> None:
        self._ask_rules(self._plan.rules, frame, start)

    def _ask_rules(self, rules: Sequence[Rule], frame: pl.DataFrame, start: int) -> bool:
        """Ask the rules of a chunk, all at once; whether any is broken."""
        rules = [rule for rule in rules if id(rule) not in self._crashed]
        if not rules:
            return False
        try:
            counts = frame.select(rule.breaks.sum().alias(str(index)) for index, rule in enumerate(rules)).row(0)
        except _CHECK_CRASHES:
            return self._ask_one_by_one(rules, frame, start)
        failing = [rule for rule, count in zip(rules, counts, strict=True) if count]
        for family in dict.fromkeys(rule.family for rule in failing):
            its = [rule for rule in failing if rule.family == family]
            masks = frame.select(rule.breaks.alias(str(index)) for index, rule in enumerate(its))
            self._tally.rows_break(
                family,
                frame,
                start,
                [
                    (BrokenRule(check=rule.check, code=rule.code, column=rule.column), mask)
                    for rule, mask in zip(its, masks.get_columns(), strict=True)
                ],
            )
        return bool(failing)

    def _ask_one_by_one(self, rules: Sequence[Rule], frame: pl.DataFrame, start: int) -> bool:
        """Find which of the rules crashes, say so, and ask the others."""
        sound = []
        for rule in rules:
            try:
                frame.select(rule.breaks.sum())
                sound.append(rule)
            except _CHECK_CRASHES as error:
                self._crashed.add(id(rule))
                self._crash(rule.family, rule.check, rule.column, error)
        return self._ask_rules(sound, frame, start) or len(sound) < len(rules)

    def _crash(self, family: str, check: str, column: str, error: BaseException) -> None:
        place = f" on {column}" if column else ""
        message = f"the check {check}{place} did not run: {_last_line(error)}"
        code = SchemaErrorReason.CHECK_ERROR.value
        self._tally.breaks(family, BrokenRule(check=check, code=code, column=column, message=message))

    def _judge_key(self, watch: KeyWatch, only: pl.DataFrame | None) -> None:
        suspects, suspicious = watch.suspects()
        if not suspicious:
            return
        chunks = [only] if only is not None else self._frames_again()
        failures, rows = watch.confirm(suspects, suspicious, chunks)
        if failures:
            column = ", ".join(watch.columns)
            code = SchemaErrorReason.DUPLICATES.value
            cases = [show(rows, i, rows.item(i, "row"), column, "unique") for i in range(min(20, rows.height))]
            rule = BrokenRule(check="unique", code=code, column=column, failures=failures)
            self._tally.breaks("unique", rule, cases, failures)

    def _frames_again(self) -> Iterator[pl.DataFrame]:
        start = 0
        for raw in self._chunks:
            frame = self._parse(raw, start)
            assert frame is not None, "the first pass parsed it"
            start += frame.height
            yield frame

    def _judge_whole(self, only: pl.DataFrame | None, writer: CanonicalWriter | None) -> None:
        if not self._plan.whole:
            return
        if only is not None:
            batch = only.lazy()
        else:
            assert writer is not None
            batch = pl.scan_parquet(writer.path, glob=False).cast(dict(self._plan.columns))  # type: ignore[arg-type]
        for whole in self._plan.whole:
            try:
                self._judge_one(whole, batch)
            except _CHECK_CRASHES as error:
                self._crash(whole.family, whole.check, whole.column, error)

    def _judge_one(self, whole: WholeCheck, batch: pl.LazyFrame) -> None:
        code = SchemaErrorReason.DATAFRAME_CHECK.value
        rule = BrokenRule(check=whole.check, code=code, column=whole.column)
        answer = whole.ask(batch)
        if isinstance(answer, bool):
            rows = failures = 0 if answer else 1
        else:
            counted = answer.select(pl.len().alias("rows"), pl.col("breaks").sum().alias("failures"))
            rows, failures = counted.collect(engine="streaming").row(0)
        if not failures:
            return
        if isinstance(answer, bool) or rows != self._tally.rows:
            place = f" on {whole.column}" if whole.column else ""
            message = f"the batch as a whole breaks {whole.check}{place}"
            self._tally.breaks(
                whole.family, BrokenRule(check=rule.check, code=code, column=rule.column, message=message)
            )
            return
        both = pl.concat([batch.with_row_index("row"), answer], how="horizontal").filter("breaks").drop("breaks")
        first = both.head(20).collect(engine="streaming")
        records = first.drop("row")
        cases = [
            show(records, index, row, whole.column, whole.check) for index, row in enumerate(first["row"].to_list())
        ]
        counted_rule = BrokenRule(check=rule.check, code=code, column=rule.column, failures=failures)
        self._tally.breaks(whole.family, counted_rule, cases, failures)

    def _watches(self) -> list[KeyWatch]:
        folder = self._out.parent if self._out is not None else Path(tempfile.gettempdir())
        keys = self._plan.keys
        return [KeyWatch(key, self._memory // 3 // len(keys), folder) for key in keys]

    def _writer(self) -> CanonicalWriter | None:
        out = self._out
        if out is None:
            if not self._plan.whole:
                return None
            out = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="gate-"))) / "batch.parquet"
        return self._cleanup.enter_context(CanonicalWriter(out, self._plan.columns, self._memory // 8))


_CHECK_CRASHES = (Exception, pl.exceptions.PanicException)
"""A team's check function may raise anything, and polars panics derive from BaseException."""


def _last_line(error: BaseException) -> str:
    lines = [line for line in "".join(traceback.format_exception_only(error)).strip().split("\n") if line.strip()]
    return lines[-1][:300] if not isinstance(error, pl.exceptions.PolarsError) else lines[0][:300]

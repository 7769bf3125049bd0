"""The data gate: checks a landed file against the schema its team declares, and writes it in canonical form.

    report = check(path, source, memory_mib=512, out=folder / "flights.parquet")

A bad file never raises, it gives a report that says what is wrong; only a wrong declaration or a full disk raises.

Up to a share of the rows that the source declares (`Source.quarantine`), rows that break a rule are set aside in a
file of their own (`ml_platform.gates.quarantine`), and the others are accepted; the families concerned have then
warned. Valid and set-aside rows together are always the rows that came. What can be set aside is what is known of a
row: a value that is not of its type, a line of CSV with too few fields, a null, a value, a rule across columns, and
every row of a key that occurs again among rows that are good otherwise (which of them is right cannot be known, and the
order of rows should not decide). Checks of the whole batch are judged on the valid rows, which therefore keep the whole
schema; a batch that breaks one of those is rejected, and then nothing is set aside.

Where a person has waived the rules for these very bytes, the canonical file is written all the same, with every row
that came; what cannot be read as the declared columns and types cannot be written, so it cannot be waived either.

Where the gate is stricter than `schema.validate(frame, lazy=True)`, because a gate must not lose anything in silence:
a batch without rows fails; a coercion that changes a number (1.5 to 1) fails; so do times finer than microseconds; a
schema that drops invalid rows is refused. Text from CSV is parsed into the declared types whether or not the schema
coerces, since a CSV file has no types of its own.

Reason codes are pandera's (`pandera.errors.SchemaErrorReason`) and these of the platform: missing_file, empty_file,
not_parquet, unreadable_type, not_csv, not_utf8, unclosed_quote, ragged_rows, damaged, value_not_parsed,
lossy_coercion, finer_than_microseconds, no_rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from pandera.errors import SchemaErrorReason

from ml_platform.behind import Behind
from ml_platform.gates.judging import Judge, Judged, Mask, Rows
from ml_platform.gates.quarantine import QuarantineWriter, quarantine_file, reasons
from ml_platform.gates.reading import ParquetChunks, Ragged, Unreadable, open_chunks
from ml_platform.gates.report import MAX_CASES, BrokenRule, GateReport, json_safe
from ml_platform.gates.rules import load_schema
from ml_platform.gates.tally import Tally, show
from ml_platform.gates.unique import MAX_SUSPECTS, Candidates, Hashes, KeyWatch, candidates, repeated
from ml_platform.gates.whole import ask_whole
from ml_platform.gates.writing import CanonicalWriter
from ml_platform.pipeline import Reference, Source

if TYPE_CHECKING:
    from ml_platform.gates.profile import Profiler

__all__ = ["Gate", "check", "quarantine_file"]

_LIBRARIES = 110 << 20
"""What polars and pyarrow take, whatever they read."""
_PROFILE = 32 << 20
"""What the sample behind a profile takes, of rows that are not very wide."""
_DATA_FAMILIES = ("nulls", "values", "unique", "rules")

NewProfiler = Callable[[Mapping[str, pl.DataType]], "Profiler"]


def check(
    path: Path,
    feed: Source | Reference,
    *,
    memory_mib: int,
    out: Path | None,
    batch: str = "",
    waived: bool = False,
    profiler: NewProfiler | None = None,
) -> GateReport:
    """Check one landed file and, when it is accepted, write its canonical Parquet to `out`. Every family is reported.

    Args:
        path: the landed bytes, in the feed's format.
        feed: whose file it is; names the schema.
        memory_mib: MiB that reading, checking and writing may take beyond what the process had before, and a byte for
            each row where rows may be set aside.
        out: where the canonical file goes; nothing is there when the batch is rejected. Rows that are set aside go
            beside it, to `quarantine_file(out)`. None only checks.
        batch: the batch's name, for the report.
        waived: write the file also where the report is only `waivable`, with every row. The report says the same as
            ever, and what is not rejected comes out the same as ever.
        profiler: makes what profiles the rows, given the canonical columns, unless no row can have the declared types.
            The last one it made saw the rows that are kept or, where none are, all that have them.

    Raises:
        DeclarationError: the schema cannot be used.
        OSError: no space is left to write to.
    """
    return run(Gate, path, feed, memory_mib, out, batch, waived, profiler)


def run(
    kind: Callable[..., Gate],
    path: Path,
    feed: Source | Reference,
    memory_mib: int,
    out: Path | None,
    batch: str,
    waived: bool,
    profiler: NewProfiler | None,
) -> GateReport:
    """Take one file through a gate of this kind, whatever it runs on."""
    tally = Tally(feed.name, batch)
    load_schema(feed.schema)
    with ExitStack() as cleanup:
        gate = None
        try:
            gate = kind(path, feed, memory_mib << 20, out, tally, cleanup, waived, profiler)
            gate.look()
        except Unreadable as error:
            tally.stop(error.family, error.code, error.message, error.cases, error.failures)
        report = tally.report()
        if gate is not None and out is not None:
            gate.commit(report)
    return report


class Gate:
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
        profiler: NewProfiler | None,
    ) -> None:
        # A chunk is held several times over while it is looked at.
        others = _LIBRARIES + (_PROFILE if profiler is not None else 0)
        self._memory = max(memory // 8, memory - others)
        # Whether anybody asks for a profile plays no part in the files.
        self._group_bytes = max(memory // 8, memory - _LIBRARIES) // 8
        self._feed, self._out, self._tally, self._cleanup, self._waived = feed, out, tally, cleanup, waived
        # The decimal number as it is declared: 0.29 in binary is a little less, and 29 of 100 rows were too many.
        self._share = Fraction(str(feed.quarantine)) if isinstance(feed, Source) else Fraction(0)
        self._chunks = open_chunks(path, feed.format, self._memory // 10)
        self._text = not isinstance(self._chunks, ParquetChunks)
        self._judge = Judge(feed.schema, self._chunks.columns, text=self._text)
        self._plan = self._judge.plan
        self._new_profiler = profiler
        self._profiler = profiler(self._plan.columns) if profiler and not self._plan.broken else None
        self._watches: dict[tuple[str, ...], KeyWatch] = {}
        self._only: pl.DataFrame | None = None
        self._all: CanonicalWriter | None = None
        self._valid: CanonicalWriter | None = None
        self._aside: QuarantineWriter | None = None
        # Which rows of the chunks are bad, a byte each, while any may be set aside.
        self._masks: list[Mask] = []
        self._again: dict[str, Rows] = {}
        self._beyond = 0

    def look(self) -> None:
        """Look at the whole file; what is found is in the tally, what is to be kept is written, not committed."""
        tally = self._tally
        tally.columns = self._plan.columns
        tally.reach("columns", "types")
        for family, broken in self._plan.broken.items():
            for rule in broken:
                tally.breaks(family, rule)
        if self._plan.broken:
            tally.reach("readable")
            tally.rows = self._chunks.rows or 0
            return
        self._first_pass()
        self._judge_ragged()
        tally.reach("readable", "rows")
        if not tally.rows:
            tally.breaks("rows", BrokenRule(check="rows", code="no_rows", message="the file has no rows"))
        unjudged = tally.refused("types", "rows") or (not self._share and tally.failed("readable", "types"))
        if unjudged:
            tally.forget(*_DATA_FAMILIES)
            self._all_rows(write=False, profile=True)
            return
        tally.reach(*_DATA_FAMILIES)
        bad = np.concatenate([np.zeros(0, dtype=np.bool_), *self._masks])
        for key in self._plan.keys:
            self._judge_key(key, bad)
        if self._share and tally.failed():
            self._sort_out(bad)
        else:
            self._keep_all()

    def commit(self, report: GateReport) -> None:
        """Make the files appear that the verdict lets through."""
        if report.accepted and self._valid is not None:
            # The rows that were set aside first: where the canonical file is, they are.
            if self._aside is not None:
                self._aside.commit()
            self._valid.commit()
        elif report.kept(waived=self._waived):
            assert self._all is not None
            self._all.commit()

    def _first_pass(self) -> None:
        """Judge every row by itself, remember the keys, profile, and write while it is worth it."""
        tally, start = self._tally, 0
        self._all = self._writer(self._out)
        folder = self._out.parent if self._out is not None else Path(tempfile.gettempdir())
        for key in (keys := self._plan.keys):
            watch = KeyWatch(key, self._memory // 3 // len(keys), folder)
            self._watches[key] = self._cleanup.enter_context(watch)
        # While a chunk is remembered, which uses one core, the next one is read and judged.
        behind = self._cleanup.enter_context(Behind())
        for raw in self._chunks:
            judged = self._judge.judge(raw)
            tally.judged(judged, lambda row, start=start: self._chunks.place(start + row))  # type: ignore[misc]
            behind.do(self._remember, judged)
            if self._share:
                self._masks.append(np.zeros(raw.height, dtype=np.bool_) if judged.bad is None else judged.bad)
            if self._all is not None:
                if self._keeps():
                    self._all.write(judged.frame)
                else:
                    self._all.__exit__(None, None, None)
                    self._all = None
            self._only = judged.frame if start == 0 else None
            start += raw.height
        behind.wait()
        tally.rows = start + self._chunks.ragged

    def _remember(self, judged: Judged) -> None:
        """Put a chunk's rows into the profile, and the keys of the good ones among those that were seen."""
        if self._profiler is not None:
            self._profiler.add(judged.frame)
        good = judged.good()[0] if self._share else judged.frame
        for watch in self._watches.values():
            watch.add(good)

    def _keeps(self) -> bool:
        """Whether all rows are still worth writing: for the canonical file, or for the checks of the whole."""
        if self._tally.failed("types"):
            return False
        return self._waived or not self._tally.failed() or (bool(self._plan.whole) and not self._share)

    def _judge_ragged(self) -> None:
        count = self._chunks.ragged
        if not count:
            return
        lines = self._chunks.take_ragged()[:MAX_CASES]
        cases = [
            {"row": line.row, "column": "", "check": line.fields, "value": json_safe(line.text), "record": {}}
            for line in lines
        ]
        message = f"{count:,} rows have not as many fields as the header ({lines[0].fields}: {cases[0]['value']!r})"
        rule = BrokenRule(check="ragged_rows", code="ragged_rows", failures=count, message=message)
        self._tally.rows_broke("readable", rule, cases)

    def _judge_key(self, key: tuple[str, ...], bad: Mask) -> None:
        """Find rows whose key occurs again; where rows may be set aside, all of them, and mark them in `bad`."""
        limit = int(self._share * self._tally.rows)
        suspects, suspicious = self._suspects(key, max(MAX_SUSPECTS, limit))
        if not suspicious:
            return
        wanted = bool(self._share) and suspicious <= limit
        exact = wanted or len(suspects) < MAX_SUSPECTS
        suspects = suspects if wanted else suspects[:MAX_SUSPECTS]
        failures, heads, found = 0, [], []
        for first in range(0, len(suspects), MAX_SUSPECTS):
            keys, rows = repeated(self._candidates(key, suspects[first : first + MAX_SUSPECTS], bad))
            failures += len(rows)
            heads.append((keys.head(MAX_CASES), rows[:MAX_CASES]))
            found.append(rows)
        if not failures:
            return
        column = ", ".join(key)
        if wanted:
            self._again[column] = np.sort(np.concatenate(found))
        else:
            self._beyond = max(self._beyond, failures if exact else suspicious)
        keys, rows = repeated(heads) if len(heads) > 1 else heads[0]
        cases = [
            show(keys, index, self._chunks.place(row), column, "unique")
            for index, row in enumerate(rows[:MAX_CASES].tolist())
        ]
        code = SchemaErrorReason.DUPLICATES.value
        rule = BrokenRule(check="unique", code=code, column=column, failures=failures if exact else suspicious)
        self._tally.rows_broke("unique", rule, cases)

    def _suspects(self, key: tuple[str, ...], most: int) -> tuple[Hashes, int]:
        """Hashes of the key that occur again, at most so many, and how many rows have one."""
        return self._watches[key].suspects(most)

    def _candidates(self, key: tuple[str, ...], suspects: Hashes, bad: Mask) -> Iterator[Candidates]:
        """The rows that have one of these hashes, in a second pass. Rows that are bad by themselves are left out."""
        if self._only is not None and not self._share:
            yield candidates(self._only, np.arange(self._only.height), key, suspects)
            return
        start = 0
        for raw in self._chunks:
            rows = np.arange(start, start + raw.height)
            start += raw.height
            if self._share:
                good = ~bad[rows]
                raw, rows = raw.filter(pl.Series(good)), rows[good]
            yield candidates(self._judge.parse(raw), rows, key, suspects)

    def _all_rows(self, *, write: bool, profile: bool) -> None:
        """See to it that all rows that have their types are written, and profiled: here, in the first pass already."""

    def _keep_all(self) -> None:
        """All rows are good, or none may be set aside."""
        self._all_rows(write=self._keeps(), profile=True)
        if self._all is not None:
            self._all.finish()
        if self._plan.whole:
            self._judge_whole(self._batch(self._all), lambda row: row)

    def _sort_out(self, bad: Mask) -> None:
        """Set the bad rows aside where they are few enough, and judge the others as a whole."""
        tally = self._tally
        for rows in self._again.values():
            bad[rows] = True
        count, came = int(bad.sum()) + self._chunks.ragged + self._beyond, tally.rows
        few = count <= self._share * came and count < came
        if not few:
            tally.remark = (
                f"{count:,} of {came:,} rows are bad in all, and up to {float(self._share):.2%} may be set aside"
            )
        aside = few and not tally.refused()
        self._all_rows(write=self._keeps(), profile=not aside)
        if self._all is not None:
            self._all.finish()
        if count < came and ((self._plan.whole and not self._beyond) or (aside and (self._out or self._new_profiler))):
            self._second_pass(bad, aside=aside)
            if self._plan.whole:
                places = np.flatnonzero(~bad)
                self._judge_whole(self._batch(self._valid), lambda row: self._chunks.place(int(places[row])))
        if aside and not tally.refused():
            tally.quarantined = count

    def _second_pass(self, bad: Mask, *, aside: bool) -> None:
        """Write the rows that are good and, where they are to be set aside, the others. Profile the good ones."""
        out = self._out
        self._valid = self._writer(out, ".valid.partial")
        if aside and out is not None:
            writer = QuarantineWriter(out, self._chunks.columns, text=self._text, group_bytes=self._group_bytes)
            self._aside, self._chunks.keep_all = self._cleanup.enter_context(writer), True
        if aside and self._new_profiler is not None:
            self._profiler = self._new_profiler(self._plan.columns)
        start, ragged = 0, list[Ragged]()
        for raw in self._chunks:
            its = bad[start : start + raw.height]
            frame = self._judge.parse(raw.filter(pl.Series(~its)) if its.any() else raw)
            if self._valid is not None:
                self._valid.write(frame)
            if aside and self._profiler is not None:
                self._profiler.add(frame)
            if self._aside is not None:
                # The reader is ahead of what it gives.
                ragged += self._chunks.take_ragged()
                last = self._chunks.place(start + raw.height - 1)
                self._write_aside(raw, start, its, [line for line in ragged if line.row < last])
                ragged = [line for line in ragged if line.row > last]
            start += raw.height
        if self._valid is not None:
            self._valid.finish()
        if self._aside is not None:
            self._write_aside(pl.DataFrame(schema=self._chunks.columns), start, bad[:0], ragged)
            self._aside.finish()

    def _write_aside(self, raw: pl.DataFrame, start: int, bad: Mask, ragged: Sequence[Ragged]) -> None:
        assert self._aside is not None
        if not bad.any() and not ragged:
            return
        rows = np.flatnonzero(bad)
        raw = raw.filter(pl.Series(bad))
        broke = reasons(self._judge.judge(raw), rows + start, self._again)
        places = np.array([self._chunks.place(start + row) for row in rows.tolist()], dtype=np.int64)
        self._aside.write(raw, places, broke, ragged)

    def _batch(self, written: CanonicalWriter | None) -> pl.LazyFrame:
        """The rows that are judged as a whole."""
        if self._only is not None and written is self._all:
            return self._only.lazy()
        assert written is not None
        return pl.scan_parquet(written.path, glob=False).cast(dict(self._plan.columns))  # type: ignore[arg-type]

    def _judge_whole(self, batch: pl.LazyFrame, place: Callable[[int], int]) -> None:
        rows = int(batch.select(pl.len()).collect().item())
        for whole in self._plan.whole:
            rule, cases = ask_whole(whole, batch, rows, place)
            if rule is not None:
                self._tally.breaks(whole.family, rule, cases)

    def _writer(self, out: Path | None, partial: str = ".partial") -> CanonicalWriter | None:
        if out is None:
            if not self._plan.whole:
                return None
            out = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="gate-"))) / "batch.parquet"
        writer = CanonicalWriter(out, self._plan.columns, self._group_bytes, partial=partial)
        return self._cleanup.enter_context(writer)

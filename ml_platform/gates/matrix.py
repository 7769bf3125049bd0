"""The gate of a feature matrix: what must hold of all batches' features together before a model learns from them.

    for finding in examine(pipeline, train=files_by_batch, holdout=later_files_by_batch): ...

Every file is read once, a chunk at a time. What would make training fail or teach it nothing rejects: values that are
not finite, columns of other types than declared, columns with one value or none, a label that is no label for the task.
That features are distributed otherwise than before is told: batch by batch on the scale of `ml_platform.gates.robust`,
and the held-out rows against the training rows by the population stability index (Siddiqi, Credit Risk Scorecards,
2006), less what chance alone makes of it. Of leakage see `ml_platform.gates.leakage`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from ml_platform.gates import robust
from ml_platform.gates.columns import runs_on
from ml_platform.gates.declaration import COLUMNS, DRIFT, FEATURE_CHECKS, FINITE, INFORMATIVE, LABEL, RATE, SHIFT
from ml_platform.gates.feature_rows import OTHERS, FeatureRows
from ml_platform.words import counted

if TYPE_CHECKING:
    from ml_platform.gates.declaration import Limits
    from ml_platform.gates.robust import Array
    from ml_platform.pipeline import Pipeline

SHOWN = 10
"""Rows of a check's table, the worst."""

_EFFECT, _SHARE_EFFECT = 0.1, 0.03
"""What changes of a place (in the column's standard deviations, or of a logarithm) and of a share (as an angle) are too
small to matter by themselves."""
_LEAST_SPREAD = 0.05
"""Of the usual spread: a batch in which a column hardly varies is no more unusual for varying still less."""
_BINS = 10
_MOST_CLASSES = 20


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check came to.

    Args:
        name: a key of `FEATURE_CHECKS`.
        passed: whether there is nothing to tell.
        rejects: whether nothing may be learned from these rows.
        message: in a sentence; "" where there is nothing to tell.
        tables: figures by title, the worst first.
    """

    name: str
    passed: bool
    rejects: bool = False
    message: str = ""
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


def examine(
    pipeline: Pipeline, *, train: Mapping[str, Sequence[Path]], holdout: Mapping[str, Sequence[Path]]
) -> list[Finding]:
    """Look at all features and labels once.

    Args:
        pipeline: its features, label, task and gates.
        train: Parquet files to learn from, by batch in name order.
        holdout: likewise, to be held out.

    Returns:
        A finding for each of `FEATURE_CHECKS`, in that order. Where the columns are wrong, the others were not reached.
    """
    files = {**train, **holdout}
    columns = _columns(pipeline, files)
    if columns.rejects:
        rest = [name for name in FEATURE_CHECKS if name != COLUMNS]
        return [columns, *(Finding(name=name, passed=False, message="Not reached.") for name in rest)]
    batches = {batch: FeatureRows.read(pipeline, paths) for batch, paths in files.items()}
    learned = FeatureRows.together(batches[batch] for batch in train)
    held = FeatureRows.together(batches[batch] for batch in holdout)
    return [
        columns,
        _finite(batches),
        _informative(pipeline, learned),
        _label(pipeline, learned, held),
        *_drift(pipeline, batches),
        _shift(pipeline, learned, held),
    ]


def _columns(pipeline: Pipeline, files: Mapping[str, Sequence[Path]]) -> Finding:
    wanted = dict.fromkeys(pipeline.features.numeric, "double") | dict.fromkeys(pipeline.features.categorical, "string")
    wanted[pipeline.label] = "string" if pipeline.task == "multiclass" else "double"
    wrong: dict[tuple[str, str], list[str]] = {}
    for batch, paths in files.items():
        for path in paths:
            schema = pq.read_schema(path)
            for name, type_ in wanted.items():
                got = str(schema.field(name).type).removeprefix("large_") if name in schema.names else "missing"
                if got != type_:
                    wrong.setdefault((name, got), []).append(batch)
    table = [
        {"column": name, "declared": wanted[name], "found": got, "batches": len(batches), "first": batches[0]}
        for (name, got), batches in wrong.items()
    ]
    said = "; ".join(f"{row['column']} is {row['found']} and not {row['declared']} in {row['first']}" for row in table)
    tables = {"wrong columns": table[:SHOWN]} if table else {}
    return Finding(name=COLUMNS, passed=not table, rejects=bool(table), message=said, tables=tables)


def _finite(batches: Mapping[str, FeatureRows]) -> Finding:
    found: list[dict[str, Any]] = [
        {"column": name, "batch": batch, "infinite": count, "rows": part.rows}
        for batch, part in batches.items()
        for name, count in part.infinite.items()
        if count
    ]
    totals: Counter[str] = Counter()
    for row in found:
        totals[row["column"]] += row["infinite"]
    said = ", ".join(f"{name} ({counted(count, 'row')})" for name, count in totals.most_common(SHOWN))
    return Finding(
        name=FINITE,
        passed=not found,
        rejects=bool(found),
        message=f"Infinite values: {said}. Divide by nothing that may be 0, or return null there." if found else "",
        tables={"infinite": sorted(found, key=lambda row: -row["infinite"])[:SHOWN]} if found else {},
    )


def _informative(pipeline: Pipeline, learned: FeatureRows) -> Finding:
    found = []
    for name in pipeline.features.columns:
        if name in pipeline.feature_gate.may_be_constant:
            continue
        if learned.nulls[name] == learned.rows:
            found.append({"column": name, "values": 0, "the value": None, "rows": learned.rows})
        elif not learned.nulls[name] and (only := _only(learned, name)) is not None:
            found.append({"column": name, "values": 1, "the value": only, "rows": learned.rows})
    said = ", ".join(
        f"{row['column']} ({'no value' if not row['values'] else 'always ' + repr(row['the value'])})" for row in found
    )
    return Finding(
        name=INFORMATIVE,
        passed=not found,
        rejects=bool(found),
        message=f"Features that tell nothing over the training rows: {said}. Remove them, mend what makes them so (a "
        "join without a match?), or name them in FeatureGate.may_be_constant."
        if found
        else "",
        tables={"constant": found[:SHOWN]} if found else {},
    )


def _only(rows: FeatureRows, name: str) -> float | str | None:
    """The value that all rows have that have one; None where they differ, or one is infinite."""
    if name in rows.numbers:
        numbers = rows.numbers[name]
        return numbers.least if numbers.count and numbers.least == numbers.most and not rows.infinite[name] else None
    values = list(rows.counts[name])
    return values[0] if len(values) == 1 else None


def _label(pipeline: Pipeline, learned: FeatureRows, held: FeatureRows) -> Finding:
    name, task = pipeline.label, pipeline.task
    known = learned.rows - learned.nulls[name]
    if task == "regression":
        numbers = learned.numbers[name]
        wrong = "" if known and numbers.least < numbers.most else f"{name} never differs: {numbers.least:g}"
        table = [
            {"part": p, "rows": b.rows, "missing": b.nulls[name]} for p, b in (("train", learned), ("holdout", held))
        ]
    else:
        classes = set(learned.counts[name])
        new = sorted(set(held.counts[name]) - classes)
        wrong = ""
        if len(classes) < 2 or (task == "binary" and len(classes) > 2):
            wrong = f"a {task} task needs {'two' if task == 'binary' else 'several'} classes, {name} has "
            wrong += f"{len(classes)} in the training rows: {', '.join(map(repr, sorted(classes)[:5]))}"
        elif new and task == "binary":
            wrong = f"{name} has a third value among the held-out rows: {new[0]!r}"
        table = [
            {"class": value, "train": learned.counts[name][value], "holdout": held.counts[name][value]}
            for value, _ in (learned.counts[name] + held.counts[name]).most_common(SHOWN)
        ]
    if not known:
        wrong = f"no training row has a label {name}"
    tables = {"label": table}
    return Finding(name=LABEL, passed=not wrong, rejects=bool(wrong), message=wrong, tables=tables)


def _drift(pipeline: Pipeline, batches: Mapping[str, FeatureRows]) -> Iterator[Finding]:
    """Each batch against those before it: the label's figures, then the features'."""
    gate = pipeline.batch_gate
    series = list(_series(pipeline, list(batches.values())))
    scaled, noise, means = (
        np.column_stack(part) for part in zip(*((one.scaled, one.noise, one.means) for one in series), strict=True)
    )
    found: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    order = list(batches)
    for place in range(gate.least, len(order)):
        window = slice(max(0, place - gate.history), place)
        # By the batches before it alone: one in another unit would look like a calendar's next step.
        runs = runs_on(means[window], np.ones(len(series)))
        far = np.where(runs, 0, robust.distance(scaled[place], scaled[window], noise[place]))
        for number in np.flatnonzero(np.abs(far) > 1).tolist():
            one = series[number]
            row: dict[str, Any] = {"batch": order[place], "column": one.column, "figure": one.figure}
            row |= {"distance": abs(float(far[number])), "value": float(one.values[place])}
            row |= {"usual": float(robust.middle(one.values[window, None])[0])}
            found[one.column == pipeline.label].append(row)
    for name, is_label in ((RATE, True), (DRIFT, False)):
        if len(order) <= gate.least:
            yield Finding(name=name, passed=True, message=f"Nothing is compared with fewer than {gate.least} batches.")
        else:
            yield _judged(name, found[is_label], "distance", pipeline.feature_gate.drift, "robust standard deviations")


def _judged(name: str, rows: list[dict[str, Any]], figure: str, limits: Limits, unit: str) -> Finding:
    """A finding of figures that have two limits, the worst first."""
    rows = sorted(rows, key=lambda row: -row[figure])
    over = [row for row in rows if limits.warn is not None and row[figure] >= limits.warn]
    rejects = bool(rows) and limits.reject is not None and rows[0][figure] >= limits.reject
    over = over or ([rows[0]] if rejects else [])
    said = "; ".join(" ".join(str(row[k]) for k in ("batch", "column", "figure") if k in row) for row in over[:3])
    more = f" and {len(over) - 3} more" if len(over) > 3 else ""
    return Finding(
        name=name,
        passed=not over,
        rejects=rejects,
        message=f"{said}{more}: {unit} up to {robust.told(over[0][figure], limits.warn, limits.reject)}."
        if over
        else "",
        tables={"farthest": [{k: _rounded(v) for k, v in row.items()} for row in rows[:SHOWN]]} if rows else {},
    )


@dataclass(frozen=True)
class _Series:
    """One figure of one column over all batches.

    Args:
        column, figure: what it is, in words.
        values: (batches,) the figure.
        scaled: on the scale on which it is compared.
        noise: the spread that it has there at least: by chance, and what is too small to matter.
        means: of a column of numbers its means, in usual standard deviations; 0 of what has no place.
    """

    column: str
    figure: str
    values: Array
    scaled: Array
    noise: Array
    means: Array


def _series(pipeline: Pipeline, parts: Sequence[FeatureRows]) -> Iterator[_Series]:
    """Every figure that is compared, unless its column runs on from batch to batch (a calendar, a counter)."""
    few = np.array([1 / math.sqrt(max(1, part.rows)) for part in parts])

    def share(column: str, figure: str, values: Sequence[float]) -> _Series:
        array = np.array(values)
        return _Series(
            column, figure, array, robust.angle(array), np.hypot(few / 2, _SHARE_EFFECT), np.zeros(len(array))
        )

    for name in (*pipeline.features.columns, pipeline.label):
        yield share(name, "missing values", [part.nulls[name] / max(1, part.rows) for part in parts])
        if name in parts[0].counts:
            together = Counter[str]()
            for part in parts:
                together.update(part.counts[name])
            shares = [part.shares(name) for part in parts]
            for value, _ in together.most_common(_MOST_CLASSES):
                yield share(name, f"share of {value!r}", [each.get(value, 0.0) for each in shares])
            continue
        numbers = [part.numbers[name] for part in parts]
        means, spreads = (
            np.array([value if one.count else np.nan for one, value in zip(numbers, values, strict=True)])
            for values in ([one.mean for one in numbers], [one.std for one in numbers])
        )
        unit = float(robust.middle(spreads[:, None])[0])
        if unit > 0:
            noise, scaled = np.hypot(few, _EFFECT), means / unit
            yield _Series(name, "mean", means, scaled, noise, scaled)
            yield _Series(name, "spread", spreads, np.log(np.maximum(spreads / unit, _LEAST_SPREAD)), noise, scaled)


def _shift(pipeline: Pipeline, learned: FeatureRows, held: FeatureRows) -> Finding:
    rows = []
    for name in pipeline.features.columns:
        one, other = (_binned(name, learned, part) for part in (learned, held))
        keys = sorted({*one, *other})
        counts = np.array([[float(part.get(key, 0)) for key in keys] for part in (one, other)]) + 0.5
        share = counts / counts.sum(axis=1, keepdims=True)
        index = float(((share[0] - share[1]) * np.log(share[0] / share[1])).sum())
        # What the index comes to on average where both are drawn from one distribution.
        chance = (len(keys) - 1) * (1 / max(1, learned.rows) + 1 / max(1, held.rows))
        rows.append({"column": name, "stability": max(0.0, index - 2 * chance)})
    limits = pipeline.feature_gate.shift
    return _judged(SHIFT, rows, "stability", limits, "population stability index")


def _binned(name: str, learned: FeatureRows, part: FeatureRows) -> dict[str, float]:
    """Rows by bin: tenths of the training rows' values or the values themselves, and those without a value."""
    found: dict[str, float] = {"(missing)": part.nulls[name]}
    if name in part.counts:
        common = {value for value, _ in learned.counts[name].most_common(_MOST_CLASSES)}
        for value, count in part.counts[name].items():
            key = f"= {value}" if value in common else OTHERS
            found[key] = found.get(key, 0) + count
        return found
    edges = sorted({*learned.numbers[name].quantiles([tenth / _BINS for tenth in range(1, _BINS)])})
    upto = [0.0, *part.numbers[name].shares(edges), 1.0]
    for number, share in enumerate(np.diff(upto)):
        found[f"bin {number:02d}"] = float(share) * part.numbers[name].count
    return found


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value

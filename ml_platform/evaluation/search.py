"""The worst parts of the held-out rows, found rather than declared: values, ranges of numbers, and pairs of these.

Every category, every fifth of a number and every pair of two columns is a slice, compared with the rows outside of it
by the mean loss of a row, and ranked by how much worse it is at least (after Chung et al., Automated Data Slicing for
Model Validation, IEEE TKDE 32, 2019, who find slices by Welch's test of the loss; SliceLine, Sagadeeva and Boehm,
SIGMOD 2021, counts all of them as we do, and knows no noise).

Who looks a thousand times finds something. So the bound is one that holds for all slices together: the difference less
so many standard errors as a normal quantile has at (1 - confidence) / looks (Bonferroni). Where the loss has nothing to
do with any column, at most 1 - confidence of all searches find anything.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from ml_platform.evaluation.declaration import ModelGate
from ml_platform.evaluation.intervals import Answers, figure, intervals, loss_of_rows
from ml_platform.evaluation.slices import DRAWS, MISSING, MOST, codes_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Floats = npt.NDArray[np.float64]
    Codes = npt.NDArray[np.int64]

BINS = 5
"""Ranges of a number, of about equally many rows."""
SHOWN = 10
"""Slices that are told at most."""
_PAIRED = 40
"""Columns of which pairs are looked at, the first."""
_ALIKE = 0.5
"""Of two slices that share more than this part of their rows (of either), the worse is told."""
_RANKED = 300


@dataclass(frozen=True, kw_only=True)
class FoundSlice:
    """A part of the held-out rows on which the model is worse than on the others, beyond noise.

    Args:
        where: its columns' values, by column: one or two.
        rows: how many.
        loss, others: mean loss of its rows, and of the rows outside of it.
        worse_by: how much worse it is at least, with all looks considered.
        figure, low, high: the main metric there, and its interval; None where it is not known.
        baseline: the baseline's figure there: a part may be hard for everybody.
    """

    where: Mapping[str, str]
    rows: int
    loss: float
    others: float
    worse_by: float
    figure: float | None
    low: float | None
    high: float | None
    baseline: float | None

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Search:
    """What was found: the loss that was looked at, how many slices were, and the worst, which are few or none."""

    loss: str
    looks: int
    slices: tuple[FoundSlice, ...]


@dataclass(frozen=True, eq=False)
class _Column:
    """A column as codes, (rows,): the place of each row's value in `values`; past them what is not looked at."""

    name: str
    values: Sequence[str]
    codes: Codes


def search(
    answers: Answers,
    *,
    categorical: Mapping[str, pa.ChunkedArray],
    numeric: Mapping[str, pa.ChunkedArray],
    metric: str,
    gate: ModelGate,
    baseline: Answers | None = None,
) -> Search:
    """Look for the worst slices.

    Args:
        answers: of the model.
        categorical, numeric: columns by name, values in the order of the rows.
        metric: of the task, told of what is found.
        gate: how small a slice may be, and how sure it must be.
        baseline: another model's answers for the same rows.
    """
    import numpy as np

    what = "absolute error" if answers.task == "regression" else "log loss"
    if not len(answers.target) or not np.isfinite(answers.scores).all():
        return Search(loss=what, looks=0, slices=())
    loss = loss_of_rows(answers)
    columns = [_categories(name, column, gate) for name, column in categorical.items()]
    columns += [_ranges(name, column) for name, column in numeric.items()]
    ranked, looks = _ranked(columns, loss, gate)
    taken: list[Codes] = []
    found: list[FoundSlice] = []
    for bound, slice_ in ranked[:_RANKED]:
        rows = np.flatnonzero(np.logical_and.reduce([column.codes == code for column, code in slice_]))
        if len(found) == SHOWN or any(_alike(rows, other) for other in taken):
            continue
        taken.append(rows)
        where = {column.name: column.values[code] for column, code in slice_}
        found.append(_told(answers, rows, where, bound, loss, metric, gate, baseline))
    return Search(loss=what, looks=looks, slices=tuple(found))


def _told(
    answers: Answers,
    rows: Codes,
    where: Mapping[str, str],
    bound: float,
    loss: Floats,
    metric: str,
    gate: ModelGate,
    baseline: Answers | None,
) -> FoundSlice:
    part, draws = answers.of(rows), min(DRAWS, gate.draws)
    around = intervals(part, draws=draws, confidence=gate.confidence, metrics=[metric]).get(metric)
    own, beside = figure(part, metric), figure(baseline.of(rows), metric) if baseline is not None else math.nan
    inside = float(loss[rows].sum())
    return FoundSlice(
        where=where,
        rows=len(rows),
        loss=inside / len(rows),
        others=(float(loss.sum()) - inside) / (len(loss) - len(rows)),
        worse_by=bound,
        figure=None if math.isnan(own) else own,
        low=around.low if around else None,
        high=around.high if around else None,
        baseline=None if math.isnan(beside) else beside,
    )


_Slice = tuple[tuple[_Column, int], ...]


def _ranked(columns: Sequence[_Column], loss: Floats, gate: ModelGate) -> tuple[list[tuple[float, _Slice]], int]:
    """Slices with how much worse they are at least, the worst first, and how many were looked at.

    A pair stays only where its bound is above those of both its parts: otherwise the part says it all.
    """
    import numpy as np

    wrong = loss - loss.mean()
    single = {column.name: _compared([column], wrong, gate) for column in columns}
    pairs = {pair: _compared(pair, wrong, gate) for pair in itertools.combinations(columns[:_PAIRED], 2)}
    looks = sum(int(np.isfinite(each[0]).sum()) for each in (*single.values(), *pairs.values()))
    if not looks:
        return [], 0
    far = NormalDist().inv_cdf(1 - (1 - gate.confidence) / looks)
    bounds = {name: difference - far * error for name, (difference, error) in single.items()}
    found: list[tuple[float, _Slice]] = []
    for column in columns:
        of_column = bounds[column.name]
        found += [(float(of_column[code]), ((column, code),)) for code in np.flatnonzero(of_column > 0).tolist()]
    for (one, other), (difference, error) in pairs.items():
        bound = difference - far * error
        parts = np.fmax(bounds[one.name][:, None], bounds[other.name][None, :])
        for first, second in np.argwhere((bound > 0) & ~(parts >= bound)).tolist():
            found.append((float(bound[first, second]), ((one, first), (other, second))))
    return sorted(found, key=lambda each: (-each[0], [(c.name, code) for c, code in each[1]])), looks


def _compared(columns: Sequence[_Column], wrong: Floats, gate: ModelGate) -> tuple[Floats, Floats]:
    """By how much the mean loss inside of each slice is above that outside, and the standard error of that (Welch).

    One axis for each column; NaN where either side has too few rows.
    """
    import numpy as np

    shape = tuple(len(column.values) + 1 for column in columns)
    cell = np.ravel_multi_index([column.codes for column in columns], shape)
    size = math.prod(shape)
    rows, first, second = (
        np.bincount(cell, weights=part, minlength=size) for part in (np.ones_like(wrong), wrong, wrong**2)
    )
    outside = (len(wrong) - rows, wrong.sum() - first, (wrong**2).sum() - second)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside_mean, outside_mean = first / rows, outside[1] / outside[0]
        variances = (
            (second / rows - inside_mean**2) / (rows - 1),
            (outside[2] / outside[0] - outside_mean**2) / (outside[0] - 1),
        )
        error = np.sqrt(np.maximum(variances[0], 0) + np.maximum(variances[1], 0))
    few = np.minimum(rows, outside[0]) < gate.slice_rows
    kept = tuple(slice(0, -1) for _ in shape)  # not the last of each: the values that are not looked at
    return tuple(np.where(few, np.nan, part).reshape(shape)[kept] for part in (inside_mean - outside_mean, error))  # type: ignore[return-value]


def _alike(one: Codes, other: Codes) -> bool:
    """Whether two slices have more rows in common than not."""
    import numpy as np

    common = len(np.intersect1d(one, other, assume_unique=True))
    return common > _ALIKE * min(len(one), len(other))


def _categories(name: str, column: pa.ChunkedArray, gate: ModelGate) -> _Column:
    import numpy as np

    values, codes = codes_of(column)
    counts = np.bincount(codes, minlength=len(values))
    largest = np.argsort(-counts, kind="stable")[:MOST]
    kept = largest[counts[largest] >= gate.slice_rows]
    place = np.full(len(values) + 1, len(kept))
    place[kept] = np.arange(len(kept))
    return _Column(name, [values[code] for code in kept.tolist()], place[codes])


def _ranges(name: str, column: pa.ChunkedArray) -> _Column:
    """A number cut at its quantiles; equal values are never torn apart, and what is missing is a range of its own."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = pc.fill_null(pc.cast(column, pa.float64()), math.nan).to_numpy()
    known = np.isfinite(numbers)
    cuts: Floats = np.empty(0)
    if known.any():
        cuts = np.unique(np.quantile(numbers[known], np.arange(1, BINS) / BINS, method="inverted_cdf"))
    codes = np.where(known, np.searchsorted(cuts, numbers, side="right"), len(cuts) + 1)
    return _Column(name, [*_between(cuts.tolist()), MISSING], codes)


def _between(cuts: Sequence[float]) -> Iterator[str]:
    """Names of the ranges that cuts make; a cut belongs to the range above it."""
    told = [f"{cut:.5g}" for cut in cuts]
    if not told:
        yield "any"
        return
    yield f"< {told[0]}"
    yield from (f"{low} to < {high}" for low, high in itertools.pairwise(told))
    yield f">= {told[-1]}"

"""What is compared of each column by itself: where values are, how wide they spread, how many differ or are missing.

A column that runs on from batch to batch (a calendar, a counter, a key that rises) is not compared by where its values
are: the history itself shows that they never come again. What is left of it, such as missing values, is. Nor is a
number that is the same in all rows of a batch: it says something of the batch, such as its month. But one that was the
same in all batches, and is another one now that no calendar would have next, is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ml_platform.gates import categories, robust
from ml_platform.gates.figures import ENDS, NAMES, PLACES, SHARES, SIZES, TIMES, Distance
from ml_platform.gates.profile import Profile
from ml_platform.gates.robust import Array, Mask

_PLACE_EFFECT = 0.05
"""A change of place by so many of the column's standard deviations does not matter by itself."""
_WITH_THE_MEAN = 0.75
"""A quantile may move by so much of what the mean does, though it has not yet: the whole day may be late, not only some
flights as on other bad days."""
_QUIET_EFFECT = 0.7
"""The same for a column of which most rows have one value: rain, and a view that is clear on most days. It stays as it
is for weeks, and then it does not."""
_QUIET = 0.5
_FEWEST, _RARE = 20, 0.02
"""Rows, and share of the rows, that the rarer of two values has at least."""
_NULLS_EFFECT = 0.02
"""On the scale of arcsin(sqrt(share)): from 0 to 0.04 %, from 20 to 21.6 %."""
_SHARE_EFFECT = 0.1
"""The same of zeros, negative numbers, fractions and the most frequent value: from 0 to 1 %, from 20 to 28.7 %."""
_SPREAD_EFFECT = 0.05
"""On the scale of logarithms: five percent."""
_NO_SPREAD = 0.01
"""Of the usual standard deviation: less is taken for so much, as there is no logarithm of none."""
_DISTINCT_EFFECT = 0.25
"""On the scale of logarithms: 28 percent."""
_INWARD = (1, -1)
"""Signs of a least and of a most that are closer to the middle."""
_END_EFFECT = 0.2
"""On the scale of asinh(standard deviations from the middle)."""
_A_DAY = 86_400.0
_TEXT_UNIT = 0.5
"""Characters: lengths that hardly differ are not told apart more finely."""

_MEAN, _MEDIAN, _SPREAD, _COMMON, _NULLS = (
    NAMES.index(name) for name in ("mean", "quantile 0.5", "spread", "most frequent", "nulls")
)
_PLACES, _SHARES, _SIZES, _ENDS = (
    np.array([NAMES.index(name) for name in names]) for names in (PLACES, SHARES, SIZES, ENDS)
)


@dataclass(frozen=True)
class _Compared:
    """Figures of c columns in a batch and in K accepted ones, and what kind of columns they are.

    Args:
        names: of the columns.
        table, history: (c, figures) and (K, c, figures) raw figures.
        rows, its_rows: (c,) and (K, c) rows with a value.
        noise: (c, places) of `Figures`, the most of any accepted batch.
        unit: (c,) usual standard deviation.
        text, quiet, runs: (c,) which columns are texts, have one value in most rows, and run on from batch to batch.
    """

    names: tuple[str, ...]
    table: Array
    history: Array
    rows: Array
    its_rows: Array
    noise: Array
    unit: Array
    text: Mask
    quiet: Mask
    runs: Mask

    @classmethod
    def of(cls, now: Profile, history: Sequence[Profile]) -> _Compared:
        """Of all columns of the batch."""
        names, table = now.figures.columns, now.figures.table
        before = [one.figures.of_columns(names) for one in history]
        raw = np.stack([one.table for one in before])
        text = np.array([now.columns[name].kind == "text" for name in names], dtype=np.bool_)
        quiet = robust.middle(raw[:, :, _COMMON]) >= _QUIET
        unit = _unit(raw[:, :, _SPREAD], raw[:, :, _MEAN], quiet)
        unit = np.where(text, np.maximum(unit, _TEXT_UNIT), unit)
        one_value = ~text & (raw[:, :, _COMMON] == 1).all(axis=0) & (table[:, _COMMON] == 1)
        one_value &= ~another_constant(table[:, _MEAN], raw[:, :, _MEAN])
        return cls(
            names,
            table,
            raw,
            np.maximum(now.figures.rows, 1),
            np.stack([one.rows for one in before]),
            robust.highest(np.stack([one.noise for one in before])),
            unit,
            text,
            quiet,
            runs_on(raw[:, :, _MEAN], unit) | one_value,
        )

    def figures(self, all_rows: int, its_all_rows: Array) -> Array:
        """Robust standard deviations of every figure, (c, figures); of so many rows, with and without a value."""
        found = np.zeros(self.table.shape)
        with np.errstate(invalid="ignore", divide="ignore"):
            found[:, _PLACES] = self._places()
            found[:, _SIZES] = self._sizes()
            found[:, _ENDS] = self._ends()
        rows = np.where(_SHARES == _NULLS, all_rows, self.rows[:, None])
        its_rows = np.where(_SHARES == _NULLS, its_all_rows[:, None, None], self.its_rows[:, :, None])
        effect = np.where(_SHARES == _NULLS, _NULLS_EFFECT, _SHARE_EFFECT)
        found[:, _SHARES] = robust.share_distance(
            self.table[:, _SHARES], rows, self.history[:, :, _SHARES], its_rows, effect
        )
        found[np.ix_(self.runs, [*_PLACES, *_ENDS])] = 0
        found[self.text, _SPREAD] = 0
        # Of a quiet column a batch may well have nothing but its usual value: none of the others far out.
        usual = robust.middle(self.history[:, :, _MEDIAN])[:, None]
        others = np.hstack([self.quiet[:, None], robust.middle(self.history[:, :, _ENDS]) != usual])
        quieter = found[:, [_SPREAD, *_ENDS]] * [-1, *_INWARD] > 0
        found[:, [_SPREAD, *_ENDS]] *= ~(quieter & others & self.quiet[:, None])
        return found

    @property
    def _scale(self) -> Array:
        return np.where(self.unit > 0, self.unit, np.nan)[:, None]

    @property
    def _longer(self) -> Array:
        """By how much more or fewer rows with a value there are than usual, on the scale of logarithms."""
        found: Array = np.abs(np.log(self.rows / np.maximum(robust.middle(self.its_rows), 1)))
        return found

    def _places(self) -> Array:
        scale, effect = self._scale, np.where(self.quiet, _QUIET_EFFECT, _PLACE_EFFECT)[:, None]
        floor = np.hypot(self.noise / np.sqrt(self.rows)[:, None] / scale, effect)
        _, below, above = robust.spread(self.history[:, :, _MEAN] / scale[:, 0], floor[:, 0])
        floor = np.hypot(floor, _WITH_THE_MEAN * np.maximum(below, above)[:, None])
        return robust.distance(self.table[:, _PLACES] / scale, self.history[:, :, _PLACES] / scale, floor)

    def _sizes(self) -> Array:
        # Of twice as many rows up to twice as many values differ, and a counter goes twice as far.
        longer = self._longer
        least = np.stack([_NO_SPREAD * self._scale[:, 0], np.ones(len(self.names))], axis=1)
        effect = np.stack(
            [np.hypot(_SPREAD_EFFECT, np.where(self.runs, longer, 0)), np.hypot(_DISTINCT_EFFECT, longer)], axis=1
        )
        return robust.distance(
            np.log(np.maximum(self.table[:, _SIZES], least)),
            np.log(np.maximum(self.history[:, :, _SIZES], least)),
            np.hypot(1 / np.sqrt(self.rows)[:, None], effect),
            outlying=self.quiet[:, None],
        )

    def _ends(self) -> Array:
        middle = robust.middle(self.history[:, :, _MEAN])[:, None]
        return robust.distance(
            np.arcsinh((self.table[:, _ENDS] - middle) / self._scale),
            np.arcsinh((self.history[:, :, _ENDS] - middle) / self._scale),
            np.hypot(_END_EFFECT, self._longer)[:, None],
            outlying=True,  # on this scale they hardly widen it
        )


def distances(now: Profile, history: Sequence[Profile]) -> tuple[list[Distance], list[str], list[str]]:
    """Every figure of every column against its history, oldest first.

    Returns:
        (distances of 1 and more, names of the columns of numbers that neither run on nor are quiet, names of those
        that have two values).
    """
    compared = _Compared.of(now, history)
    far = compared.figures(now.rows, np.array([one.rows for one in history], dtype=np.float64))
    found = [*_copies(now, history), *_times(now, history)]
    for c, f in zip(*np.nonzero(np.abs(far) > 1), strict=True):
        values = np.array([compared.table[c, f], *compared.history[:, c, f]])
        found.append(Distance.of(compared.names[c], NAMES[f].split(" ")[0], NAMES[f], far[c, f], values))
    columns = np.array(compared.names, dtype=object)
    counted = [_counted(name, now, history) for name in columns[~compared.runs]]
    found += categories.distances([one for one in counted if one is not None])
    steady = ~compared.runs & ~compared.text & ~compared.quiet & (compared.unit > 0)
    flags = [name for name in columns[~compared.runs & ~compared.text] if _has_two_values(name, history)]
    return found, [name for name in columns[steady] if name not in flags], flags


def _has_two_values(name: str, history: Sequence[Profile]) -> bool:
    """Whether a column of numbers has, as labels do, two values, and neither so rarely that chance relates it."""
    its = [one.columns[name].items for one in history if name in one.columns and one.columns[name].kind == "number"]
    if len({value for one in its for value, _ in one.counts}) != 2 or not all(one.exact for one in its):
        return False
    rarer = [one.rows - one.counts[0][1] if one.counts else 0 for one in its]
    return bool(np.median(rarer) >= max(_FEWEST, _RARE * np.median([one.rows for one in its])))


def _counted(name: str, now: Profile, history: Sequence[Profile]) -> categories.Counted | None:
    """The values of a column; None where an accepted batch does not have it."""
    known = [one.columns[name] for one in history if name in one.columns]
    if len(known) < len(history):
        return None
    column = now.columns[name]
    within = _range([(one.least, one.most) for one in known]) if column.kind == "number" else None
    return categories.Counted.of(name, column.items, [one.items for one in known], within)


def _copies(now: Profile, history: Sequence[Profile]) -> list[Distance]:
    """Rows that are copies of others, where all rows were looked at."""
    known = [one for one in history if one.copies is not None]
    if now.copies is None or not now.rows or not known:
        return []
    share = np.array([(one.copies or 0) / max(1, one.rows) for one in (now, *known)])
    rows = np.array([one.rows for one in known], dtype=np.float64)
    far = float(robust.share_distance(share[0], now.rows, share[1:], rows, _NULLS_EFFECT))
    return [Distance.of("", "copies", "share of rows that are copies", far, share)] if far > 1 else []


def _times(now: Profile, history: Sequence[Profile]) -> list[Distance]:
    """Of every column of times the middle of its least and most, which may run on as it does.

    Against what four fifths of the batches lie apart, the days that a batch has, and a day; from all of them and from
    the last three, as a feed may come again after a year.
    """
    found = []
    for name, column in now.columns.items():
        ends = [(one.columns[name].least, one.columns[name].most) for one in history if name in one.columns]
        known = np.array([(low, high) for low, high in ends if low is not None and high is not None])
        if column.kind != "time" or column.least is None or column.most is None or len(known) < len(history) / 2:
            continue
        middle, value = known.mean(axis=1), (column.least + column.most) / 2
        far = np.sort(np.abs(middle - np.median(middle)))
        scale = max(2 * far[len(far) - 1 - len(far) // 5], float(np.median(known[:, 1] - known[:, 0])), _A_DAY)
        distance = min(abs(value - np.median(middle)), abs(value - np.median(middle[-3:]))) / scale
        if distance > 1:
            found.append(Distance.of(name, TIMES, "middle of its times", distance, np.array([value, *middle])))
    return found


def runs_on(means: Array, unit: Array) -> Mask:
    """Which columns are not the same from batch to batch by nature: calendars, counters, rising keys.

    Either most batches lie much farther apart than a batch is wide; or they rise, or fall, nearly always (Spearman's
    rank correlation with their order). A few that are far from all others do not make them so.

    Args:
        means: (K, c) of each batch, oldest first.
        unit: (c,) usual standard deviation within a batch.
    """
    far = np.abs(means - robust.middle(means))
    # A batch in another unit is far from all others, and makes no calendar.
    kept = np.isfinite(means) & ~robust.outliers(far, _PLACE_EFFECT * unit)
    count = np.maximum(kept.sum(axis=0), 1)

    def centred(values: Array) -> Array:
        found: Array = np.where(kept, values - np.where(kept, values, 0).sum(axis=0) / count, 0)
        return found

    place = centred(np.broadcast_to(np.arange(len(means), dtype=np.float64)[:, None], means.shape))
    order = centred(np.argsort(np.argsort(np.where(kept, means, np.nan), axis=0), axis=0).astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        rank = (order * place).sum(axis=0) / np.sqrt(np.square(place).sum(axis=0) * np.square(order).sum(axis=0))
    between = np.sqrt(np.square(centred(means)).sum(axis=0) / count)
    step = np.nan_to_num(robust.middle(np.abs(np.diff(means, axis=0)))) if len(means) > 1 else np.zeros(len(unit))
    # A single step up, for good or once a week, is none of a calendar.
    apart = (between > 3 * unit) & ((step > 0.5 * unit) | (unit == 0))
    found: Mask = apart | ((np.abs(rank) > 0.9) & (between > 0.5 * unit))
    return found


def another_constant(now: Array, history: Array) -> Mask:
    """Whether a number that is the same in all rows of a batch is another one than it always was, (c,) and (K, c).

    It may be one that two accepted batches have, and what comes next in a calendar: one more; a month or a quarter that
    begins anew, also behind its year (202312 and 202401, 20234 and 20241).
    """
    usual = robust.middle(history)
    always = (history == usual).sum(axis=0) >= len(history) - len(history) // 5
    step, whole = now - usual, (now == np.round(now)) & (usual == np.round(usual))
    anew = np.zeros(now.shape, dtype=np.bool_)
    for length, place in ((12, 100), (4, 10)):
        first = np.isin(usual, (length - 1, length)) & (step == 1 - length)
        anew |= first | ((usual % place == length) & (step == place + 1 - length) & (usual > place))
    known = (history == now).sum(axis=0) > 1
    found: Mask = always & (now != usual) & ~known & ~(whole & ((step == 1) | anew))
    return found


def _range(ends: Sequence[tuple[float | None, float | None]]) -> tuple[float, float]:
    """The least and the most there ever was; nothing between them where there never was any."""
    known = [(low, high) for low, high in ends if low is not None and high is not None]
    return min((low for low, _ in known), default=0.0), max((high for _, high in known), default=0.0)


def _unit(spreads: Array, means: Array, quiet: Mask) -> Array:
    """Usual standard deviation within a batch, (K, c) to (c,); of the batches in which there is any.

    Of a quiet column that of all batches together: where it hardly ever rains, the usual day says nothing of how much.
    """
    usual = np.nan_to_num(robust.middle(np.where(spreads > 0, spreads, np.nan)))
    far = np.hypot(spreads, means - robust.middle(means))
    known = np.isfinite(means) & np.isfinite(spreads) & ~robust.outliers(np.where(far > 0, far, np.nan))
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, means, 0).sum(axis=0) / count
    square = np.where(known, np.square(spreads) + np.square(means - mean), 0).sum(axis=0) / count
    return np.where(quiet, np.maximum(usual, np.sqrt(square)), usual)

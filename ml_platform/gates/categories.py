"""Do the values of a column come as often as they did? For texts, and for numbers that have few values.

Three figures, each against its own history: the share of rows with a value that no accepted batch had; the share of
each single value, as one may vanish into another; and the population stability index against all accepted batches
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_platform.gates import robust
from ml_platform.gates.figures import Distance
from ml_platform.gates.robust import Array
from ml_platform.gates.sketches import Items

_EFFECT = 0.01
"""On the scale of arcsin(sqrt(share)): from 0 to 0.01 %, from 20 to 20.8 %."""
_NEW_EFFECT = 0.02
"""The same for values never seen: a route that opens brings five flights, and 0.04 % are as far as one effect."""
_BEYOND_EFFECT = 0.15
"""The same for numbers that may lie beyond all that were: from 0 to 2.2 %."""
_NUMBER_EFFECT = 0.1
"""The same for a single number: it may stand for a good part of a day's wind."""
_COMMON = 0.01
"""Of a batch's rows: what never has so many is no value that is missed."""
_STABILITY_EFFECT = 0.1
"""Of the root of the population stability index: an index of 0.1 is 0.32."""


@dataclass(frozen=True)
class Counted:
    """One column of a batch and of its history, values against batches.

    Args:
        column: its name.
        values: as text, n of them.
        share: (1 + K, n) share of each, of the batch first; values that are not known count as none.
        rows: (1 + K,) rows with a value.
        within: of numbers, the least and the most of the accepted batches. A number beyond is new to any measure, and
            nothing new in kind: more of them are needed. None for texts.
    """

    column: str
    values: tuple[str, ...]
    share: Array
    rows: Array
    within: tuple[float, float] | None

    @classmethod
    def of(
        cls, column: str, now: Items, history: Sequence[Items], within: tuple[float, float] | None
    ) -> Counted | None:
        """Of a column; None where its values hardly ever come twice, or are numbers in some batches only."""
        all_ = (now, *history)
        if not all(one.counts for one in all_):
            return None
        if within is not None and not all(_is_number(value) for one in all_ for value, _ in one.counts):
            return None  # a text in some batches: `ml_platform.gates.kinds` says so
        _, first, place = np.unique(np.concatenate([one.codes for one in all_]), return_index=True, return_inverse=True)
        starts = np.cumsum([0, *(len(one.codes) for one in all_)])
        share = np.zeros((len(all_), len(first)))
        for number, one in enumerate(all_):
            share[number, place[starts[number] : starts[number + 1]]] = one.portions
        owner = np.searchsorted(starts, first, side="right") - 1
        values = tuple(all_[i].counts[j - starts[i]][0] for i, j in zip(owner.tolist(), first.tolist(), strict=True))
        return cls(column, values, share, np.array([one.rows for one in all_], dtype=np.float64), within)

    def new(self, within: tuple[float, float] | None) -> Array:
        """Share of values that are in no accepted batch; of an accepted one, in no other. Shape (1 + K,)."""
        batches = (self.share[1:] > 0).sum(axis=0)
        share = np.vstack([self.share[:1] * (batches == 0), self.share[1:] * (batches == 1)])
        if within is not None:
            number = np.array([float(value) for value in self.values])
            share = share * ((number > within[0]) & (number < within[1]))
        found: Array = share.sum(axis=1)
        return found

    def unseen(self) -> str:
        """The most frequent value that no accepted batch has, in words; "" where there is none."""
        share = self.share[0] * (self.share[1:].max(axis=0) == 0)
        if not share.any():
            return ""
        # Of those that are as frequent the first by name: the order of `values` is another one in each process.
        return f" (such as {min(self.values[place] for place in np.flatnonzero(share == share.max()))!r})"

    def common(self) -> npt.NDArray[np.intp]:
        """Which values any accepted batch has often enough to be missed."""
        return np.flatnonzero(self.share[1:].max(axis=0) >= _COMMON)

    def stability(self) -> Array:
        """The population stability index, sum of (p - q) log(p / q), against all accepted batches. Shape (1 + K,)."""
        share = self.share[:, self.common()]
        all_ = np.hstack([share, np.maximum(1 - share.sum(axis=1), 0)[:, None]])
        rows = np.maximum(self.rows, 1)[:, None]
        # Half a row more in each: a share of 0 has no logarithm.
        p = (all_ * rows + 0.5) / (rows + 0.5 * all_.shape[1])
        q = ((all_[1:] * rows[1:]).sum(axis=0) + 0.5) / (rows[1:].sum() + 0.5 * all_.shape[1])
        found: Array = ((p - q) * np.log(p / q)).sum(axis=1)
        return found


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def distances(columns: Sequence[Counted]) -> list[Distance]:
    """Values of every column against their history."""
    if not columns:
        return []
    rows = np.stack([one.rows for one in columns], axis=1)  # (1 + K, c)
    found = []
    for beyond, effect in ((False, _NEW_EFFECT), (True, _BEYOND_EFFECT)):
        new = np.stack([one.new(None if beyond else one.within) for one in columns], axis=1)
        far = np.maximum(robust.share_distance(new[0], rows[0], new[1:], rows[1:], effect, outlying=True), 0)
        for place in np.flatnonzero(far > 1).tolist():
            figure = "share of values never seen before" + columns[place].unseen()
            found.append(Distance.of(columns[place].column, "new", figure, far[place], new[:, place]))
    found += _each(columns)
    index = np.stack([one.stability() for one in columns], axis=1)
    kinds = np.array([len(one.common()) + 1 for one in columns])
    noise = 0.5 * np.sqrt(kinds / np.maximum(rows[0], 1))
    far = np.maximum(robust.distance(np.sqrt(index[0]), np.sqrt(index[1:]), np.hypot(noise, _STABILITY_EFFECT)), 0)
    for place in np.flatnonzero(far > 1).tolist():
        figure = "population stability index"
        found.append(Distance.of(columns[place].column, "stability", figure, far[place], index[:, place]))
    return found


def _each(columns: Sequence[Counted]) -> list[Distance]:
    """The value of each column whose share is farthest."""
    common = [one.common() for one in columns]
    share = np.hstack([one.share[:, its] for one, its in zip(columns, common, strict=True)])
    rows = np.hstack([np.tile(one.rows[:, None], len(its)) for one, its in zip(columns, common, strict=True)])
    effect = np.concatenate(
        [np.full(len(its), _NUMBER_EFFECT if one.within else _EFFECT) for one, its in zip(columns, common, strict=True)]
    )
    far = robust.share_distance(share[0], rows[0], share[1:], rows[1:], effect)
    found, start = [], 0
    for one, its in zip(columns, common, strict=True):
        its_far = far[start : start + len(its)]
        if len(its) and np.abs(its_far).max() > 1:
            worst = int(np.abs(its_far).argmax())
            figure = f"share of {one.values[its[worst]]!r}"
            found.append(Distance.of(one.column, "category", figure, its_far[worst], share[:, start + worst]))
        start += len(its)
    return found

"""How far a figure is from what it was, in robust standard deviations: the one scale that limits are given in."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_NORMAL = 1.4826
"""Median absolute deviation of a normal distribution to its standard deviation."""
_EXTREME = 2.0
"""The farthest of some 28 normal figures is about so many standard deviations away."""
_OUTLIER = 10.0
"""Times as far as all but a fifth of the batches: what is still farther tells nothing of how far the others may be."""
_WEEK = (5, 9)
"""Least and most batches from one to the next of what comes once a week, with holidays and days without a batch."""
_NEW_LEVEL = 3
"""The last batches, so many in a row that are accepted though far from the others: so it is now."""
_FEW = 4.0
"""Spreads are widened by 4 / K, since few batches have not seen much: by 40 % for 10 of them, by 14 % for 28."""


_NEVER = 0.1
"""What never happened is counted as a tenth of a row, and not as the half of Jeffreys' prior: most of what does not
happen in weeks is a rule. After four weeks without any, two rows of 72 are 4.6 from it, and four are 7."""
_MANY = 10
"""Rows with a value, and without it, from which on it shows whether their number is left to chance."""


def spread(history: Array, floor: Array | float = 0.0, *, outlying: Mask | bool = False) -> tuple[Array, Array, Array]:
    """Middle of figures over batches, and their spread below and above it.

    The spread is the median absolute deviation, scaled to the normal distribution's standard deviation (Rousseeuw and
    Croux 1993), and on each side at least the farthest of the accepted batches over 2: of figures with heavy tails,
    or with two modes as weekdays and weekends have, the median deviation knows nothing. Outliers do not count as the
    farthest: a batch in another unit that was accepted, or among the first ones, would let any other one pass.

    Args:
        history: (K, ...) one figure of K batches, oldest first; not-a-number where a batch has none.
        floor: what is too small to matter: nothing is an outlier that is less than 10 times as far.
        outlying: where outliers count: of figures that are nothing on most days and much on some, as new values are.

    Returns:
        (middle, below, above), each of shape (...); not-a-number where no batch has one.
    """
    ordered = np.sort(history, axis=0)  # what is not a number comes last
    known = np.isfinite(ordered).sum(axis=0)
    middle = _ordered_median(ordered, known)
    with np.errstate(invalid="ignore"):
        far = history - middle
        deviation = _NORMAL * _ordered_median(np.sort(np.abs(far), axis=0), known)
        left_out = ~np.isfinite(far) | (outliers(np.abs(far), floor) & ~np.asarray(outlying))
        far = np.where(left_out, 0, far)
        below = np.maximum(deviation, -far.min(axis=0) / _EXTREME)
        above = np.maximum(deviation, far.max(axis=0) / _EXTREME)
    return middle, below, above


def outliers(far: Array, floor: Array | float = 0.0) -> Mask:
    """Which batches, a fifth of them at most, are many times as far from the middle as all others are.

    What comes once a week is none of them, nor is what has been so in each of the last three batches.

    Args:
        far: (K, ...) how far each of K batches is, oldest first, 0 or more; not-a-number where it is not known.
        floor: (...) what is too small to matter.
    """
    ordered = np.sort(far, axis=0)
    known = np.isfinite(ordered).sum(axis=0)
    with np.errstate(invalid="ignore"):
        found: Mask = far > _OUTLIER * np.hypot(_at(ordered, known - 1 - known // 5), floor)
    if not found.any():
        return found
    place = np.arange(len(far)).reshape(-1, *[1] * (far.ndim - 1))
    last = np.maximum.accumulate(np.where(found, place, -1), axis=0)
    before = np.concatenate([np.full((1, *far.shape[1:]), -1), last[:-1]])
    gap = np.where(found, place - before, 0)
    often = (np.max(gap, axis=0) <= _WEEK[1]) & (len(far) - last[-1] <= _WEEK[1])
    weekly = often & ~(found & (before >= 0) & (gap < _WEEK[0])).any(axis=0)
    lasting = np.logical_and.accumulate(found[::-1], axis=0)[::-1]
    found &= ~weekly & ~(lasting & lasting[-_NEW_LEVEL:].all(axis=0))
    return found


def distance(value: Array, history: Array, floor: Array | float, *, outlying: Mask | bool = False) -> Array:
    """How many robust standard deviations a figure is from its history, signed; 0 where either is not known.

    Args:
        value: (...) the batch's figures.
        history: (K, ...) those of the accepted batches, oldest first.
        floor: what the spread is at least, added in squares: sampling noise, and the least change that matters. Without
            it a figure that hardly ever moves would alarm at any move.
        outlying: as of `spread`.
    """
    centre, below, above = spread(history, floor, outlying=outlying)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(np.square(np.where(value < centre, below, above)) + np.square(floor))
        scale = scale * (1 + _FEW / np.maximum(np.isfinite(history).sum(axis=0), 1))
        found: Array = np.asarray((value - centre) / scale)
    return np.where(np.isfinite(found), found, 0.0)


def share_distance(
    value: Array,
    rows: Array | float,
    history: Array,
    its_rows: Array,
    effect: Array | float,
    *,
    outlying: Mask | bool = False,
) -> Array:
    """How many robust standard deviations a share of rows is from its history, signed; 0 where either is not known.

    The lesser of two: how far it is beside what batches differ by, on the scale of arcsin(sqrt(share)); and how far
    beside what chance does to so many rows. Of chance by the root of the binomial deviance (McCullagh and Nelder 1989),
    as four rows of 72 are much where there never was one, and little where there are two a day. Where the batches
    differ by much less than chance would have it (24 hours of each of three stations, every day), chance has no part.

    Args:
        value: (...) shares, 0 to 1.
        rows: (...) of how many rows.
        history: (K, ...) shares in the accepted batches.
        its_rows: (K, ...) of how many rows.
        effect: what the spread is at least, on the scale of the arcsin.
        outlying: as of `spread`.
    """
    far = distance(angle(value), angle(history), effect, outlying=outlying)
    known = np.isfinite(history)
    all_rows = np.where(known, its_rows, 0)
    total = all_rows.sum(axis=0)
    usual = ((np.where(known, history, 0) * all_rows).sum(axis=0) + _NEVER) / (total + 2 * _NEVER)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviance = np.where(value > 0, value * np.log(value / usual), 0) + np.where(
            value < 1, (1 - value) * np.log((1 - value) / (1 - usual)), 0
        )
    chance = np.sqrt(2 * rows * np.maximum(deviance, 0))
    many = np.minimum(usual, 1 - usual) * rows >= _MANY
    fixed = many & (
        np.maximum(*spread(angle(history), effect, outlying=outlying)[1:]) < 0.25 / np.sqrt(np.maximum(rows, 1))
    )
    limit = np.where(fixed, np.inf, np.where(np.isfinite(chance), chance, 0))
    found: Array = np.sign(far) * np.minimum(np.abs(far), limit)
    return found


def angle(share: Array) -> Array:
    """The scale on which shares have the same sampling noise wherever they are (Freeman and Tukey 1950)."""
    found: Array = np.arcsin(np.sqrt(np.clip(share, 0, 1)))
    return found


def told(distance: float, *limits: float | None) -> str:
    """A distance in figures, rounded down to so many decimals that it lies on the same side of each limit."""
    for digits in range(1, 9):
        shown = math.floor(distance * 10**digits) / 10**digits
        if all((shown >= limit) == (distance >= limit) for limit in limits if limit is not None):
            break
    return f"{shown:.{digits}f}"


def middle(history: Array) -> Array:
    """Median of figures over batches, (K, ...) to (...); not-a-number where no batch has one."""
    ordered = np.sort(history, axis=0)
    return _ordered_median(ordered, np.isfinite(ordered).sum(axis=0))


def highest(history: Array) -> Array:
    """The most of 0 or more in any batch that is no outlier, (K, ...) to (...); not-a-number where there is none."""
    with np.errstate(invalid="ignore"):
        found: Array = np.fmax.reduce(np.where(outliers(np.maximum(history - middle(history), 0)), np.nan, history))
    return found


def mean(history: Array) -> Array:
    """Of the batches that are no outliers, (K, ...) to (...)."""
    kept = ~outliers(np.abs(history - middle(history)))
    found: Array = np.where(kept, history, 0).sum(axis=0) / kept.sum(axis=0)
    return found


def _ordered_median(ordered: Array, known: npt.NDArray[np.int_]) -> Array:
    pair = _at(ordered, (known - 1) // 2) + _at(ordered, known // 2)
    found: Array = np.where(known > 0, pair / 2, np.nan)
    return found


def _at(ordered: Array, place: npt.NDArray[np.int_]) -> Array:
    """Each figure's value at a place of its own, (K, ...) and (...) to (...)."""
    place = np.clip(place, 0, len(ordered) - 1)
    flat = ordered.reshape(len(ordered), -1)
    found: Array = flat[place.ravel(), np.arange(flat.shape[1])].reshape(place.shape)
    return found

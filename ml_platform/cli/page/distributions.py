"""What a batch looks like beside the accepted batches before it, column by column, from their profiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from markupsafe import Markup

from ml_platform.cli.page import svg
from ml_platform.gates.profile import ColumnProfile, Profile
from ml_platform.gates.sketches import Numbers

BINS = 30
WHOLE_BINS = 48
"""Whole numbers over at most so many values have a bin each."""
CATEGORIES = 8
FEW = 10
"""A number with at most so many distinct values is shown as categories."""
RANKS = (0.05, 0.25, 0.5, 0.75, 0.95)
ENDS = (0.02, 0.98)
"""Ranks between which a distribution is drawn: what lies beyond is in the first and the last bin, lest one outlier
squeeze all the others into one."""
HOURS = tuple(3600 * hours for hours in (1, 2, 3, 6, 12))

Past = Sequence[tuple[str, ColumnProfile]]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One column of a batch: its charts, and a line of figures."""

    name: str
    type: str
    said: tuple[str, ...]
    figures: str
    charts: tuple[Markup, ...]


def draw(
    batch: str,
    profile: Profile,
    before: Sequence[tuple[str, Profile]],
    *,
    said: Mapping[str, Sequence[str]],
    only: bool,
) -> Iterator[Drawn]:
    """The columns of a batch, those first of which the gate has said something.

    Args:
        batch: its name.
        profile: of one source's rows.
        before: profiles of accepted batches before it with their names, oldest first.
        said: by column, what the gate said.
        only: leave out the others.
    """
    for name in sorted(profile.columns, key=lambda name: name not in said):
        if only and name not in said:
            return
        now = profile.columns[name]
        past = [
            (other, its.columns[name], its.rows)
            for other, its in before
            if name in its.columns and its.columns[name].type == now.type
        ]
        yield Drawn(
            name=name,
            type=now.type,
            said=tuple(said.get(name, ())),
            figures=_figures(profile.rows, now, [(its, rows) for _, its, rows in past]),
            charts=tuple(map(Markup, _charts(batch, name, now, [(other, its) for other, its, _ in past]))),
        )


def _figures(rows: int, now: ColumnProfile, past: Sequence[tuple[ColumnProfile, int]]) -> str:
    """What is missing, how many values there are, and the extremes: in the batch, and in those before it."""
    said = f"missing {svg.percent(now.nulls / max(1, rows))}"
    if shares := [its.nulls / max(1, of) for its, of in past]:
        said += f" (before: {svg.percent(min(shares))} to {svg.percent(max(shares))})"
    if now.items.rows:
        count = f"{'' if now.items.exact else 'about '}{now.items.distinct_count:,.0f}"
        said += f", {count} distinct {'value' if count == '1' else 'values'}"
    if now.kind == "number" and now.least is not None and now.most is not None:
        said += f", from {svg.number(now.least)} to {svg.number(now.most)}"
        known = [(its.least, its.most) for its, _ in past if its.least is not None and its.most is not None]
        if known:
            least, most = min(low for low, _ in known), max(high for _, high in known)
            said += f" (before: {svg.number(least)} to {svg.number(most)})"
    return said


def _charts(batch: str, name: str, now: ColumnProfile, past: Past) -> Iterator[str]:
    few = all(its.items.exact and its.items.distinct_count <= FEW for its in (now, *(its for _, its in past)))
    varies = now.kind != "text" or now.numbers.least < now.numbers.most
    if now.items.counts and (now.kind == "text" or few):
        yield svg.bars(_categories(now, past), label=name)
    elif now.numbers.count and varies and _has_quantiles(now.numbers):
        yield _histogram(name, now, past)
    both = [*past, (batch, now)]
    if now.kind == "text":
        points = [(other, [its.items.distinct_count]) for other, its in both if its.items.rows]
        if now.items.rows:
            yield svg.trend(points, label="distinct values", shown=svg.number, round_to=svg.WHOLE)
    elif now.numbers.count:
        points = [
            (other, its.numbers.quantiles(RANKS) if _has_quantiles(its.numbers) else [its.numbers.mean])
            for other, its in both
            if its.numbers.count
        ]
        if now.kind == "time":
            yield svg.trend(points, label="time of day (UTC)", shown=svg.clock, round_to=HOURS)
        else:
            yield svg.trend(points, label=name, shown=svg.number, round_to=() if now.numbers.fractions else svg.WHOLE)


def _has_quantiles(numbers: Numbers) -> bool:
    """Whether more than the mean is known; of the lengths of texts it may be no more."""
    return bool(numbers.digest) or numbers.least == numbers.most


def _label(name: str, column: ColumnProfile) -> str:
    """What the numbers of a column are, with their unit where the platform knows it."""
    if column.kind == "time":
        return f"{name} (time of day, UTC)"
    return f"length of {name} (characters)" if column.kind == "text" else name


def _histogram(name: str, now: ColumnProfile, past: Past) -> str:
    """The distribution over that of all batches before together."""
    known = [its.numbers for _, its in past if its.numbers.count and _has_quantiles(its.numbers)]
    before = reduce(lambda one, other: one.merge(other), known) if known else None
    both = [numbers.quantiles(ENDS) for numbers in (now.numbers, before) if numbers is not None]
    low, high = min(ends[0] for ends in both), max(ends[1] for ends in both)
    whole = not now.numbers.fractions and (before is None or not before.fractions)
    if whole and high - low < WHOLE_BINS:
        edges = [low - 0.5 + place for place in range(round(high - low) + 2)]
    else:
        room = (high - low) or abs(low) * 0.1 or 1.0
        edges = [low + room * (place / BINS) for place in range(BINS + 1)]
    clock = now.kind == "time"
    return svg.histogram(
        edges,
        _between(now.numbers.shares(edges)),
        _between(before.shares(edges)) if before is not None else [0.0] * (len(edges) - 1),
        label=_label(name, now),
        shown=svg.clock if clock else svg.number,
        round_to=HOURS if clock else svg.WHOLE if whole else (),
    )


def _between(shares: Sequence[float]) -> list[float]:
    """Shares up to each edge as shares between them; what lies beyond is in the first bin or the last."""
    inner = shares[1:-1]
    return [max(0.0, high - low) for low, high in zip([0.0, *inner], [*inner, 1.0], strict=True)]


def _categories(now: ColumnProfile, past: Past) -> list[tuple[str, float, float]]:
    """The most frequent values of the batch and of those before, the most frequent first; numbers in their order."""
    known = [its.items for _, its in past]
    before: dict[str, int] = {}
    for items in known:
        for value, count in items.counts:
            before[value] = before.get(value, 0) + count
    rows, of, counts = max(1, now.items.rows), max(1, sum(items.rows for items in known)), dict(now.items.counts)
    shares = {value: (counts.get(value, 0) / rows, before.get(value, 0) / of) for value in {**counts, **before}}
    # A value that is new or gone is what one looks for, so a change counts as much as being frequent.
    ranked = sorted(shares, key=lambda value: (-max(shares[value]) - abs(shares[value][0] - shares[value][1]), value))
    chosen = ranked[:CATEGORIES]
    chosen.sort(key=lambda value: (float(value), "") if now.kind == "number" else (-max(shares[value]), value))
    return [(value, *shares[value]) for value in chosen]

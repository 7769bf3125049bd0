"""Small charts as inline SVG: nothing is fetched and nothing runs, and the page's colours, light or dark, are theirs.

Every text that comes from data is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 264, 150
LEFT, RIGHT, TOP, BOTTOM = 54, 8, 8, 34
"""Pixels of a chart, and around its plot."""
BAR = 17
"""Pixels of a category."""
LONGEST, SHORT = 18, 14
"""Characters of a category's name, and of a batch's under an axis."""
VALUES = 72
"""Pixels right of the bars of categories."""
WHOLE = tuple(factor * 10**power for power in range(12) for factor in (1, 2, 5))
"""Distances of ticks between whole numbers."""

Format = Callable[[float], str]
Edges = Sequence[float]
Shares = Sequence[float]


@dataclass(frozen=True)
class Axis:
    """From `low` to `high` over pixels `start` to `end`; the ticks lie at round values."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]

    @classmethod
    def over(cls, low: float, high: float, start: float, end: float, *, count: int = 4, round_to: Edges = ()) -> Axis:
        """An axis over some values. `round_to` are distances of ticks to choose from, in place of 1, 2, 5, 10, ..."""
        if not low < high:
            room = 0.5 if abs(low) > 1 else abs(low) / 2 or 0.5
            low, high = low - room, high + room
        ticks = round_ticks(low, high, count, round_to)
        return cls(low, high, start, end, ticks)

    def at(self, value: float) -> float:
        """Where a value lies, in pixels; at the end where it lies beyond."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def round_ticks(low: float, high: float, count: int, round_to: Edges = ()) -> list[float]:
    """About so many multiples of a round number from low to high."""
    least = (high - low) / count
    power = 10.0 ** math.floor(math.log10(least))
    steps = round_to or [power * factor for factor in (1, 2, 5, 10)]
    step = next((step for step in steps if step >= least), steps[-1])
    return [step * place for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number for an axis: four digits, without needless zeros."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def clock(seconds: float) -> str:
    """Seconds of a day as hours and minutes."""
    return f"{int(seconds) // 3600:02d}:{int(seconds) // 60 % 60:02d}"


def percent(value: float) -> str:
    """A share."""
    return f"{100 * value:.3g} %"


def histogram(edges: Edges, now: Shares, before: Shares, *, label: str, shown: Format, round_to: Edges = ()) -> str:
    """The shares of a batch between edges, as an outline, over those of its baseline.

    Args:
        edges: n + 1 of them, ascending.
        now, before: n shares of the rows.
        label: what is counted along the axis, with its unit.
        shown: how a value is written.
        round_to: see `Axis.over`.
    """
    x = Axis.over(edges[0], edges[-1], LEFT, WIDTH - RIGHT, round_to=round_to)
    y = Axis.over(0, max(*now, *before, 1e-9), HEIGHT - BOTTOM, TOP)
    parts = [*_frame(x, y, label, "share of rows", shown, percent)]
    parts.append(f'<path class="was" d="{_steps(edges, before, x, y)}Z"/>')
    parts.append(f'<path class="now" d="{_steps(edges, now, x, y)}"/>')
    return _svg(parts, WIDTH, HEIGHT, f"Distribution of {label}, this batch over those before")


def trend(points: Sequence[tuple[str, Sequence[float]]], *, label: str, shown: Format, round_to: Edges = ()) -> str:
    """One mark a batch, the last one being the batch in question: from the 5th to the 95th percentile, the half in the
    middle thicker, and the median; or a single value.

    Args:
        points: name of the batch, and five values or one, ascending.
        label: what they are, with its unit.
        shown: how a value is written.
        round_to: see `Axis.over`.
    """
    values = [value for _, its in points for value in its]
    y = Axis.over(min(values), max(values), HEIGHT - BOTTOM, TOP + 4, round_to=round_to)
    step = (WIDTH - LEFT - RIGHT - 12) / max(1, len(points))
    parts = list(_frame(None, y, "batch", label, shown, shown))
    at = [round(LEFT + 6 + step * (place + 0.5), 1) for place in range(len(points))]
    at[-1] = round(at[-1] + 6, 1)
    marks = [_mark(x, its, y) for x, (_, its) in zip(at, points, strict=True)]
    for kind, some in (("past", marks[:-1]), ("mark", marks[-1:])):
        lines = "".join(
            f'<path class="{weight}" d="{"".join(path)}"/>'
            for weight, path in zip(("thin", "thick", "dot"), zip(*some, strict=True), strict=False)
            if any(path)
        )
        told = f"<title>{_told(*points[-1], shown)}</title>" if kind == "mark" else ""
        parts.append(f'<g class="{kind}">{told}{lines}</g>')
    bottom = HEIGHT - BOTTOM + 14
    if len(points) > 1:
        parts.append(f'<text x="{LEFT}" y="{bottom}">{escape(_short(points[0][0], SHORT))}</text>')
    end = escape(_short(points[-1][0], SHORT))
    parts.append(f'<text x="{WIDTH - 2}" y="{bottom}" text-anchor="end" class="this">{end}</text>')
    return _svg(parts, WIDTH, HEIGHT, f"{label}, batch by batch")


def _mark(x: float, its: Sequence[float], y: Axis) -> tuple[str, str, str]:
    """Paths of a batch in a trend: nine tenths of its rows, half of them, the median."""
    middle = f"M{x} {y.at(its[len(its) // 2])}h0"
    if len(its) == 1:
        return "", "", middle
    low, quarter, _, three_quarters, high = its
    return f"M{x} {y.at(low)}V{y.at(high)}", f"M{x} {y.at(quarter)}V{y.at(three_quarters)}", middle


def bars(rows: Sequence[tuple[str, float, float]], *, label: str) -> str:
    """Categories, each with its share in the batch and, under it, in the baseline.

    Args:
        rows: (category, share now, share before).
        label: what they are.
    """
    names = [_short(name) for name, _, _ in rows]
    left = 16 + round(6.2 * max(map(len, names)))
    height = TOP + BAR * len(rows) + 30
    x = Axis.over(0, max(max(now, before) for _, now, before in rows), left, WIDTH - VALUES, count=3)
    parts = [f'<path class="axis" d="M{left} {TOP}V{height - 28}"/>']
    for place, (name, now, before) in enumerate(rows):
        top = TOP + BAR * place
        new = " new" if now and not before else ""
        parts.append(
            f"<g><title>{escape(name)}: {percent(now)}, before {percent(before)}</title>"
            f'<text x="{left - 5}" y="{top + 11}" text-anchor="end">{escape(names[place])}</text>'
            f'<rect class="bar" x="{left}" y="{top + 2}" width="{round(x.at(now) - left, 1)}" height="6"/>'
            f'<rect class="was" x="{left}" y="{top + 8}" width="{round(x.at(before) - left, 1)}" height="5"/>'
            f'<text x="{x.at(max(now, before)) + 4}" y="{top + 11}" class="this">{percent(now)}{new}</text></g>'
        )
    middle = (left + WIDTH - VALUES) / 2
    for tick in x.ticks:
        parts.append(f'<text x="{x.at(tick)}" y="{height - 16}" text-anchor="middle">{percent(tick)}</text>')
    parts.append(f'<text x="{middle}" y="{height - 3}" text-anchor="middle">share of rows, by {escape(label)}</text>')
    return _svg(parts, WIDTH, height, f"Shares of {label}, this batch and those before")


def _frame(x: Axis | None, y: Axis, x_label: str, y_label: str, x_shown: Format, y_shown: Format) -> Iterator[str]:
    """Axes, ticks, labels."""
    bottom = HEIGHT - BOTTOM
    for tick in y.ticks:
        yield f'<path class="grid" d="M{LEFT} {y.at(tick)}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 4}" y="{y.at(tick) + 3}" text-anchor="end">{escape(y_shown(tick))}</text>'
    for tick in x.ticks if x is not None else ():
        assert x is not None
        yield f'<text x="{x.at(tick)}" y="{bottom + 13}" text-anchor="middle">{escape(x_shown(tick))}</text>'
    yield f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}"/>'
    if x_label:
        middle = (LEFT + WIDTH - RIGHT) / 2
        yield f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>'
    centre = (TOP + bottom) / 2
    yield f'<text transform="translate(9 {centre}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'


def _steps(edges: Edges, shares: Shares, x: Axis, y: Axis) -> str:
    """The outline of bars, from the axis to the axis."""
    path = [f"M{x.at(edges[0])} {y.at(0)}"]
    for edge, share in zip(edges[1:], shares, strict=True):
        path.append(f"V{y.at(share)}H{x.at(edge)}")
    return "".join([*path, f"V{y.at(0)}"])


def _told(batch: str, its: Sequence[float], shown: Format) -> str:
    if len(its) == 1:
        return escape(f"{batch}: {shown(its[0])}")
    middle = its[len(its) // 2]
    return escape(f"{batch}: median {shown(middle)}, from {shown(its[0])} to {shown(its[-1])} in 90 % of the rows")


def _short(name: str, longest: int = LONGEST) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _svg(parts: Sequence[str], width: int, height: int, title: str) -> str:
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg {size} role="img" aria-label="{escape(title, quote=True)}">{"".join(parts)}</svg>'

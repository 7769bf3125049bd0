"""How a plot is drawn: one small figure with plain axes, as a small PNG, which travels inside Dagster's metadata.

Drawn on `Figure` without pyplot, which keeps global state and looks for a display.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (480, 360)
"""Width and height in pixels."""
PALETTE = ("#2563eb", "#ea580c", "#059669", "#7c3aed", "#db2777", "#64748b")
INK, FAINT = "#1f2937", "#d1d5db"
_DPI = 96


def markdown(picture: bytes, title: str) -> str:
    """The picture inside Markdown, as a data URI, for Dagster's metadata."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(picture).decode()})"


def sheet(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """An empty figure of SIZE with one pair of axes, which have these labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE[0] / _DPI, SIZE[1] / _DPI), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, color=INK, loc="left", fontweight="bold")
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=INK, length=3)
    axes.grid(color=FAINT, linewidth=0.6, alpha=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    return figure, axes


def note(axes: Axes, text: str) -> None:
    """Say something in the middle of axes that have nothing to show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=10, color=INK)


def png(figure: Figure, axes: Axes, *, loc: str = "best") -> bytes:
    """Draw, and keep 64 colours: a third of the bytes, no difference to see. The same figure gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    if axes.get_legend_handles_labels()[0]:
        options: dict[str, Any] = {"loc": loc, "fontsize": 8, "framealpha": 0.85, "edgecolor": "none"}
        for handle in axes.legend(**options).legend_handles:
            if handle is not None:
                handle.set_alpha(1)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.frombuffer("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")
    small = io.BytesIO()
    image.quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()

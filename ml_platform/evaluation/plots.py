"""Plots that a person looks at in the UI and in MLflow, each a small PNG: they travel inside Dagster's metadata.

Drawn on `Figure` without pyplot, which keeps global state and looks for a display.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_platform.evaluation.metrics import binary_target
from ml_platform.pipeline import Task

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Scores = Mapping[str, npt.NDArray[np.float64]]

SIZE = (480, 360)
"""Width and height in pixels."""
_DPI = 96
_PALETTE = ("#2563eb", "#ea580c", "#059669", "#7c3aed", "#db2777", "#64748b")
_INK, _FAINT = "#1f2937", "#d1d5db"
_MOST_NAMED = 12
"""Classes beyond this many are drawn without their names."""
_MOST_POINTS = 1500


def for_task(
    task: Task, target: npt.ArrayLike, scores: Mapping[str, npt.ArrayLike], classes: Sequence[Any] | None = None
) -> dict[str, bytes]:
    """The plots of a task by title, with every model in one picture where that can be read.

    Args:
        task, target, classes: as `metrics.compute`'s.
        scores: by model name, the trained one first; each as `metrics.compute`'s.
    """
    import numpy as np

    truth, found = np.asarray(target), {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    first = next(iter(found))
    if task == "regression":
        return {"Predicted and actual": predicted_actual(truth.astype(float), found)}
    if task == "multiclass":
        names = np.asarray(list(classes) if classes is not None else np.unique(truth))
        return {
            f"Confusion of the {name}": confusion(truth, names[values.argmax(axis=1)], names.tolist(), name=name)
            for name, values in found.items()
        }
    positive = binary_target(truth, classes)
    return {
        "ROC": roc(positive, found),
        "Calibration": calibration(positive, found),
        "Scores": score_histogram(positive, found[first], name=first),
    }


def loss_curve(
    history: Mapping[str, Sequence[float]], *, x: Sequence[float] | None = None, label: str = "epoch"
) -> bytes:
    """Losses over time, one line a name (such as train and holdout), from 1 when `x` is None."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure("Loss while training", label, "loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for color, (name, values) in zip(_PALETTE, history.items(), strict=False):
        steps = list(x) if x is not None else list(range(1, len(values) + 1))
        axes.plot(steps, values, color=color, label=name, marker="o" if len(values) <= 30 else None, markersize=3.5)
    return _png(figure, axes)


def roc(target: npt.NDArray[np.int64], scores: Scores) -> bytes:
    """ROC curves of several models. `target` is 0 or 1, shape (rows,); `scores` by model name, shape (rows,)."""
    from sklearn.metrics import roc_auc_score, roc_curve

    figure, axes = _figure("ROC on the holdout", "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=_FAINT, linestyle="--", linewidth=1)
    if 0 < target.sum() < len(target):
        for color, (name, values) in zip(_PALETTE, scores.items(), strict=False):
            false_rate, true_rate, _ = roc_curve(target, values)
            axes.plot(false_rate, true_rate, color=color, label=f"{name}, area {roc_auc_score(target, values):.3f}")
    else:
        _note(axes, "one class only")
    axes.set(xlim=(0, 1), ylim=(0, 1.005))
    return _png(figure, axes, loc="lower right")


def calibration(target: npt.NDArray[np.int64], scores: Scores, *, bins: int = 10) -> bytes:
    """Reliability: of rows given a probability, the share that came true; equal numbers of rows in each point."""
    from sklearn.calibration import calibration_curve

    figure, axes = _figure("Calibration on the holdout", "predicted probability", "share that came true")
    axes.plot([0, 1], [0, 1], color=_FAINT, linestyle="--", linewidth=1)
    for color, (name, values) in zip(_PALETTE, scores.items(), strict=False):
        share, predicted = calibration_curve(target, values.clip(0, 1), n_bins=bins, strategy="quantile", pos_label=1)
        axes.plot(predicted, share, color=color, label=name, marker="o", markersize=3.5)
    axes.set(xlim=(0, 1), ylim=(0, 1.005))
    return _png(figure, axes, loc="upper left")


def score_histogram(target: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], *, name: str = "network") -> bytes:
    """How scores are spread over rows that came true and rows that did not."""
    import numpy as np

    figure, axes = _figure(f"Scores of the {name}", "predicted probability", "density")
    edges = np.linspace(0, 1, 41).tolist()
    for color, value, word in ((_PALETTE[5], 0, "negative"), (_PALETTE[0], 1, "positive")):
        part = scores[target == value]
        if len(part):
            axes.hist(part, bins=edges, density=True, color=color, alpha=0.55, label=f"{word}, {len(part):,} rows")
    axes.set_xlim(0, 1)
    return _png(figure, axes, loc="upper right")


def confusion(
    actual: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: Sequence[Any], *, name: str = "network"
) -> bytes:
    """Share of each actual class's rows by predicted class."""
    import numpy as np
    from sklearn.metrics import confusion_matrix

    shares = np.nan_to_num(confusion_matrix(actual, predicted, labels=list(classes), normalize="true"))
    figure, axes = _figure(f"Confusion of the {name}", "predicted", "actual")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of actual")
    axes.grid(visible=False)
    if len(classes) <= _MOST_NAMED:
        names = [str(value)[:12] for value in classes]
        axes.set_xticks(range(len(names)), names, rotation=45 if max(map(len, names)) > 3 else 0, ha="right")
        axes.set_yticks(range(len(names)), names)
        for row, column in np.ndindex(*shares.shape):
            share = shares[row, column]
            ink = "white" if share > 0.5 else _INK
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=7, color=ink)
    return _png(figure, axes)


def predicted_actual(target: npt.NDArray[np.float64], scores: Scores) -> bytes:
    """A regression's predictions over what came true, in the label's unit; at most 1,500 evenly chosen rows."""
    import numpy as np

    figure, axes = _figure("Predicted and actual on the holdout", "actual", "predicted")
    chosen = np.linspace(0, len(target) - 1, min(len(target), _MOST_POINTS)).astype(int)
    low, high = float(target.min()), float(target.max())
    axes.plot([low, high], [low, high], color=_INK, linestyle="--", linewidth=1, zorder=3)
    for color, (name, values) in reversed(list(zip(_PALETTE, scores.items(), strict=False))):
        axes.scatter(target[chosen], values[chosen], s=5, alpha=0.35, color=color, label=name, linewidths=0)
    return _png(figure, axes, loc="upper left")


def markdown(png: bytes, title: str) -> str:
    """The picture inside Markdown, as a data URI, for Dagster's metadata."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE[0] / _DPI, SIZE[1] / _DPI), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, color=_INK, loc="left", fontweight="bold")
    axes.set_xlabel(x, fontsize=9, color=_INK)
    axes.set_ylabel(y, fontsize=9, color=_INK)
    axes.tick_params(labelsize=8, colors=_INK, length=3)
    axes.grid(color=_FAINT, linewidth=0.6, alpha=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)
    return figure, axes


def _note(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=10, color=_INK)


def _png(figure: Figure, axes: Axes, *, loc: str = "best") -> bytes:
    """Draw, and keep 64 colours: a third of the bytes, no difference to see. The same figure gives the same bytes."""
    from PIL import Image

    if axes.get_legend_handles_labels()[0]:
        options: dict[str, Any] = {"loc": loc, "fontsize": 8, "framealpha": 0.85, "edgecolor": "none"}
        for handle in axes.legend(**options).legend_handles:
            if handle is not None:
                handle.set_alpha(1)
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI, metadata={"Software": None})
    image = Image.open(drawn).convert("RGB")
    image.quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()

"""Plots that a person looks at in the UI and in MLflow, each a small PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_platform.evaluation.drawing import FAINT, INK, PALETTE, note, png, sheet

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes

    Floats = npt.NDArray[np.float64]
    Scores = Mapping[str, Floats]

_MOST_NAMED = 12
"""Classes beyond this many are drawn without their names."""
_MOST_POINTS = 1500
_MOST_STEPS = 400
"""Points of a curve: more are not to be seen."""
_MOST_BARS = 20
_MOST_TICKS = 8
_LONGEST = 46


def loss_curve(
    history: Mapping[str, Sequence[float]], *, x: Sequence[float] | None = None, label: str = "epoch"
) -> bytes:
    """Losses over time, one line a name (such as train and holdout), from 1 when `x` is None."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = sheet("Loss while training", label, "loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for color, (name, values) in zip(PALETTE, history.items(), strict=False):
        steps = list(x) if x is not None else list(range(1, len(values) + 1))
        axes.plot(steps, values, color=color, label=name, marker="o" if len(values) <= 30 else None, markersize=3.5)
    return png(figure, axes)


def roc(target: npt.NDArray[np.int64], scores: Scores) -> bytes:
    """ROC curves of several models. `target` is 0 or 1, shape (rows,); `scores` by model name, shape (rows,)."""
    from sklearn.metrics import roc_auc_score, roc_curve

    figure, axes = sheet("ROC on the holdout", "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1)
    if 0 < target.sum() < len(target):
        for color, (name, values) in zip(PALETTE, scores.items(), strict=False):
            false_rate, true_rate, _ = roc_curve(target, values)
            label = f"{name}, area {roc_auc_score(target, values):.3f}"
            axes.plot(*_thinned(false_rate, true_rate), color=color, label=label)
    else:
        note(axes, "one class only")
    axes.set(xlim=(0, 1), ylim=(0, 1.005))
    return png(figure, axes, loc="lower right")


def precision_recall(
    target: npt.NDArray[np.int64], scores: Scores, *, point: tuple[float, float] | None = None
) -> bytes:
    """Precision over recall, of several models. `point` is the (recall, precision) that the first one acts at."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    figure, axes = sheet("Precision and recall on the holdout", "recall", "precision")
    if target.any():
        share = float(target.mean())
        axes.axhline(share, color=FAINT, linestyle="--", linewidth=1)
        for color, (name, values) in zip(PALETTE, scores.items(), strict=False):
            precision, recall, _ = precision_recall_curve(target, values, drop_intermediate=True)
            label = f"{name}, area {average_precision_score(target, values):.3f}"
            axes.plot(*_thinned(recall, precision), color=color, label=label)
        if point is not None:
            axes.plot(*point, color=PALETTE[0], marker="o", markersize=6, linestyle="none", label="the threshold")
    else:
        note(axes, "no positive row")
    axes.set(xlim=(0, 1), ylim=(0, 1.005))
    return png(figure, axes, loc="upper right")


def class_precision_recall(target: npt.NDArray[Any], scores: Floats, classes: Sequence[Any]) -> bytes:
    """Precision over recall of each class against the others, of those with the most rows."""
    import numpy as np
    from sklearn.metrics import average_precision_score, precision_recall_curve

    figure, axes = sheet("Precision and recall by class", "recall", "precision")
    of_class = [np.asarray([value == name for value in target.tolist()]) for name in classes]
    shown = sorted(range(len(classes)), key=lambda number: -int(of_class[number].sum()))[: len(PALETTE)]
    for color, number in zip(PALETTE, shown, strict=False):
        if of_class[number].any():
            precision, recall, _ = precision_recall_curve(of_class[number], scores[:, number], drop_intermediate=True)
            area = average_precision_score(of_class[number], scores[:, number])
            label = f"{str(classes[number])[:16]}, area {area:.3f}"
            axes.plot(*_thinned(recall, precision), color=color, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.005))
    return png(figure, axes, loc="lower left")


def calibration(target: npt.NDArray[np.int64], scores: Scores, *, bins: int = 10) -> bytes:
    """Reliability: of rows given a probability, the share that came true; equal numbers of rows in each point."""
    return reliability({name: (target, values) for name, values in scores.items()}, bins=bins)


def reliability(said: Mapping[str, tuple[npt.NDArray[Any], Floats]], *, bins: int = 10) -> bytes:
    """The same where each model speaks of something else, as of the class that it holds for the likeliest.

    Args:
        said: by model name, whether that came true (0 or 1), and its probability; each of shape (rows,).
        bins: points of a line.
    """
    from sklearn.calibration import calibration_curve

    figure, axes = sheet("Reliability on the holdout", "predicted probability", "share that came true")
    axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1)
    for color, (name, (target, values)) in zip(PALETTE, said.items(), strict=False):
        share, predicted = calibration_curve(target, values.clip(0, 1), n_bins=bins, strategy="quantile", pos_label=1)
        axes.plot(predicted, share, color=color, label=name, marker="o", markersize=3.5)
    axes.set(xlim=(0, 1), ylim=(0, 1.005))
    return png(figure, axes, loc="upper left")


def score_histogram(
    target: npt.NDArray[np.int64], scores: Floats, *, name: str = "model", threshold: float | None = None
) -> bytes:
    """How scores are spread over rows that came true and rows that did not."""
    import numpy as np

    figure, axes = sheet(f"Scores of the {name}", "predicted probability", "density")
    edges = np.linspace(0, 1, 41).tolist()
    for color, value, word in ((PALETTE[5], 0, "negative"), (PALETTE[0], 1, "positive")):
        part = scores[target == value]
        if len(part):
            label = f"{word}, {len(part):,} rows"
            axes.hist(part, bins=edges, density=True, color=color, alpha=0.55, label=label, histtype="stepfilled")
    if threshold is not None:
        axes.axvline(threshold, color=PALETTE[1], linewidth=1.2, label=f"threshold {threshold:.3f}")
    axes.set_xlim(0, 1)
    return png(figure, axes, loc="upper right")


def confusion(
    actual: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    classes: Sequence[Any],
    *,
    name: str = "model",
    title: str = "",
) -> bytes:
    """Share of each actual class's rows by predicted class, with the rows where there is room."""
    import numpy as np
    from sklearn.metrics import confusion_matrix

    rows = confusion_matrix(actual, predicted, labels=list(classes))
    shares = rows / np.maximum(rows.sum(axis=1, keepdims=True), 1)
    figure, axes = sheet(title or f"Confusion of the {name}", "predicted", "actual")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of actual")
    axes.grid(visible=False)
    if len(classes) <= _MOST_NAMED:
        names = [str(value)[:12] for value in classes]
        axes.set_xticks(range(len(names)), names, rotation=45 if max(map(len, names)) > 3 else 0, ha="right")
        axes.set_yticks(range(len(names)), names)
        few = len(classes) <= 4
        for row, column in np.ndindex(*shares.shape):
            share = shares[row, column]
            ink = "white" if share > 0.5 else INK
            said = f"{share:.2f}\n{rows[row, column]:,} rows" if few else f"{share:.2f}"
            axes.text(column, row, said, ha="center", va="center", fontsize=9 if few else 7, color=ink)
    return png(figure, axes)


def predicted_actual(target: Floats, scores: Scores) -> bytes:
    """A regression's predictions over what came true, in the label's unit; at most 1,500 evenly chosen rows."""
    import numpy as np

    figure, axes = sheet("Predicted and actual on the holdout", "actual", "predicted")
    chosen = np.linspace(0, len(target) - 1, min(len(target), _MOST_POINTS)).astype(int)
    low, high = float(target.min()), float(target.max())
    axes.plot([low, high], [low, high], color=INK, linestyle="--", linewidth=1, zorder=3)
    for color, (name, values) in reversed(list(zip(PALETTE, scores.items(), strict=False))):
        axes.scatter(target[chosen], values[chosen], s=5, alpha=0.35, color=color, label=name, linewidths=0)
    return png(figure, axes, loc="upper left")


def residuals(target: Floats, scores: Scores) -> bytes:
    """How a regression's errors are spread, predicted less actual; the outermost percent on either side is cut off."""
    import numpy as np

    figure, axes = sheet("Errors on the holdout", "predicted less actual", "density")
    errors = {name: values - target for name, values in scores.items()}
    every = np.concatenate(list(errors.values()))
    known = every[np.isfinite(every)]
    low, high = np.quantile(known, [0.01, 0.99]).tolist() if len(known) else (0.0, 0.0)
    if low < high:
        edges = np.linspace(low, high, 41).tolist()
        for color, (name, values) in zip(PALETTE, errors.items(), strict=False):
            axes.hist(values, bins=edges, density=True, color=color, alpha=0.5, label=name, histtype="stepfilled")
        axes.axvline(0, color=INK, linestyle="--", linewidth=1)
    else:
        note(axes, "every error is the same")
    return png(figure, axes, loc="upper right")


def by_batch(found: Sequence[Mapping[str, Any]], metric: str, *, overall: float | None = None) -> bytes:
    """A metric in each batch with its interval, as `over_time.over_time` gives them, beside the baseline's."""
    import numpy as np

    figure, axes = sheet(f"{metric} by batch", "", metric)
    places = np.arange(len(found))
    series = {name: np.array([_number(row[name]) for row in found]) for name in ("figure", "low", "high", "baseline")}
    if overall is not None:
        axes.axhline(overall, color=FAINT, linestyle="--", linewidth=1)
    axes.fill_between(places, series["low"], series["high"], color=PALETTE[0], alpha=0.18, linewidth=0)
    small = 3.5 if len(found) <= 60 else 0
    axes.plot(places, series["baseline"], color=PALETTE[1], label="baseline", linewidth=1)
    axes.plot(places, series["figure"], color=PALETTE[0], label="model", marker="o", markersize=small)
    if not np.isfinite(series["figure"]).any():
        note(axes, "not known in any batch")
    ticks = np.unique(np.linspace(0, len(found) - 1, min(len(found), _MOST_TICKS)).astype(int)).tolist()
    axes.set_xticks(ticks, [str(found[tick]["batch"])[:16] for tick in ticks], rotation=30, ha="right")
    return png(figure, axes)


def importance(found: Sequence[Mapping[str, Any]], metric: str) -> bytes:
    """How much worse the metric is with each feature shuffled, as `importance.importance` gives them."""
    figure, axes = sheet("What the model owes to each feature", f"{metric} is worse by", "")
    if found:
        _rows(
            axes,
            [
                (str(row["feature"]), row["drop"], row["drop"] - row["spread"], row["drop"] + row["spread"])
                for row in found[:_MOST_BARS]
            ],
            bars=True,
        )
    else:
        note(axes, "not known")
    return png(figure, axes)


def slices(found: Sequence[tuple[str, Mapping[str, Any]]], metric: str, *, overall: float | None = None) -> bytes:
    """The metric of slices by name, with intervals, the baseline's beside it, and that of all rows as a line."""
    figure, axes = sheet("The worst slices", metric, "")
    known = [(name, row) for name, row in found if row["figure"] is not None][:_MOST_BARS]
    if known:
        _rows(axes, [(name, row["figure"], row["low"], row["high"]) for name, row in known], bars=False)
        beside = [(place, row["baseline"]) for place, (_, row) in enumerate(known) if row["baseline"] is not None]
        if beside:
            places, figures = zip(*beside, strict=True)
            axes.scatter(figures, places, s=14, color=PALETTE[1], label="baseline", marker="D", zorder=3)
        if overall is not None:
            axes.axvline(overall, color=INK, linestyle="--", linewidth=1, label="all rows")
    else:
        note(axes, "not known")
    return png(figure, axes)


def _rows(axes: Axes, rows: Sequence[tuple[str, float, float | None, float | None]], *, bars: bool) -> None:
    """Named figures with their intervals, from above to below."""
    places = list(range(len(rows)))
    for place, (_, figure, low, high) in zip(places, rows, strict=True):
        if bars:
            axes.barh(place, figure, color=PALETTE[0], alpha=0.75, height=0.7)
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=INK if bars else PALETTE[0], linewidth=1.4)
    if not bars:
        axes.scatter([row[1] for row in rows], places, s=20, color=PALETTE[0], label="model", zorder=4)
    axes.set_yticks(
        places, [row[0] if len(row[0]) <= _LONGEST else f"{row[0][: _LONGEST - 1]}…" for row in rows], fontsize=6.5
    )
    axes.invert_yaxis()


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most _MOST_STEPS points of a curve, as far apart along it as can be."""
    import numpy as np

    if len(x) <= _MOST_STEPS:
        return x, y
    along = np.r_[0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))]
    kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], _MOST_STEPS)).clip(0, len(x) - 1))
    return x[kept], y[kept]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value

"""Finds features that give the label away: each one is tried alone, on rows it was not fitted on.

A feature known only after the fact (an arrival time, a column that is filled in when the label is) predicts the label
nearly perfectly by itself; an honest one does not. So for every feature a shallow decision tree (for a category, the
label's mean) learns the label from that feature alone on one half of the rows and is judged on the other half.

    scores = separation(table, pipeline)
    offenders = suspicious(scores, pipeline.leakage_limit)

Scores have one scale for all tasks, 0.5 (no better than guessing) to 1 (knows the label): the area under the ROC curve
for two classes, its one-against-the-rest mean for more, and 0.5 + R²/2 for a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml_platform.pipeline import Pipeline

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

_DEPTH = 6
_LEAF = 0.002
_MIN_ROWS = 20
_MAX_CLASSES = 50


def separation(table: pa.Table, pipeline: Pipeline, *, seed: int = 0, rows: int = 50_000) -> dict[str, float]:
    """How well each declared feature alone predicts the label.

    A missing value is a value of its own: a column that is empty exactly where the label is 1 scores 1.

    Args:
        table: feature rows with the pipeline's features and its label. Rows without a label are left out.
        pipeline: names the features, the label and the task.
        seed: picks the rows and the halves.
        rows: at most so many rows are looked at, drawn at random.

    Returns:
        Score by feature, 0.5 to 1, in declared order; 0.5 for all where there is nothing to learn (fewer than 20
        labelled rows, or a single class).
    """
    import numpy as np
    import pyarrow.compute as pc

    names = pipeline.features.columns
    table = table.select([*names, pipeline.label])
    label = table.column(pipeline.label)
    known = pc.is_valid(label)
    if str(label.type) in ("float", "double", "halffloat"):
        known = pc.and_(known, pc.invert(pc.fill_null(pc.is_nan(label), True)))
    table = table.filter(known)
    order = np.random.default_rng(seed).permutation(table.num_rows)[:rows]
    if len(order) < _MIN_ROWS:
        return dict.fromkeys(names, 0.5)
    table = table.take(order)
    fitted = np.arange(len(order)) % 2 == 0
    target = _Target(table.column(pipeline.label), pipeline.task, fitted)
    if not target.learnable:
        return dict.fromkeys(names, 0.5)
    categorical = set(pipeline.features.categorical)
    return {
        name: target.score_categories(_encode(table.column(name)), fitted)
        if name in categorical
        else target.score_numbers(_numbers(table.column(name)), fitted, seed)
        for name in names
    }


def suspicious(scores: Mapping[str, float], limit: float) -> dict[str, float]:
    """The features that separate the label better than `limit` (0.5 to 1), the worst first."""
    found = {name: score for name, score in scores.items() if score > limit}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


class _Target:
    """The label in the form that its task is scored in.

    Args:
        column: label, without nulls.
        task: the pipeline's task.
        fitted: True on the half that is learned from.
    """

    def __init__(self, column: pa.ChunkedArray, task: str, fitted: npt.NDArray[np.bool_]) -> None:
        import numpy as np

        self._regression = task == "regression"
        if self._regression:
            self._values: Any = _numbers(column)
            self.learnable = bool(np.ptp(self._values[fitted]) > 0 and np.ptp(self._values[~fitted]) > 0)
            return
        self._values = _encode(column)
        common = np.argsort(-np.bincount(self._values[fitted]), kind="stable")[:_MAX_CLASSES]
        # A class that is judged must occur in both halves.
        self._classes = [c for c in common if all((self._values[half] == c).any() for half in (fitted, ~fitted))]
        self.learnable = len(self._classes) > 1

    def score_numbers(self, values: Floats, fitted: npt.NDArray[np.bool_], seed: int) -> float:
        """The score of one numeric feature; NaN is missing, and missing is something a tree can split on."""
        from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

        # Ranks, since the trees work in float32: it is too coarse for times, and infinity is not allowed there.
        ranks = _ranks(values).reshape(-1, 1)
        learn, judge = ranks[fitted], ranks[~fitted]
        kind = DecisionTreeRegressor if self._regression else DecisionTreeClassifier
        tree = kind(max_depth=_DEPTH, min_samples_leaf=max(5, int(_LEAF * len(learn))), random_state=seed)
        tree.fit(learn, self._values[fitted])
        if self._regression:
            return self._explained(tree.predict(judge), fitted)
        chances = tree.predict_proba(judge)
        column = {code: index for index, code in enumerate(tree.classes_)}
        return self._separated({code: chances[:, column[code]] for code in self._classes}, fitted)

    def score_categories(self, codes: Ints, fitted: npt.NDArray[np.bool_]) -> float:
        """The score of one categorical feature, by the label's mean in each category of the fitted half.

        Each mean is drawn towards the overall one as if the category had been seen twice more there; a category that
        only the judged half has gets the overall mean, so that a key that never comes twice scores nothing.
        """
        if self._regression:
            return self._explained(_means(codes, self._values, fitted), fitted)
        return self._separated(
            {code: _means(codes, (self._values == code).astype(float), fitted) for code in self._classes}, fitted
        )

    def _explained(self, predicted: Floats, fitted: npt.NDArray[np.bool_]) -> float:
        from sklearn.metrics import r2_score

        return 0.5 + max(0.0, float(r2_score(self._values[~fitted], predicted))) / 2

    def _separated(self, chances: Mapping[int, Floats], fitted: npt.NDArray[np.bool_]) -> float:
        from sklearn.metrics import roc_auc_score

        truth = self._values[~fitted]
        judged = self._classes[:1] if len(self._classes) == 2 else self._classes
        areas = [float(roc_auc_score(truth == code, chances[code])) for code in judged]
        return max(0.5, sum(areas) / len(areas))


def _means(codes: Ints, values: Floats, fitted: npt.NDArray[np.bool_]) -> Floats:
    """For the judged rows, the mean that `values` have in the row's category among the fitted ones."""
    import numpy as np

    count = np.bincount(codes[fitted], minlength=codes.max() + 1)
    total = np.bincount(codes[fitted], weights=values[fitted], minlength=codes.max() + 1)
    means = (total + 2 * values[fitted].mean()) / (count + 2)
    return means[codes[~fitted]]  # type: ignore[no-any-return]


def _numbers(column: pa.ChunkedArray) -> Floats:
    """A column as float64 of shape (rows,), NaN where it is missing."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    type_ = column.type
    if pa.types.is_timestamp(type_) or pa.types.is_duration(type_) or pa.types.is_time64(type_):
        column = column.cast(pa.int64())
    elif pa.types.is_date(type_) or pa.types.is_time32(type_):
        column = column.cast(pa.int32() if type_ != pa.date64() else pa.int64())
    elif pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return _encode(column).astype(np.float64)
    return pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _ranks(values: Floats) -> Floats:
    """Which of the distinct values, in ascending order, each one is; NaN stays NaN."""
    import numpy as np

    ranks = np.full(len(values), np.nan)
    known = ~np.isnan(values)
    ranks[known] = np.unique(values[known], return_inverse=True)[1]
    return ranks


def _encode(column: pa.ChunkedArray) -> Ints:
    """Codes from 0 for a column's distinct values, missing being one of them."""
    import numpy as np

    codes = column.combine_chunks().dictionary_encode("encode").indices.to_numpy(zero_copy_only=False)
    return codes.astype(np.int64)  # type: ignore[no-any-return]

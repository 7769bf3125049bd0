"""How much a model owes to each feature: by how much its metric drops when that column is shuffled.

Permutation importance (Breiman, Random Forests, Machine Learning 45, 2001; scikit-learn's `permutation_importance`),
with all shuffles of a feature scored at once. Of features that tell the same, each alone seems to matter little.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ml_platform.evaluation.declaration import LOWER_IS_BETTER
from ml_platform.evaluation.intervals import Answers, figure

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_platform.training.scoring import Scorer

REPEATS = 5
"""Shuffles of each feature."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What a feature is worth to a model.

    Args:
        feature: which.
        drop: how much worse the metric is without it, in the metric's unit, the mean of all shuffles.
        spread: standard deviation of the shuffles' drops.
    """

    feature: str
    drop: float
    spread: float

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def importance(
    scorer: Scorer, rows: pa.Table, answers: Answers, *, metric: str, most_rows: int, seed: int = 0
) -> list[Importance]:
    """What each feature is worth, the one that is worth most first.

    Args:
        scorer: the model.
        rows: its features, of the rows of `answers`, in that order.
        answers: of the model.
        metric: of the task.
        most_rows: so many rows, chosen at random, are looked at.
        seed: of the choice and of the shuffles.

    Returns:
        One for each feature; none where the metric is not defined on the chosen rows.

    Raises:
        FeatureError: the rows lack a column that the model reads.
    """
    import math

    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(answers.target))[:most_rows])
    part, table = answers.of(chosen), _encoded(rows.take(pa.array(chosen)))
    before = figure(part, metric)
    if math.isnan(before):
        return []
    repeated = np.tile(np.arange(len(chosen)), REPEATS)
    many = table.take(pa.array(repeated)).combine_chunks()
    sign = 1 if metric in LOWER_IS_BETTER else -1
    found = []
    for name in scorer.columns:
        shuffled = np.concatenate([random.permutation(len(chosen)) for _ in range(REPEATS)])
        place = many.schema.get_field_index(name)
        scores = scorer.score(many.set_column(place, name, table.column(name).take(pa.array(shuffled))))
        drops = np.array([sign * (figure(_with(part, each), metric) - before) for each in np.split(scores, REPEATS)])
        found.append(Importance(feature=name, drop=float(drops.mean()), spread=float(drops.std())))
    return sorted(found, key=lambda each: (-each.drop, each.feature))


def _encoded(rows: pa.Table) -> pa.Table:
    """The same rows in one chunk, texts as a dictionary, of which the model looks up each value once."""
    import pyarrow as pa

    columns = [
        column.dictionary_encode() if pa.types.is_string(column.type) else column for column in rows.combine_chunks()
    ]
    return pa.table(columns, names=rows.column_names)


def _with(answers: Answers, scores: Any) -> Answers:
    return Answers(task=answers.task, target=answers.target, scores=scores, classes=answers.classes)

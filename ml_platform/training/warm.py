"""Going on from an earlier model's weights: whether they serve, and what comes with them.

The parent's preprocessing comes along unchanged, although the new rows would give other means and vocabularies: the
weights were learned for its numbers, and a layer's shape follows from it. So a category that the parent never saw
counts as unknown, as it does when the model scores, and a numeric column's scale stays the parent's. Where that will
not do (another class of the label, a column that changed its type, another architecture) training begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ml_platform.errors import TrainingError
from ml_platform.training import model_folder
from ml_platform.training.config import TrainingJob, Warm
from ml_platform.training.fitting import Moments, Partial


class Unsuitable(Exception):
    """The rows do not suit the parent; why, in words."""


@dataclass(frozen=True)
class Started:
    """How training started.

    Args:
        module: the parent's, with its weights; None where training begins anew.
        cold: why it begins anew although a parent was named.
        unknown: by categorical column, how many values of the rows the parent never saw.
    """

    module: nn.Module | None = None
    cold: str = ""
    unknown: Mapping[str, int] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """A JSON object for the history."""
        return {"warm": self.module is not None, "cold": self.cold, "unknown_categories": dict(self.unknown)}

    def describe(self, warm: Warm) -> str:
        """One line for people."""
        if self.module is None:
            return f"begins anew, since {self.cold}"
        return f"goes on from model {warm.parent}, with {len(warm.files)} files"


def parent_of(job: TrainingJob) -> model_folder.LoadedModel | str:
    """The model to go on from; or why it does not serve, whatever the rows are.

    Raises:
        TrainingError: the folder is not a model folder, or is damaged: that is no reason to begin anew.
    """
    assert job.warm is not None
    folder = Path(job.warm.folder)
    record = json.loads((folder / "model.json").read_text())
    for name in ("task", "label", "numeric", "categorical"):
        mine = getattr(job, name)
        if record[name] != (list(mine) if isinstance(mine, tuple) else mine):
            return f"it was trained for another {name}: {record[name]}"
    if "recipe" not in record:
        return "it is an average of several models"
    recipe = job.recipe.identity()
    for name in ("model", "hyperparameters"):
        if record["recipe"][name] != json.loads(json.dumps(recipe[name])):
            return f"it was trained with another {name}: {record['recipe'][name]}"
    try:
        return model_folder.load(folder)
    except TrainingError as error:
        if error.what != model_folder.CANNOT_REBUILD:
            raise
        return f"its weights do not fit the model as it is now ({error.got})"


def started(job: TrainingJob, parent: model_folder.LoadedModel, parts: Sequence[Partial]) -> Started:
    """The start from a parent, once all ranks have summed up their rows.

    Raises:
        Unsuitable: the rows do not suit it.
    """
    total = Partial(parts[0].kinds)
    for part in parts:
        total.merge(part)
    fitted = parent.preprocessing
    kinds = {feature.name: feature.kind for feature in fitted.categorical}
    if job.task != "regression":
        kinds[job.label] = fitted.label.kind
        if new := sorted(map(str, total.values[job.label] - set(fitted.label.classes))):
            raise Unsuitable(f"the label has a class that it never saw: {', '.join(new)}")
    elif total.moments.get(job.label, Moments()).missing:
        raise Unsuitable("the target is infinite in some rows")
    for name, kind in kinds.items():
        if total.kinds[name] != kind:
            raise Unsuitable(f"{name} was of the kind {kind} and is {total.kinds[name]} now")
    unknown = {f.name: len(total.values[f.name] - set(f.values)) for f in fitted.categorical}
    return Started(module=parent.module, unknown={name: count for name, count in unknown.items() if count})

"""Several models as one whose answer is the mean of theirs, in a model folder like any other.

    model.json           `average`: name and recipe of each member, in their order; else what every model has there
    preprocessing.json   of the first member: all were fitted on the same rows, so it is every member's
    weights.safetensors  the members' weights one behind the other

Probabilities are averaged, with equal weights, and so is what a regression predicts: with a convex loss (log loss,
squared error) the mean is never worse than its members are on the average, by Jensen's inequality.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch import nn

from ml_platform.errors import TrainingError
from ml_platform.files import sha256
from ml_platform.training import model_folder
from ml_platform.training.model_folder import LoadedModel
from ml_platform.training.preprocessing import Preprocessing
from ml_platform.training.result import CONTENT, RESULT

AVERAGE = "average"
"""In model.json of an ensemble, in the place of `recipe`."""
_SAME = 1e-9
"""Relative. Means over the same rows differ by this much at most, whatever the order in which they were summed."""


class Average(nn.Module):
    """Answers with the mean of what its members answer, as logits again, so that it takes a single model's place.

    Args:
        members: modules that take the same `(numeric, categorical)`.
        task: kind of prediction.
    """

    def __init__(self, members: list[nn.Module], task: str) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.task = task

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        """float64 logits (rows, outputs), of which sigmoid or softmax gives the mean of the members' probabilities.

        The logarithms of the means are taken with log-sum-exp: a probability that rounds to 0 or 1 keeps its logit.
        """
        logits = torch.stack([member(numeric, categorical).double() for member in self.members])
        if self.task == "regression":
            return logits.mean(0)
        if self.task == "multiclass":
            return logits.log_softmax(-1).logsumexp(0) - math.log(len(self.members))
        # Binary: log(mean p) - log(mean (1 - p)); how many there are cancels out.
        return nn.functional.logsigmoid(logits).logsumexp(0) - nn.functional.logsigmoid(-logits).logsumexp(0)


def load(folder: Path) -> LoadedModel:
    """Read a model folder, an ensemble's or any other.

    Raises:
        TrainingError: as `model_folder.load`.
    """
    try:
        record = json.loads((folder / "model.json").read_text())
    except (OSError, ValueError):
        record = {}  # `model_folder.load` says what is wrong
    if AVERAGE not in record:
        return model_folder.load(folder)
    return model_folder.load(folder, _rebuilt)


def _rebuilt(record: Mapping[str, Any], preprocessing: Preprocessing) -> nn.Module:
    recipes = [member["recipe"] for member in record[AVERAGE]]
    inputs = preprocessing.inputs()
    members = [model_folder.build(recipe["model"], inputs, recipe["hyperparameters"]) for recipe in recipes]
    return Average(members, record["task"])


def write(folders: Mapping[str, Path], output: Path) -> Path:
    """Write the model folder of an ensemble. The same members in the same order give the same bytes.

    Args:
        folders: model folders of the members by name, in their order.
        output: where to; must not be there yet.

    Returns:
        `output`.

    Raises:
        TrainingError: a member cannot be loaded, or reads rows otherwise than the first: it was trained on other ones.
    """
    members = {name: model_folder.load(folder) for name, folder in folders.items()}
    (first_name, first), *others = members.items()
    for name, other in others:
        if not _alike(first.preprocessing.to_record(), other.preprocessing.to_record()):
            raise TrainingError(
                "The members of an ensemble were not trained on the same rows.",
                where=f"{first_name}, {name}",
                got="they encode a column in different ways",
                fix="train both on the present training set",
            )
    histories = {name: json.loads((folder / "history.json").read_text()) for name, folder in folders.items()}
    record = {key: value for key, value in first.record.items() if key != "recipe"}
    record[AVERAGE] = [{"name": name, "recipe": member.record["recipe"]} for name, member in members.items()]
    record["parameters"] = sum(member.record["parameters"] for member in members.values())
    output.mkdir(parents=True)
    model_folder.write_json(output / "model.json", {"schema": model_folder.SCHEMA_VERSION, **record})
    shutil.copyfile(folders[first_name] / "preprocessing.json", output / "preprocessing.json")
    average = Average([member.module for member in members.values()], str(record["task"]))
    save_model(average, str(output / "weights.safetensors"))
    model_folder.write_json(output / "history.json", {"schema": model_folder.SCHEMA_VERSION, **history_of(histories)})
    files = {name: sha256(output / name) for name in (*CONTENT, "history.json")}
    model_folder.write_json(output / RESULT, {"schema": model_folder.SCHEMA_VERSION, "files": files})
    return output


def history_of(histories: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The members' histories as one: times are summed, ranks listed. Of a topology in which members differ it has the
    largest number, or each text. It has no epochs of its own: `members` has each one's whole history."""
    first = next(iter(histories.values()))
    topologies = [history["topology"] for history in histories.values()]
    ranks = [{"candidate": name, **rank} for name, history in histories.items() for rank in history["resources"]]
    return {
        "epochs": [],
        "rows": first["rows"],
        **{key: sum(history[key] for history in histories.values()) for key in ("load_seconds", "seconds")},
        "resources": ranks,
        "warm_start": first["warm_start"],
        "topology": {key: _together([topology[key] for topology in topologies]) for key in first["topology"]},
        "members": {name: dict(history) for name, history in histories.items()},
    }


def _together(values: list[Any]) -> Any:
    return " / ".join(dict.fromkeys(values)) if isinstance(values[0], str) else max(values)


def _alike(one: Any, other: Any) -> bool:
    """Whether two records are the same but for the rounding of sums."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_SAME, abs_tol=_SAME)
    return bool(one == other)

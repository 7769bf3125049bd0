"""The model folder: what a finished job leaves, and how it is read. Nothing in it is a pickle.

    model.json           task, label, classes, feature columns, model and hyperparameters: what rebuilds the module
    preprocessing.json   vocabularies, means and deviations
    weights.safetensors  the module's state
    history.json         losses and timings of each epoch, resources, topology
    result.json          written last: the hash of every other file

`CONTENT` are the files that the same job always writes with the same bytes; the other two hold timings.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from ml_platform.errors import TrainingError
from ml_platform.files import flush, sha256
from ml_platform.naming import load_named
from ml_platform.training.config import TrainingJob
from ml_platform.training.model_inputs import ModelInputs
from ml_platform.training.preprocessing import Preprocessing
from ml_platform.training.result import CONTENT, RESULT, FolderResult, read_result

__all__ = [
    "CONTENT",
    "FolderResult",
    "LoadedModel",
    "build",
    "load",
    "read_result",
    "sha256",
    "write",
    "write_json",
]

SCHEMA_VERSION = 1
CANNOT_REBUILD = "The model cannot be rebuilt."


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to score: in evaluation mode, on the CPU."""

    record: Mapping[str, Any]
    preprocessing: Preprocessing
    module: nn.Module


def build(model: str, inputs: ModelInputs, hyperparameters: Mapping[str, Any]) -> nn.Module:
    """Call the model function. Raises TrainingError where it does not return a module."""
    module = load_named(model)(inputs, **hyperparameters)
    if not isinstance(module, nn.Module):
        raise TrainingError("The model function does not return a torch.nn.Module.", where=model, got=type(module))
    return module


def write(
    job: TrainingJob,
    module: nn.Module,
    preprocessing: Preprocessing,
    history: Mapping[str, Any],
    *,
    warm: bool = False,
) -> Path:
    """Write the folder under a temporary name, flush it to disk, and rename it to `job.output`.

    Args:
        job: what was trained.
        module: its weights.
        preprocessing: what its rows went through.
        history: how it went.
        warm: whether it went on from the weights of `job.warm`.
    """
    output = Path(job.output)
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    model = {
        "schema": SCHEMA_VERSION,
        "pipeline": job.pipeline,
        "task": job.task,
        "label": job.label,
        "classes": list(preprocessing.label.classes),
        "numeric": list(job.numeric),
        "categorical": list(job.categorical),
        "recipe": job.recipe.identity(),
        "inputs": asdict(preprocessing.inputs()),
        "parameters": sum(p.numel() for p in module.parameters()),
    }
    if warm and job.warm is not None:
        model["warm_start"] = job.warm.parent
    write_json(draft / "model.json", model)
    write_json(draft / "preprocessing.json", {"schema": SCHEMA_VERSION, **preprocessing.to_record()})
    save_model(module, str(draft / "weights.safetensors"))
    write_json(draft / "history.json", {"schema": SCHEMA_VERSION, **history})
    files = {path.name: sha256(path) for path in sorted(draft.iterdir())}
    write_json(draft / RESULT, {"schema": SCHEMA_VERSION, "files": files})
    for path in [*draft.iterdir(), draft]:
        flush(path)
    shutil.rmtree(output, ignore_errors=True)  # what an earlier, damaged attempt may have left
    draft.rename(output)
    flush(output.parent)
    return output


def _built(record: Mapping[str, Any], preprocessing: Preprocessing) -> nn.Module:
    recipe = record["recipe"]
    return build(recipe["model"], preprocessing.inputs(), recipe["hyperparameters"])


def load(folder: Path, rebuild: Callable[[Mapping[str, Any], Preprocessing], nn.Module] = _built) -> LoadedModel:
    """Read a model folder; `history.json` and `result.json` are not needed.

    Args:
        folder: where it is.
        rebuild: makes the module of what `model.json` says and the preprocessing; its weights are then loaded.

    Raises:
        TrainingError: a file is missing or damaged, or was written by another version of the platform.
    """
    model, preprocessing = (_read_json(folder / name) for name in ("model.json", "preprocessing.json"))
    try:
        fitted = Preprocessing.from_record(preprocessing)
        module = rebuild(model, fitted)
        load_model(module, str(folder / "weights.safetensors"))
    except (KeyError, TypeError, ValueError, OSError, RuntimeError, AttributeError, ImportError) as error:
        raise TrainingError(
            CANNOT_REBUILD,
            where=folder,
            got=f"{type(error).__name__}: {error}",
            fix="the model's code may have changed since it was trained: check out the version that trained it",
        ) from error
    except SafetensorError as error:
        raise TrainingError("The weights are damaged.", where=folder / "weights.safetensors", got=error) from error
    module.eval()
    return LoadedModel(model, fitted, module)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        version = record.pop("schema")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise TrainingError("Not a model folder.", where=path, got=f"{type(error).__name__}: {error}") from error
    if version != SCHEMA_VERSION:
        raise TrainingError(
            "The model was written by another version of the platform.",
            where=path,
            got=f"schema {version}, this one reads {SCHEMA_VERSION}",
            fix="upgrade ml_platform",
        )
    return record


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write one of the folder's JSON files, always with the same bytes for the same record."""
    path.write_text(json.dumps(record, sort_keys=True, indent=1) + "\n")

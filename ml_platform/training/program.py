"""A trained model as a program that needs none of this code: preprocessing, network and answer in one torch.export.

    model.pt2      the program, by `torch.export.save` (https://docs.pytorch.org/docs/stable/export.html)
    program.json   columns in order, vocabularies and classes: what rows are encoded with
    score.py       how to call it, as code that runs: torch and numpy are enough
    README.md      the same in a few words

Encoding is the same arithmetic as `Preprocessing.encode`, in float64 and then float32. A network whose Python branches
on the values of its input cannot be exported; `CannotExportError` says so.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from ml_platform.errors import TrainingError
from ml_platform.training import standalone_score
from ml_platform.training.model_folder import LoadedModel

MODEL, RECORD, CODE, README = "model.pt2", "program.json", "score.py", "README.md"
SCHEMA = 1
"""Of program.json. Raise it when a field changes its meaning or goes."""
_EXAMPLE_ROWS = 7  # neither 0 nor 1, for which an export would make special cases
_TRIED = (1, 3, 64)
"""Rows with which a program is tried."""
_SAME = 1e-9


class CannotExportError(TrainingError):
    """The model cannot be made a program; what torch said of it."""


class Program(nn.Module):
    """Numbers and category codes in, scores out, as `Scorer.score` gives them.

    Args:
        model: ready to score.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        preprocessing = model.preprocessing
        self.module, self.task = model.module, preprocessing.task
        self.label_mean, self.label_std = preprocessing.label.mean, preprocessing.label.std
        self.register_buffer("mean", torch.tensor([f.mean for f in preprocessing.numeric], dtype=torch.float64))
        self.register_buffer("std", torch.tensor([f.std for f in preprocessing.numeric], dtype=torch.float64))
        self.indicators = [place for place, feature in enumerate(preprocessing.numeric) if feature.indicator]

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        """Scores, float64 (rows,) or (rows, classes).

        Args:
            numeric: float64 (rows, numeric features); NaN is missing, and infinite values count as missing.
            categorical: int64 codes (rows, categorical features); 0 is a missing or unknown value.
        """
        finite = numeric.isfinite()
        scaled = ((torch.where(finite, numeric, self.mean) - self.mean) / self.std).float()
        missing = (~finite[:, self.indicators]).float()
        logits: Tensor = self.module(torch.cat([scaled, missing], dim=1), categorical).double()
        if self.task == "multiclass":
            return torch.softmax(logits, 1)
        logits = logits.squeeze(1)
        return logits.sigmoid() if self.task == "binary" else logits * self.label_std + self.label_mean


def export(model: LoadedModel, folder: Path) -> None:
    """Write the program's files into a folder, which is made.

    Raises:
        CannotExportError: torch cannot export the module, or what it exported answers otherwise. Nothing is written.
    """
    program = Program(model).eval()
    try:
        rows = torch.export.Dim("rows")
        exported = torch.export.export(
            program, _rows(model, _EXAMPLE_ROWS), dynamic_shapes={"numeric": {0: rows}, "categorical": {0: rows}}
        )
        wrong = _difference(program, exported.module(), model)
    except Exception as error:  # torch raises whatever the user's forward or its own tracing does
        lines = str(error).strip().splitlines() or [""]
        raise CannotExportError(
            "The model cannot be exported as a program.",
            where=str(model.record.get("recipe", {}).get("model", "an ensemble")),
            got=f"{type(error).__name__}: {lines[0]}",
            fix="let forward not branch on values of its input; see torch.export",
        ) from error
    if not wrong <= _SAME:  # nor not-a-number
        raise CannotExportError("The exported program answers otherwise than the model.", got=f"by up to {wrong:.3g}")
    for node in exported.graph.nodes:  # where it was traced: paths of this machine
        node.meta.pop("stack_trace", None)
    folder.mkdir(parents=True)
    torch.export.save(exported, folder / MODEL)
    preprocessing = model.preprocessing
    record = {
        "schema": SCHEMA,
        "task": preprocessing.task,
        "numeric": [feature.name for feature in preprocessing.numeric],
        "categorical": [{"name": f.name, "kind": f.kind, "values": list(f.values)} for f in preprocessing.categorical],
        "label": preprocessing.label.name,
        "classes": list(preprocessing.label.classes),
        "torch": torch.__version__,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    shutil.copyfile(str(standalone_score.__file__), folder / CODE)
    (folder / README).write_text(_readme(model))


def _rows(model: LoadedModel, count: int) -> tuple[Tensor, Tensor]:
    """Made-up rows, the same each time: about the training rows' mean, some values missing, every kind of code."""
    random = torch.Generator().manual_seed(count)
    numeric, categorical = model.preprocessing.numeric, model.preprocessing.categorical
    mean = torch.tensor([feature.mean for feature in numeric], dtype=torch.float64)
    std = torch.tensor([feature.std for feature in numeric], dtype=torch.float64)
    values = torch.randn((count, len(numeric)), generator=random, dtype=torch.float64) * std + mean
    values[torch.rand(values.shape, generator=random) < 0.1] = torch.nan
    codes = [torch.randint(len(f.values) + 1, (count,), generator=random) for f in categorical]
    return values, torch.stack(codes, 1) if codes else torch.empty((count, 0), dtype=torch.int64)


def _difference(program: Program, exported: nn.Module, model: LoadedModel) -> float:
    """How far the exported program is from the model, relative to the size of its answers, for several row counts."""
    found = 0.0
    with torch.inference_mode():
        for count in _TRIED:
            own, other = (each(*_rows(model, count)) for each in (program, exported))
            found = max(found, float(((own - other).abs() / own.abs().clamp(min=1.0)).max()))
    return found


def _readme(model: LoadedModel) -> str:
    columns = ", ".join(model.preprocessing.columns)
    return f"""# A model that runs without the code that trained it

It needs torch {torch.__version__.partition("+")[0]} (or later) and numpy:

    from score import score
    print(score({{"column": [values, ...], ...}}))

Columns: {columns}. A missing number is None or NaN, a missing category None; an unknown category counts as missing.
`score.py` says what the answer is, and how `model.pt2` is called without it; `program.json` has the vocabularies.
"""

"""Scores raw feature rows with the exported program beside this file; needs torch and numpy, and nothing else.

    from score import score
    score({"size": [1.5, None], "maker": ["x", "y"]})

`model.pt2` (torch.export) takes two tensors: numbers, float64 (rows, numeric columns), NaN where one is missing; and
category codes, int64 (rows, categorical columns), the place in the vocabulary of `program.json` from 1, 0 for a missing
or unknown value. Normalisation is inside. It returns float64: (rows,) probabilities of the last class (binary) or
predictions in the label's unit (regression), or (rows, classes) probabilities.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent


def score(columns: Mapping[str, Sequence[Any]], folder: Path = HERE) -> np.ndarray:
    """Score rows, given as columns by name; others than the program's are ignored. A KeyError names a missing one."""
    program = json.loads((folder / "program.json").read_text())
    rows = len(columns[(program["numeric"] + [each["name"] for each in program["categorical"]])[0]])
    numeric = np.empty((rows, len(program["numeric"])))
    for place, name in enumerate(program["numeric"]):
        numeric[:, place] = [math.nan if value is None else value for value in columns[name]]
    codes = np.empty((rows, len(program["categorical"])), dtype=np.int64)
    for place, category in enumerate(program["categorical"]):
        known = {value: code for code, value in enumerate(category["values"], start=1)}
        codes[:, place] = [known.get(_plain(value, category["kind"]), 0) for value in columns[category["name"]]]
    module = torch.export.load(folder / "model.pt2").module()
    with torch.inference_mode():
        scores: np.ndarray = module(torch.from_numpy(numeric), torch.from_numpy(codes)).numpy()
    return scores


def _plain(value: Any, kind: str) -> Any:
    """A category as the vocabulary has it; None where it is missing. A whole number's text is its digits."""
    if value is None or value != value:
        return None
    if kind != "string":
        return bool(value) if kind == "boolean" else int(value)
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    return str(value) if isinstance(value, str) else str(int(value))

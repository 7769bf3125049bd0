"""A part of the rows on which a model is bad is named; a bound that holds in every slice is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.evaluation.declaration import ModelGate
from ml_platform.evaluation.intervals import Answers, intervals
from ml_platform.evaluation.slices import MISSING, Slice, described, slices

ROWS = 6000


def looked_at(gate: ModelGate, *, bad: float = 0.0, metric: str = "roc_auc") -> list[Slice]:
    """Slices by carrier and by a column with one value; the scores of carrier "HA" are noise by a share `bad`."""
    random = np.random.default_rng(4)
    carrier = random.choice(["AA", "DL", "HA", "ZZ", None], ROWS, p=[0.4, 0.35, 0.2, 0.01, 0.04])
    scores = random.random(ROWS)
    target = (random.random(ROWS) < scores).astype(int)
    noise = (carrier == "HA") & (random.random(ROWS) < bad)
    scores = np.where(noise, random.random(ROWS), scores)
    answers = Answers(task="binary", target=target, scores=scores, classes=(0, 1))
    columns = {
        "carrier": pa.chunked_array([pa.array(carrier[:1000].tolist()), pa.array(carrier[1000:].tolist())]),
        "year": pa.chunked_array([pa.array(["2013"] * ROWS)]),
    }
    overall = intervals(answers, draws=200, metrics=[metric])[metric]
    return slices(
        answers, columns, metric=metric, overall=overall, gate=gate, baseline=replace(answers, scores=1 - scores)
    )


def test_slices_are_the_values_with_enough_rows_and_a_single_value_is_none() -> None:
    found = looked_at(ModelGate())
    assert {slice_.value for slice_ in found} == {"AA", "DL", "HA", MISSING}
    assert {slice_.column for slice_ in found} == {"carrier"}
    assert not any(slice_.bad for slice_ in found)
    assert all(slice_.low < slice_.figure < slice_.high for slice_ in found)
    assert all(slice_.baseline == pytest.approx(1 - slice_.figure) for slice_ in found), "that of scores turned round"
    assert described(found) == ""
    assert {slice_.value for slice_ in looked_at(ModelGate(slice_rows=30))} == {"AA", "DL", "HA", "ZZ", MISSING}


def test_the_part_on_which_a_model_is_bad_comes_first_and_is_named() -> None:
    found = looked_at(ModelGate(), bad=0.9)
    assert [slice_.value for slice_ in found if slice_.bad] == ["HA"]
    assert found[0].value == "HA"
    assert not found[0].rejects
    assert "carrier HA" in described(found)
    assert "beyond noise" in described(found)


def test_of_an_error_measure_less_is_better() -> None:
    found = looked_at(ModelGate(), bad=0.9, metric="log_loss")
    assert [slice_.value for slice_ in found if slice_.bad] == ["HA"]
    assert found[0].figure == max(slice_.figure for slice_ in found)


def test_a_bound_in_every_slice_rejects_where_it_is_missed_beyond_noise() -> None:
    found = looked_at(ModelGate(slice_bound=0.7), bad=0.9)
    assert [slice_.value for slice_ in found if slice_.rejects] == ["HA"]
    assert "roc_auc >= 0.7" in found[0].bad
    just = looked_at(ModelGate()), 0.001
    missed = [slice_ for slice_ in looked_at(ModelGate(slice_bound=just[0][0].figure + just[1])) if slice_.rejects]
    assert missed == [], "within its interval a slice may be as good as the bound"

"""Every look at a model, for each task: all that is kept is plain JSON, and what is not known stops nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_platform.evaluation.constant import constant
from ml_platform.evaluation.declaration import ModelGate, Threshold
from ml_platform.evaluation.figures import figures
from ml_platform.evaluation.intervals import Answers, intervals
from ml_platform.evaluation.report import NOT_KNOWN, report
from ml_platform.pipeline import MORE_METRICS
from ml_platform.stages import looks
from ml_platform.training.model_folder import LoadedModel, build
from ml_platform.training.preprocessing import Categorical, Label, Numeric, Preprocessing
from ml_platform.training.scoring import Scorer
from ml_platform_tests.registry.trained import declare, rows

ROWS = 900
LABELS: dict[str, Label] = {
    "binary": Label("late", "integer", (0, 1)),
    "multiclass": Label("grade", "string", ("fair", "good", "poor")),
    "regression": Label("price", "float", (), 0.0, 10.0),
}
SCORED = {"binary": (ROWS,), "multiclass": (ROWS, 3), "regression": (ROWS,)}


def untrained(task: str) -> Scorer:
    """A network of the toy's shape with the weights that it begins with."""
    preprocessing = Preprocessing(
        task=task,  # type: ignore[arg-type]
        numeric=(Numeric("size", 0.0, 1.0, True), Numeric("age", 25.0, 14.0, False)),
        categorical=(Categorical("maker", "string", ("x", "y")), Categorical("place", "integer", tuple(range(9)))),
        label=LABELS[task],
    )
    module = build("ml_platform.training.models:mlp", preprocessing.inputs(), {"hidden": [8], "embedding": 2})
    return Scorer(LoadedModel(record={}, preprocessing=preprocessing, module=module.eval()))


def subject(task: str, scores: Any = None) -> looks.Subject:
    """The toy's rows in three batches, the first of which is of one class; scores follow the label a little."""
    label = LABELS[task].name
    gate = ModelGate(draws=100, slice_rows=60, importance_rows=300)
    pipeline = replace(declare(task, label, name=f"toy_{task}"), model_gate=gate)
    table = rows(ROWS, 5).sort("grade").to_arrow()
    target = table.column(label).to_numpy()
    random = np.random.default_rng(3)
    if scores is None and task == "regression":
        scores = target + random.normal(0, 5, ROWS)
    elif scores is None and task == "binary":
        scores = 1 / (1 + np.exp(-(2 * target - 1) - random.normal(0, 1, ROWS)))
    elif scores is None:
        likely = np.eye(3)[[LABELS[task].classes.index(value) for value in target.tolist()]]
        scores = random.dirichlet([1, 1, 1], ROWS) / 2 + likely / 2
    answers = Answers(task=pipeline.task, target=target, scores=scores, classes=LABELS[task].classes or None)
    return looks.Subject(
        pipeline=pipeline,
        answers=answers,
        baseline=answers,
        constant=constant(answers, target),
        columns={name: table.column(name) for name in looks.kept(pipeline)},
        batches={"fair": 100, "more": 400, "rest": 400},
        around=intervals(answers, draws=100),
        scorer=untrained(task),
    )


def facts_of(given: looks.Subject, scratch: Path) -> dict[str, Any]:
    """What an evaluation keeps of every look, as it comes back from a manifest; and its figures."""
    found = list(looks.look(given, scratch))
    around = {**given.around}
    for each in found:
        around |= each.intervals
    declared = {check.name: check.blocking for check in looks.checks(given.pipeline)}
    assert {each.check.name for each in found if each.check} == declared.keys()
    assert all(declared[each.check.name] for each in found if each.check and each.rejects)
    assert {each.file.name for each in found if each.file} <= {*looks.FILES}
    assert all(json.loads(each.file.read_text()) is not NotImplemented for each in found if each.file)
    told = {name: fact for each in found for name, fact in each.facts.items()}
    # No not-a-number: a browser's JSON has none.
    kept: dict[str, Any] = json.loads(json.dumps(told, allow_nan=False))
    return {
        **kept,
        "task": given.answers.task,
        "metric": given.metric,
        "metrics": figures(given.answers, Threshold()),
        "constant": figures(given.constant, Threshold()),
        "intervals": {name: [part.low, part.high] for name, part in around.items()},
        "gates": [],
    }


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_model_that_knows_something_is_told_of_in_every_way(task: str, tmp_path: Path) -> None:
    given = subject(task)
    facts = facts_of(given, tmp_path)
    assert facts["beats_constant"]["passed"]
    assert {*MORE_METRICS[given.answers.task]} <= facts["intervals"].keys()
    assert [row["batch"] for row in facts["over_time"]] == ["fair", "more", "rest"]
    assert {row["feature"] for row in facts["importance"]} == {"size", "age", "maker", "place"}
    assert facts["slices"]
    assert ("threshold" in facts) == (task == "binary")
    assert ("classes" in facts) == (task == "multiclass")
    assert ("calibration" in facts) == (task != "regression")
    again = facts_of(given, tmp_path)
    assert again == facts
    page = report(facts)
    assert "Surely better than the constant predictor" in page
    assert "### Over time" in page


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_scores_that_are_no_numbers_are_told_as_not_known(task: str, tmp_path: Path) -> None:
    facts = facts_of(subject(task, np.full(SCORED[task], np.nan)), tmp_path)
    assert not facts["beats_constant"]["passed"]
    assert facts["importance"] == []
    assert facts["found_slices"]["looks"] == 0
    assert all(row["figure"] is None for row in facts["over_time"])
    assert NOT_KNOWN in report(facts)


def test_a_model_that_says_the_same_of_all_does_not_beat_the_constant(tmp_path: Path) -> None:
    found = {
        each.check.name: each.check
        for each in looks.look(subject("binary", np.full(ROWS, 0.4)), tmp_path)
        if each.check
    }
    check = found[looks.CONSTANT]
    assert not check.passed
    assert check.warn, "it is told, and keeps nothing out"
    assert "not surely better" in check.description

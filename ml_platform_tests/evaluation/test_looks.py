"""Beside a constant, over time, feature by feature, on one page and in pictures; what is not known is said so."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ml_platform.evaluation import drawing
from ml_platform.evaluation.constant import constant
from ml_platform.evaluation.declaration import ModelGate, Threshold
from ml_platform.evaluation.figures import figures
from ml_platform.evaluation.gallery import pictures
from ml_platform.evaluation.importance import importance
from ml_platform.evaluation.intervals import Answers, figure, intervals
from ml_platform.evaluation.over_time import over_time
from ml_platform.evaluation.report import NOT_KNOWN, metric_rows, report
from ml_platform.evaluation.threshold import threshold
from ml_platform.pipeline import METRICS
from ml_platform_tests.evaluation.test_intervals import answers
from ml_platform_tests.registry.trained import Trained, rows

GATE = ModelGate(draws=100, slice_rows=50)


def test_the_constant_says_what_the_training_labels_say() -> None:
    given = answers("binary")
    told = constant(given, np.array(["late"] * 30 + ["early"] * 70))
    assert (told.scores == 0.3).all()
    assert figure(told, "roc_auc") == 0.5
    assert figure(told, "average_precision") == pytest.approx((given.target == "late").mean())
    many = constant(answers("multiclass"), np.array(["c", "a", "a", "b"]))
    assert many.scores[0].tolist() == [0.5, 0.25, 0.25]
    unseen = constant(answers("multiclass"), np.array(["a", "a", "b"]))
    assert unseen.scores[0].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    price = constant(answers("regression"), np.array([1.0, 2.0, 6.0]))
    assert (price.scores == 3).all()


def test_a_metric_by_batch_is_that_of_the_batchs_rows_and_one_class_is_not_known() -> None:
    given = answers("binary")
    given = replace(given, target=np.where(np.arange(600) < 200, "early", given.target))
    found = over_time(given, {"d1": 200, "none": 0, "d2": 300, "d3": 100}, metric="roc_auc", gate=GATE, baseline=given)
    assert [row["batch"] for row in found] == ["d1", "d2", "d3"]
    assert found[0] == {"batch": "d1", "rows": 200, "figure": None, "low": None, "high": None, "baseline": None}
    assert found[1]["figure"] == figure(given.of(np.arange(200, 500)), "roc_auc") == found[1]["baseline"]
    assert found[2]["low"] < found[2]["figure"] < found[2]["high"]


def test_a_feature_that_the_label_follows_from_is_worth_most_and_a_seed_repeats_it(trained: Trained) -> None:
    table = rows(1500, 21).to_arrow()
    given = Answers(
        task="binary", target=table.column("late").to_numpy(), scores=trained.scorer.score(table), classes=(0, 1)
    )

    def found(seed: int) -> dict[str, float]:
        told = importance(trained.scorer, table, given, metric="roc_auc", most_rows=1000, seed=seed)
        return {each.feature: each.drop for each in told}

    once = found(0)
    assert list(once) == sorted(once, key=lambda name: -once[name])
    assert {*once} == {*trained.pipeline.features.columns}
    assert next(iter(once)) == "size"
    assert once["size"] > 0.05
    assert abs(once["place"]) < 0.03
    assert found(0) == once
    assert found(1) != once
    shuffled = importance(trained.scorer, table, given, metric="log_loss", most_rows=1000)
    assert shuffled[0].feature == "size"
    assert shuffled[0].drop > 0, "of an error measure too, more is worse"


def test_importance_is_not_told_where_the_metric_is_not_defined(trained: Trained) -> None:
    table = rows(300, 21).to_arrow()
    one = Answers(task="binary", target=np.zeros(300, int), scores=trained.scorer.score(table), classes=(0, 1))
    assert importance(trained.scorer, table, one, metric="roc_auc", most_rows=200) == []


def facts_of(given: Answers, beside: Answers) -> dict[str, Any]:
    """Facts as an evaluation keeps them."""
    metric = METRICS[given.task][0]
    around = intervals(given, draws=100)
    facts: dict[str, Any] = {
        "task": given.task,
        "metric": metric,
        "metrics": figures(given, Threshold()),
        "intervals": {name: [part.low, part.high] for name, part in around.items()},
        "baseline": figures(beside, Threshold()),
        "constant": figures(beside, Threshold()),
        "gates": [{"name": f"{metric} >= 0.5", "value": 0.7, "passed": True}],
        "beats_constant": {"metric": metric, "gain": 0.1, "low": None, "high": None, "passed": False},
        "over_time": over_time(given, {"a": 200, "b": 200, "c": 200}, metric=metric, gate=GATE, baseline=beside),
        "importance": [{"feature": "x|y", "drop": 0.1, "spread": 0.01}],
        "slices": [
            {
                "column": "c",
                "value": "v",
                "rows": 60,
                "figure": 0.5,
                "low": 0.4,
                "high": 0.6,
                "baseline": None,
                "bad": "",
            }
        ],
        "found_slices": {"loss": "log loss", "looks": 17, "slices": []},
    }
    if given.task == "binary":
        facts["threshold"] = threshold(given, Threshold(), draws=100).record()
    return facts


TITLES = {
    "binary": {"ROC", "Precision and recall", "Reliability", "Scores", "Confusion"},
    "multiclass": {"Confusion of the model", "Confusion of the baseline", "Reliability", "Precision and recall"},
    "regression": {"Predicted and actual", "Errors"},
}


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_each_task_has_its_pictures_and_its_page(task: str) -> None:
    given, beside = answers(task), answers(task, seed=0)
    facts = facts_of(given, beside)
    drawn = pictures({"model": given, "baseline": beside}, facts, METRICS[given.task][0])
    assert {*drawn} == TITLES[task] | {"By batch", "Feature importance", "Slices"}
    for png in drawn.values():
        image = Image.open(io.BytesIO(png))
        image.load()
        assert image.size == drawing.SIZE
        assert len(png) < 30_000
        assert len(image.convert("RGB").getcolors(100_000) or []) > 5, "not an empty sheet"
    assert pictures({"model": given, "baseline": beside}, facts, METRICS[given.task][0]) == drawn, "the same bytes"
    page = report(facts, [drawing.markdown(b"\x89PNG", "roc")])
    assert [row["metric"] for row in metric_rows(facts)] == [*facts["metrics"]]
    assert f"| {METRICS[given.task][0]} | {facts['metrics'][METRICS[given.task][0]]:.4f} |" in page
    assert "Not surely better than" in page
    assert f"| c v | 60 | 0.5000 | 0.4000 to 0.6000 | {NOT_KNOWN} |" in page
    assert r"x\|y" in page, "a bar within a cell"
    assert "17 values, ranges and pairs were looked at" in page
    assert page.endswith("![roc](data:image/png;base64,iVBORw==)")


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_model_of_which_nothing_is_known_has_a_page_too(task: str) -> None:
    given = answers(task)
    broken = replace(given, scores=given.scores * np.nan)
    facts = facts_of(broken, broken)
    drawn = pictures({"model": broken, "baseline": given}, facts, METRICS[given.task][0])
    assert not {*drawn} & TITLES[task]
    assert f"{NOT_KNOWN} in any of 3 batches" in report(facts)


def test_a_holdout_of_one_class_is_told_as_far_as_it_goes() -> None:
    given = answers("binary")
    one = replace(given, target=np.full(600, "early"))
    facts = facts_of(one, one)
    drawn = pictures({"model": one, "baseline": one}, facts, "roc_auc")
    assert "ROC" in drawn
    assert "Confusion" not in drawn, "there is no threshold"
    assert f"| roc_auc | {NOT_KNOWN} | {NOT_KNOWN} |" in report(facts)
    assert f"It is {NOT_KNOWN}: no threshold gives the best F1" in report(facts)


def test_a_page_says_that_rows_are_too_few_that_there_are_no_slices_and_a_batch_once() -> None:
    given = answers("binary")
    facts = facts_of(given, given) | {"slices": [], "too_few": "only 3 of 600 rows are positive"}
    facts["over_time"] = over_time(given, {"a": 300, "b": 300}, metric="roc_auc", gate=GATE)
    page = report(facts)
    assert "Too few rows to tell how sure this is: only 3 of 600 rows are positive." in page
    assert "### Slices by column, the worst\n\nNone: " in page
    told = page[page.index("### Over time") :].split("###")[1]
    assert [told.count(f"| {batch} | 300 |") for batch in "ab"] == [1, 1]
    assert ("| first, least |" in told) != ("| first, most |" in told)

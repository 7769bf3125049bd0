"""A pipeline that is declared wrongly is refused when it is defined, with the reason; not after five hours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ml_platform.errors import DeclarationError
from ml_platform.pipeline import DailyBatches, Features, MetricGate, NamedBatches, Pipeline, Recipe, Source, Split
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE

HERE = "ml_platform.pipelines.nyc_flights"
MODEL = "ml_platform.training.models:mlp"


def source(**changes: Any) -> Source:
    return Source(**{"name": "flights", "schema": f"{HERE}.schema:Flights", **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"label": "lateness"}, "never names the label"),
        ({"label": "distance"}, "also declared as a feature"),
        ({"name": "NYC flights"}, "lower-case"),
        ({"name": "../flights"}, "lower-case"),
        ({"sources": ()}, "at least one source"),
        ({"sources": (source(), source())}, "one name"),
        ({"sources": (source(name="raw_batch"),)}, "reserved"),
        ({"sources": (source(known_later=("distance",)),)}, "known only later"),
        ({"task": "ranking"}, "Unknown task"),
        ({"gates": (MetricGate(metric="rmse", at_most=1),)}, "no such metric"),
        (
            {"split": Split.between(train=("2013-01-01", "2013-05-31"), holdout=("2013-06-01", "2014-01-01"))},
            "2014-01-01",
        ),
        ({"leakage_limit": 0.2}, "leakage limit"),
        ({"owners": ("somebody",)}, "e-mail address or team:name"),
        ({"sample_data": f"{HERE}.data:nothing"}, "nothing of that name"),
    ],
)
def test_a_wrong_pipeline_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(DeclarationError, match=says):
        replace(PIPELINE, **changes)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: source(schema="ml_platform.no_such_module:Flights"), "no such module"),
        (lambda: source(schema=f"{HERE}.schema:Fligths"), "nothing of that name"),
        (lambda: source(schema="Flights"), "module:attribute"),
        (lambda: source(format="xlsx"), "Unknown format"),
        (lambda: Features(function=f"{HERE}.features:build"), "at least one feature"),
        (lambda: Features(function=f"{HERE}.features:build", numeric=("a",), categorical=("a",)), "declared twice"),
        (lambda: Features(function=f"{HERE}.features:build", numeric=("batch",)), "platform's column"),
        (lambda: Features(function=f"{HERE}.features:build", numeric=("a",), lookback=-1), "look-back"),
        (lambda: Recipe(model=MODEL, batch_size=101, processes=2), "divide evenly"),
        (lambda: Recipe(model=MODEL, epochs=0), "at least 1"),
        (lambda: Recipe(model=MODEL, learning_rate=float("nan")), "must be positive"),
        (lambda: Recipe(model="ml_platform.training.models:transformer"), "nothing of that name"),
        (lambda: Split.between(train=("2013-01-01", "2013-06-01"), holdout=("2013-06-01", "2013-06-30")), "overlaps"),
        (lambda: Split.between(train=("2013-06-01", "2013-06-30"), holdout=("2013-01-01", "2013-01-31")), "overlaps"),
        (
            lambda: Split.between(train=("2013-02-01", "2013-01-01"), holdout=("2013-06-01", "2013-06-30")),
            "after its last",
        ),
        (lambda: Split.rolling(holdout=0), "from 1"),
        (lambda: MetricGate(metric="roc_auc"), "one bound"),
        (lambda: DailyBatches(start="2013-02-30"), "ISO date"),
        (lambda: DailyBatches(start="2013-02-01", end="2013-01-01"), "before the first"),
        (lambda: DailyBatches(start="2013-02-01", timezone="Mars/Olympus"), "time zone"),
    ],
)
def test_a_wrong_part_is_refused(make: Any, says: str) -> None:
    with pytest.raises(DeclarationError, match=says):
        make()


def test_an_error_says_what_where_what_it_got_and_what_to_do() -> None:
    with pytest.raises(DeclarationError) as caught:
        replace(PIPELINE, gates=(MetricGate(metric="rmse", at_most=1),))
    text = str(caught.value)
    assert "where: Pipeline 'nyc_flights'" in text
    assert "got:   rmse" in text
    assert "fix:   one of roc_auc" in text


@pytest.mark.parametrize("name", ["../other", "a/b", "/etc/passwd", "", ".hidden", "a..b", "x" * 101, "a b"])
def test_a_batch_name_cannot_leave_its_folder(name: str) -> None:
    assert not NamedBatches().accepts(name)
    assert not DailyBatches(start="2013-01-01").accepts(name)


def test_a_day_outside_the_pipelines_days_is_not_accepted() -> None:
    days = DailyBatches(start="2013-01-01", end="2013-01-31")
    assert days.accepts("2013-01-31")
    assert [d for d in ("2012-12-31", "2013-02-01", "2013-1-1", "20130101", "2013-01-32") if days.accepts(d)] == []


def test_a_fixed_split_keeps_time_order_and_leaves_the_rest_out() -> None:
    split = Split.between(train=("b", "d"), holdout=("e", "f"))
    assert split.divide(["f", "a", "e", "d", "c", "g"]) == (["c", "d"], ["e", "f"])


def test_a_rolling_split_moves_with_the_data() -> None:
    split = Split.rolling(train=2, holdout=1)
    assert split.divide(list("abcd")) == (["b", "c"], ["d"])
    assert split.divide(list("abcde")) == (["c", "d"], ["e"])
    assert Split.rolling(holdout=2).divide(list("abcd")) == (["a", "b"], ["c", "d"])


def test_not_a_number_passes_no_gate() -> None:
    assert not MetricGate(metric="roc_auc", at_least=0.0).passes(float("nan"))
    assert not MetricGate(metric="log_loss", at_most=9.0).passes(float("nan"))


def test_a_declaration_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        f"import sys, {HERE}.pipeline; print([m for m in ('torch','pyspark','pandera','polars') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_pipeline_is_a_pipeline() -> None:
    assert isinstance(PIPELINE, Pipeline)
    assert set(PIPELINE.sources[0].known_later) == {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}

"""A pipeline that is declared wrongly is refused when it is defined, with the reason; not after five hours."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_platform.errors import DeclarationError
from ml_platform.pipeline import (
    DailyBatches,
    Features,
    MetricGate,
    NamedBatches,
    Pipeline,
    Recipe,
    Source,
    Split,
    WarmStart,
)
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE
from ml_platform.stages import stages_of

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
        ({"sample_data": f"{HERE}.schema:Flights"}, "not name a function"),
        ({"sources": source()}, "needs a comma"),
        ({"sources": (PIPELINE.references[0],)}, "must hold Source objects"),
        ({"references": PIPELINE.references[0]}, "needs a comma"),
        ({"gates": MetricGate(metric="roc_auc", at_least=0.7)}, "needs a comma"),
        ({"owners": "team:flights"}, "needs a comma"),
        ({"owners": ("team:",)}, "e-mail address or team:name"),
        ({"owners": (5,)}, "must hold strings"),
        ({"sources": (source(name="batches"),)}, "reserved"),
        ({"tags": {"domain": 5}}, "A tag is a string"),
        ({"tags": {"a domain": "aviation"}}, "no such tag"),
        ({"tags": {"domain": "x" * 64}}, "no such tag"),
        ({"tags": "aviation"}, "mapping of strings"),
        ({"versions": {"featurs": "3"}}, "one of baseline, evaluation, features, planes"),
        ({"versions": {"features": 3}}, "is a text"),
        ({"versions": {"features": " "}}, "is a text"),
        ({"versions": "3"}, "mapping of stages"),
        ({"leakage_limit": "0.9"}, "leakage limit"),
        ({"leakage_limit": True}, "leakage limit"),
        ({"gates": (MetricGate(metric="roc_auc", at_least=70),)}, "0 to 1"),
        ({"gates": (MetricGate(metric="brier", at_most=-0.1),)}, "0 to 1"),
        (
            {"gates": (MetricGate(metric="roc_auc", at_least=0.6), MetricGate(metric="roc_auc", at_most=0.9))},
            "Two gates",
        ),
        ({"name": 5}, "lower-case"),
        ({"label": ["late"]}, "must be a string"),
        ({"task": ["binary"]}, "must be a string"),
        ({"batches": "daily"}, "must be a DailyBatches or NamedBatches"),
        ({"features": None}, "must be a Features"),
        ({"recipe": {}}, "must be a Recipe"),
        ({"split": None}, "must be a Split"),
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
        (lambda: Features(function=f"{HERE}.features:build", numeric=("a",), lookback=1.5), "look-back"),
        (lambda: Features(function=f"{HERE}.features:build", numeric=("a",), lookback=True), "look-back"),
        (lambda: Features(function=f"{HERE}.features:build", numeric=("a")), "needs a comma"),
        (lambda: Features(function=f"{HERE}.features:build", categorical=("a")), "needs a comma"),
        (lambda: Features(function=f"{HERE}.features:build", numeric=("a",), keys=("b")), "needs a comma"),
        (lambda: Features(function=f"{HERE}.schema:AIRPORTS", numeric=("a",)), "not name a function"),
        (lambda: Features(function="ml_platform.settings:_absolute", numeric=("a",)), "nothing of that name"),
        (lambda: Features(function=None, numeric=("a",)), "module:attribute"),
        (lambda: source(schema=f"{HERE}.features:build"), "not name a schema"),
        (lambda: source(name=None), "lower-case"),
        (lambda: source(format=["csv"]), "Unknown format"),
        (lambda: source(known_later=("dep_delay")), "needs a comma"),
        (lambda: source(known_later=("dep_dealy",)), "names no such column"),
        (
            lambda: source(schema="ml_platform_tests.tiny_pipeline.schema:Readings", known_later=("x",)),
            "no such column",
        ),
        (lambda: Recipe(model=MODEL, batch_size=101, processes=2), "divide evenly"),
        (lambda: Recipe(model=MODEL, epochs=0), "at least 1"),
        (lambda: Recipe(model=MODEL, epochs=True), "whole number"),
        (lambda: Recipe(model=MODEL, epochs=2.0), "whole number"),
        (lambda: Recipe(model=MODEL, batch_size="128"), "whole number"),
        (lambda: Recipe(model=MODEL, processes=None), "whole number"),
        (lambda: Recipe(model=MODEL, threads=[1]), "whole number"),
        (lambda: Recipe(model=MODEL, memory_mib=0), "at least 1"),
        (lambda: Recipe(model=MODEL, seed=-1), "at least 0"),
        (lambda: Recipe(model=MODEL, seed="7"), "whole number"),
        (lambda: Recipe(model=MODEL, seed=2**32), "at most"),
        (lambda: Recipe(model=MODEL, timeout_seconds=0), "time limit is positive"),
        (lambda: Recipe(model=MODEL, gpu_hours=float("inf")), "cost ceiling is positive"),
        (lambda: Recipe(model=MODEL, precision="half"), "(?s)no such precision.*bfloat16"),
        (lambda: Recipe(model=MODEL, compile="yes"), "must be a bool"),
        (lambda: Recipe(model=MODEL, learning_rate=float("nan")), "must be positive"),
        (lambda: Recipe(model=MODEL, learning_rate=float("inf")), "finite"),
        (lambda: Recipe(model=MODEL, learning_rate="fast"), "must be positive"),
        (lambda: Recipe(model=MODEL, warmup="0.1"), "0 to 1"),
        (lambda: Recipe(model=MODEL, optimizer="Adamm"), "no such optimizer"),
        (lambda: Recipe(model=MODEL, optimizer="lr_scheduler"), "no such optimizer"),
        (lambda: Recipe(model=MODEL, optimizer=None), "must be a string"),
        (lambda: Recipe(model=MODEL, hyperparameters={"hiden": [8]}), "(?s)no such hyperparameter.*hiden.*hidden"),
        (lambda: Recipe(model=MODEL, hyperparameters={"inputs": 1}), "no such hyperparameter"),
        (lambda: Recipe(model=MODEL, hyperparameters={"dropout": float("nan")}), "JSON"),
        (lambda: Recipe(model=MODEL, hyperparameters={"hidden": {8, 4}}), "JSON"),
        (lambda: Recipe(model=MODEL, hyperparameters=[1]), "mapping"),
        (lambda: Recipe(model=MODEL, hyperparameters={1: 2}), "mapping"),
        (lambda: Recipe(model=MODEL, optimizer_options={"betas": object()}), "JSON"),
        (lambda: Recipe(model=MODEL, loss="ml_platform.pipeline:METRICS"), "not name a function"),
        (lambda: Recipe(model="ml_platform.pipeline:METRICS"), "not name a function"),
        (lambda: Recipe(model="ml_platform.training.models:transformer"), "nothing of that name"),
        (lambda: Split.between(train=("2013-01-01", "2013-06-01"), holdout=("2013-06-01", "2013-06-30")), "overlaps"),
        (lambda: Split.between(train=("2013-06-01", "2013-06-30"), holdout=("2013-01-01", "2013-01-31")), "overlaps"),
        (
            lambda: Split.between(train=("2013-02-01", "2013-01-01"), holdout=("2013-06-01", "2013-06-30")),
            "after its last",
        ),
        (lambda: Split.rolling(holdout=0), "from 1"),
        (lambda: Split.rolling(holdout=1.5), "from 1"),
        (lambda: Split.rolling(train="3", holdout=1), "from 1"),
        (lambda: Split(), "one of the two"),
        (lambda: Split(train=("a", "b")), "one of the two"),
        (lambda: Split(train_batches=3), "one of the two"),
        (lambda: Split(train=("a", "b"), holdout=("c", "d"), holdout_batches=1), "one of the two"),
        (lambda: Split(train=("a", "b"), holdout=("c", "d"), train_batches=1), "one of the two"),
        (lambda: Split(train=("a", "b"), holdout_batches=1), "one of the two"),
        (lambda: Split(train=("a", "c"), holdout=("b", "d")), "overlaps"),
        (lambda: Split(train_batches=0, holdout_batches=1), "from 1"),
        (lambda: Split.between(train="ab", holdout=("c", "d")), "must be a tuple"),
        (lambda: Split.between(train=("a",), holdout=("c", "d")), "two names"),
        (lambda: Split.between(train=(1, 2), holdout=(3, 4)), "must hold strings"),
        (lambda: MetricGate(metric="roc_auc"), "one bound"),
        (lambda: MetricGate(metric="roc_auc", at_least=True), "finite number"),
        (lambda: MetricGate(metric="roc_auc", at_least="0.7"), "finite number"),
        (lambda: MetricGate(metric="rmse", at_most=float("nan")), "finite number"),
        (lambda: MetricGate(metric="rmse", at_most=float("inf")), "finite number"),
        (lambda: MetricGate(metric=None, at_most=1), "must be a string"),
        (lambda: DailyBatches(start="2013-02-30"), "ISO date"),
        (lambda: DailyBatches(start="2013-02-01", end="2013-01-01"), "before the first"),
        (lambda: DailyBatches(start="2013-02-01", timezone="Mars/Olympus"), "time zone"),
        (lambda: DailyBatches(start="2013-02-01", timezone="America"), "time zone"),
        (lambda: DailyBatches(start="2013-02-01", timezone=1), "must be a string"),
        (lambda: DailyBatches(start=20130201), "ISO date"),
        (lambda: DailyBatches(start=""), "ISO date"),
        (lambda: DailyBatches(start="2013-02-01", end=""), "ISO date"),
    ],
)
def test_a_wrong_part_is_refused(make: Any, says: str) -> None:
    with pytest.raises(DeclarationError, match=says):
        make()


SMALL = Recipe(model=MODEL)
WIDE = Recipe(model=MODEL, hyperparameters={"hidden": [256]})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"recipe": None}, "`recipe` must be a Recipe"),
        ({"candidates": {"small": SMALL, "wide": WIDE}}, "one recipe or several candidates"),
        ({"recipe": None, "candidates": {"small": SMALL}}, "nothing to choose"),
        ({"recipe": None, "candidates": (SMALL, WIDE)}, "mapping of names to recipes"),
        ({"recipe": None, "candidates": {"small": SMALL, "wide": 256}}, "`wide` must be a Recipe"),
        ({"recipe": None, "candidates": {"small": SMALL, "Wide": WIDE}}, "lower-case"),
        ({"recipe": None, "candidates": {"small": SMALL, "average": WIDE}}, "reserved"),
        ({"recipe": None, "candidates": {"small": SMALL, "same": replace(SMALL, restarts=9)}}, "are the same model"),
        (
            {"recipe": None, "candidates": {"small": SMALL, "warm": replace(WIDE, warm_start=WarmStart())}},
            "cannot go on from the champion",
        ),
        ({"recipe": None, "candidates": {"small": SMALL, "wide": WIDE}, "choose": "worst"}, "no such choice"),
        (
            {
                "recipe": None,
                "candidates": {"small": SMALL, "wide": WIDE},
                "references": (replace(PIPELINE.references[0], name="candidate_wide"),),
            },
            "reserved",
        ),
    ],
)
def test_wrong_candidates_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(DeclarationError, match=says):
        replace(PIPELINE, **changes)


def test_candidates_are_stages_by_name() -> None:
    pipeline = replace(
        PIPELINE, recipe=None, candidates={"small": SMALL, "wide": WIDE}, versions={"candidate_wide": "2"}
    )
    assert pipeline.recipes == {"candidate_small": SMALL, "candidate_wide": WIDE}
    stages = stages_of(pipeline)
    assert list(stages)[-5:] == ["candidate_small", "candidate_wide", "trained_model", "evaluation", "registered_model"]
    assert stages["candidate_wide"].version.pin == "2"
    assert PIPELINE.recipes == {"trained_model": PIPELINE.recipe}


def test_a_label_may_be_named_in_a_module_that_the_function_reaches() -> None:
    from ml_platform_tests.tiny_pipeline.pipeline import PIPELINE as TINY

    elsewhere = replace(TINY.features, function="ml_platform_tests.stages.feature_functions:breaks_on_two_lots")
    assert replace(TINY, features=elsewhere).label == "state"


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


def test_an_open_end_is_today_in_the_time_zone() -> None:
    """The first place where a day begins is 26 hours ahead of the last one: never the same date."""
    first, last = (DailyBatches(start="2013-01-01", timezone=f"Etc/GMT{zone}") for zone in ("-14", "+12"))
    day = dt.datetime.now(zoneinfo.ZoneInfo("Etc/GMT-14")).date()
    assert first.accepts(day.isoformat())
    assert not last.accepts(day.isoformat())
    assert not first.accepts((day + dt.timedelta(days=2)).isoformat())


def test_a_split_may_name_days_to_come() -> None:
    year = dt.datetime.now(dt.UTC).year
    ahead = Split.between(train=(f"{year - 1}-01-01", f"{year}-12-31"), holdout=(f"{year + 1}-01-01", "9999-12-31"))
    assert replace(PIPELINE, batches=DailyBatches(start="2013-01-01"), split=ahead).split is ahead


def test_lists_are_taken_for_tuples() -> None:
    features = Features(function=f"{HERE}.features:build", numeric=["a"], categorical=["b"], keys=["c"])  # type: ignore[arg-type]
    assert (features.columns, features.keys) == (("a", "b"), ("c",))
    pipeline = replace(PIPELINE, sources=list(PIPELINE.sources), gates=[], owners=["me@example.com"])  # type: ignore[arg-type]
    assert (pipeline.sources, pipeline.gates, pipeline.owners) == (PIPELINE.sources, (), ("me@example.com",))
    assert Split.between(train=["a", "b"], holdout=["c", "d"]).train == ("a", "b")  # type: ignore[arg-type]


def test_what_is_right_is_taken() -> None:
    assert Recipe(model=MODEL, gpu_hours=8).identity() == Recipe(model=MODEL).identity()
    assert "precision" not in Recipe(model=MODEL).identity(), "as in models that are older than the option"
    assert "compile" not in Recipe(model=MODEL).identity()
    assert Recipe(model=MODEL, precision="bfloat16", compile=True).identity()["precision"] == "bfloat16"
    assert Recipe(model=MODEL, optimizer="SGD", optimizer_options={"momentum": 0.9}, learning_rate=1).seed == 0
    assert Recipe(model=MODEL, hyperparameters={"hidden": (8,), "dropout": 0.1}).memory_mib == 4096
    assert replace(PIPELINE, tags={"team/domain": "", "x": "a-b_c.d"}).tags["team/domain"] == ""
    assert replace(PIPELINE, gates=(MetricGate(metric="log_loss", at_most=3),)).gates[0].passes(2.9)


def declare(folder: Path, package: str, **modules: str) -> None:
    (folder / package).mkdir()
    (folder / package / "__init__.py").touch()
    for name, text in modules.items():
        (folder / package / f"{name}.py").write_text(text)


def test_a_model_is_read_where_it_is_defined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    declare(
        tmp_path,
        "models_d",
        nets="def deep(inputs, *, depth): ...\ndef loose(inputs, **more): ...\n@wrap\ndef wrapped(inputs): ...\n"
        "def outer():\n    def inner(inputs): ...\nclass Net: ...\nif True:\n    def either(inputs, width=1): ...\n",
        use="from models_d.nets import deep as shallow\nfrom .nets import loose\nimport json\n",
    )
    assert Recipe(model="models_d.use:shallow", hyperparameters={"depth": 2}).model
    assert Recipe(model="models_d.use:loose", hyperparameters={"anything": 2}).model
    assert Recipe(model="models_d.nets:wrapped", hyperparameters={"anything": 2}).model
    assert Recipe(model="models_d.nets:either", hyperparameters={"width": 2}).model
    with pytest.raises(DeclarationError, match="it takes depth"):
        Recipe(model="models_d.use:shallow", hyperparameters={"width": 2})
    with pytest.raises(DeclarationError, match="nothing of that name"):
        Recipe(model="models_d.nets:inner")
    for name in ("models_d.nets:Net", "models_d.use:json"):
        with pytest.raises(DeclarationError, match="not name a function"):
            Recipe(model=name)


def test_a_column_known_later_is_looked_for_where_the_schema_can_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    declare(
        tmp_path,
        "schemas_e",
        base="class Base:\n    paid: float\n",
        orders="from pandera.polars import DataFrameModel, Field\nfrom .base import Base\nfrom elsewhere import Other\n"
        "class Orders(Base, DataFrameModel):\n    amount: float\n    odd: int = Field(alias='odd name')\n"
        "class Far(Other):\n    amount: float\nMADE = make(f'{x}_y')\n",
        named="from .orders import Orders\n",
    )
    for schema in ("orders:Orders", "named:Orders"):
        assert source(schema=f"schemas_e.{schema}", known_later=["paid", "amount", "odd name"]).known_later[0] == "paid"
        with pytest.raises(DeclarationError, match="payed"):
            source(schema=f"schemas_e.{schema}", known_later=("paid", "payed"))
    for cannot_tell in ("orders:Far", "orders:MADE"):
        assert source(schema=f"schemas_e.{cannot_tell}", known_later=("payed",)).known_later == ("payed",)


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


def test_a_version_set_by_hand_is_its_stages_alone() -> None:
    pinned = replace(PIPELINE, versions={"features": "3", "planes": "1"})
    plain, ours = stages_of(PIPELINE), stages_of(pinned)
    assert {name for name in plain if ours[name].version.value != plain[name].version.value} == {"features", "planes"}
    assert (ours["features"].version.pin, ours["features"].version.modules) == ("3", {})
    assert ours["features"].version.params["label"] == PIPELINE.label

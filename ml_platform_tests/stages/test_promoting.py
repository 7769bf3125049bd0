"""A model that is not promoted by itself waits for a person, whose word counts from then on: in runs and in the UI."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from ml_platform.automation.alerts import Reported, _news
from ml_platform.cli.main import main
from ml_platform.definitions import build_definitions
from ml_platform.instance import prepare_instance
from ml_platform.pipeline import Promotion
from ml_platform.registry.glance import champion
from ml_platform.settings import settings as process_settings
from ml_platform.stages.evidence import PROMOTED
from ml_platform.stages.run import plan_pipeline, run_pipeline
from ml_platform_tests.stages.conftest import bodies, by_name, key, lazy
from ml_platform_tests.stages.test_model_gate import BELOW

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings


def told(instance: dg.DagsterInstance, pipeline: Pipeline) -> tuple[bool, str]:
    """The check in Dagster's event log, as its UI shows it."""
    check = dg.AssetCheckKey(key(pipeline, "registered_model"), PROMOTED)
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]
    assert record.event is not None
    evaluation = record.event.dagster_event.asset_check_evaluation_data  # type: ignore[union-attr]
    return evaluation.passed, evaluation.description or ""


@pytest.fixture
def command(place: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """`command("list", "tiny")` is `ml-platform models list tiny`, in that home: its exit code and what it said."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(place.home))
    monkeypatch.setenv("ML_PLATFORM_PIPELINES", "ml_platform_tests.tiny_pipeline")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> tuple[int, str]:
        process_settings.cache_clear()
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["models", *words])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out + captured.err

    yield run
    process_settings.cache_clear()


def version(place: Settings) -> str:
    standing = champion(place.mlflow, "tiny")
    assert standing is not None
    return standing.version


def test_a_worse_model_waits_and_a_person_decides(tiny: Pipeline, place: Settings, command: Any) -> None:
    waits = lazy(tiny, champion="keep")
    summary = run_pipeline(waits, place, BELOW)
    assert summary.ok, summary.problems
    assert by_name(summary)["registered_model"].built == 1
    assert version(place) == "1"
    assert summary.model is not None
    assert summary.model.aliases == ("challenger",)
    assert "ml-platform models approve tiny 2" in summary.model.standing
    with prepare_instance(place) as instance:
        passed, said = told(instance, tiny)
        assert not passed
        assert "worse than the champion beyond noise" in said
        news, _ = _news(instance, {"tiny": waits}, Reported(observation=0, until=0.0, runs=[]))
        assert any("waits for a person" in line and "ml-platform models approve tiny 2" in line for line in news)
    code, listed = command("list", "tiny", "--json")
    assert code == 0
    rows = json.loads(listed)["versions"]
    assert [(row["version"], row["state"]) for row in rows] == [("2", "waiting"), ("1", "champion")]
    assert rows[0]["gain"]["high"] < 0
    assert rows[0]["low"] <= rows[0]["value"] <= rows[0]["high"]

    assert command("approve", "tiny", "2")[0] == 2, "without a reason"
    code, said = command("approve", "tiny", "2", "--reason", "cheaper", "--by", "Ada")
    assert code == 0, said
    assert version(place) == "2"
    with prepare_instance(place) as instance:
        passed, said = told(instance, tiny)
        assert passed
        assert "approved by Ada" in said
    assert bodies(run_pipeline(waits, place, BELOW)) == {}, "a decision makes nothing stale"
    assert not [stage for stage in plan_pipeline(waits, place, BELOW) if stage.to_do]

    code, said = command("rollback", "tiny", "--reason", "complaints", "--by", "Bob")
    assert code == 0, said
    assert version(place) == "1"
    forced = run_pipeline(waits, place, replace(BELOW, select=["registered_model"], force=True))
    assert forced.ok, forced.problems
    assert version(place) == "1", "no policy promotes what a person rolled back from"
    assert forced.model is not None
    assert "rolled back from version 2 to 1 by Bob" in forced.model.standing
    code, history = command("history", "tiny")
    assert code == 0
    for word in ("promoted by policy", "kept as challenger", "approved by Ada", "complaints", "gain"):
        assert word in history
    code, differ = command("diff", "tiny@1", "tiny@2")
    assert code == 0, differ
    for word in ("accuracy", "recipe.learning_rate", "weights"):
        assert word in differ
    assert command("approve", "tiny", "2", "--reason", "x")[0] == 2
    assert command("diff", "tiny@1", "tiny@7")[0] == 2

    last = max((place.home / "store" / "trail" / "tiny").rglob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    last.write_bytes(last.read_bytes()[:50])
    code, history = command("history", "tiny")
    assert (code, "end is missing" in history, last.name in history) == (0, True, True)
    told_json = json.loads(command("history", "tiny", "--json")[1])
    assert told_json["lost"] == len(told_json["decisions"]) + 1
    assert command("promote", "tiny", "2", "--reason", "x")[0] == 0
    assert last.stat().st_size == 50, "nothing is written over it"


def test_a_person_decides_in_the_ui(tiny: Pipeline, place: Settings) -> None:
    asked = replace(lazy(tiny, champion="warn"), promotion=Promotion(by="person"))
    assert run_pipeline(asked, place, BELOW).ok
    assert version(place) == "1", "nobody has said yes"
    job = build_definitions([asked], place).get_job_def("tiny_decide")
    config = {"action": "approve", "version": "2", "reason": "I have looked", "by": "Ada"}

    def decide(**fields: str) -> bool:
        with prepare_instance(place) as instance:
            ops = {"tiny_decision": {"config": config | fields}}
            return job.execute_in_process({"ops": ops}, instance=instance, raise_on_error=False).success

    assert decide()
    assert version(place) == "2"
    with prepare_instance(place) as instance:
        assert told(instance, tiny) == (True, told(instance, tiny)[1])
    assert not decide(), "it is the champion already"
    assert decide(action="rollback", version="", reason="I was wrong")
    assert version(place) == "1"

    # The pipeline goes back to the first model, and to the other one: only a person moves the alias.
    assert run_pipeline(tiny, place).ok
    assert run_pipeline(asked, place, BELOW).ok
    assert version(place) == "1"


@pytest.mark.slow
def test_a_gain_that_is_not_sure_is_not_enough(tiny: Pipeline, place: Settings) -> None:
    modest = replace(lazy(tiny, champion="warn"), promotion=Promotion(least_gain=0.5))
    summary = run_pipeline(modest, place, BELOW)
    assert summary.ok
    assert version(place) == "1"
    assert summary.model is not None
    assert "its gain is not surely 0.5" in summary.model.standing

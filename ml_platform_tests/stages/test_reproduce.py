"""A model is built once more from the bytes that landed: the same weights, or it says what differs and why."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_platform.cli.main import main
from ml_platform.errors import RefusedError
from ml_platform.pipeline import Pipeline, WarmStart
from ml_platform.provenance.declared import as_recorded, code_changes, replaced
from ml_platform.provenance.record import collect, landed_files
from ml_platform.provenance.reproduce import order, reproduce
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.chain import Chain
from ml_platform.stages.opening import chain_of, landing_of
from ml_platform.stages.run import Request, run_pipeline
from ml_platform.stages.summary import RunSummary
from ml_platform.stages.waiving import waive
from ml_platform.stages.withdrawing import withdraw
from ml_platform_tests.conftest import fresh_settings, land_samples
from ml_platform_tests.stages.conftest import LOTS
from ml_platform_tests.tiny_pipeline.data import readings

UP_TO_THE_MODEL = Request(
    select=["raw_batch", "validated_batch", "features", "training_set", "baseline", "trained_model", "evaluation"]
)
WAIVED = "lot-03"


def record_of(chain: Chain) -> dict[str, Any]:
    trained, evaluation, training_set = map(chain.published_artifact, ("trained_model", "evaluation", "training_set"))
    assert trained
    assert evaluation
    assert training_set
    return collect(chain.store, chain.pipeline, trained=trained, evaluation=evaluation, training_set=training_set)


def opened(pipeline: Pipeline, settings: Settings) -> Chain:
    return chain_of(stages_of(pipeline), settings)


@pytest.fixture
def command_home(home: Settings, cold: RunSummary, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The command line in the home of the tiny pipeline's first run."""
    from ml_platform import settings

    assert cold.ok
    monkeypatch.setenv("ML_PLATFORM_HOME", str(home.home))
    monkeypatch.setenv("ML_PLATFORM_SETTLE_SECONDS", "0")
    monkeypatch.setenv("ML_PLATFORM_PIPELINES", "ml_platform_tests.tiny_pipeline.pipeline")
    settings.settings.cache_clear()
    yield home
    settings.settings.cache_clear()


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main(words)
    printed = capsys.readouterr()
    return int(end.value.code or 0), printed.out + printed.err


def test_the_command_builds_the_same_weights_and_shows_the_tree(
    tiny: Pipeline, command_home: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = answer(capsys, "models", "show", "tiny@champion")
    assert code == 0
    assert "lot-01 to lot-06 (6) accepted" in shown
    assert "version 1 promoted by policy on" in shown

    # Whatever was built before must not help.
    code, told = answer(capsys, "models", "reproduce", "tiny@1", "--keep", str(tmp_path / "again"))
    assert "The same, to the byte." in told
    assert code == 0
    assert "The code is the same" in told
    weights = opened(tiny, command_home).published_artifact("trained_model")
    assert weights is not None
    assert told.count(weights.file("weights.safetensors").sha256) == 2


def test_a_place_that_cannot_be_written_is_told(
    command_home: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    code, told = answer(capsys, "lineage", "tiny@1", "--out", str(tmp_path / "none" / "page.html"))
    assert (code, "The graph cannot be written." in told) == (2, True)
    code, told = answer(capsys, "models", "reproduce", "tiny@1", "--keep", str(tmp_path / "file"))
    assert (code, "The folder cannot be made." in told) == (2, True)


def test_ctrl_c_ends_it_with_one_line_and_leaves_nothing(command_home: Settings, tmp_path: Path) -> None:
    """Sent while the first run judges batches: no second run follows, and Dagster's stacks stay out."""
    command = [sys.executable, "-m", "ml_platform.cli", "models", "reproduce", "tiny@1"]
    work = {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=os.environ | work, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stderr is not None
        before = b""
        for line in started.stderr:
            before += line
            if line.startswith(b"validated_batch"):
                started.send_signal(signal.SIGINT)
                break
        assert list(tmp_path.glob("ml-platform-reproduce-*"))
        out, after = started.communicate(timeout=120)
    assert started.returncode == 130, after
    assert after.endswith(b"Interrupted: what was built by then is removed.\n")
    assert b"Traceback" not in after + out
    assert b"Problem" not in after + out
    assert not list(tmp_path.glob("ml-platform-reproduce-*"))


def test_changed_raw_bytes_are_refused_before_anything_is_built(
    tiny: Pipeline, home: Settings, cold: RunSummary, tmp_path: Path
) -> None:
    record = record_of(opened(tiny, home))
    store = Path(shutil.copytree(home.store, tmp_path / "store"))
    (file,) = landed_files(record["artifacts"]["raw_batch"][2]).values()
    blob = store / "blobs" / file["sha256"][:2] / file["sha256"]
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)

    place = fresh_settings(tmp_path / "elsewhere", store=str(store))
    with pytest.raises(RefusedError, match="lot-03") as refused:
        reproduce(tiny, record, place, tmp_path / "again")
    assert str(refused.value).count("fix:") == 1
    assert file["sha256"] in str(refused.value)
    assert not (tmp_path / "again" / "landing").exists()


def test_an_edited_feature_function_is_told_and_which_stages_differ(
    tiny: Pipeline, home: Settings, cold: RunSummary, tmp_path: Path
) -> None:
    record = record_of(opened(tiny, home))
    edited = replace(tiny, features=replace(tiny.features, function="ml_platform_tests.stages.edited_features:build"))

    changes = code_changes(stages_of(edited), record)
    assert list(changes) == ["features"]
    assert any("edited_features" in cause.text for cause in changes["features"])
    assert replaced(edited, as_recorded(edited, record)) == [
        f"features.function: {edited.features.function} now, {tiny.features.function} then"
    ]
    came = reproduce(edited, record, home, tmp_path / "again")
    stages = {stage.name: stage for stage in came.stages}
    assert not came.same
    assert came.finished
    for name in ("raw_batch", "validated_batch"):
        assert stages[name].same == stages[name].artifacts == len(LOTS)
    assert stages["features"].different == LOTS[1:], "the first one has none before it"
    assert stages["trained_model"].different == [""]
    assert came.weights_now not in ("", came.weights_then)


def test_a_waived_batch_and_replaced_values_are_as_they_were(tiny: Pipeline, tmp_path: Path, spark: object) -> None:
    """One lot came later than others, was rejected and let in by a person, in a run with fewer epochs than declared."""
    home = fresh_settings(tmp_path / "home")
    landing = landing_of(home)
    land_samples(tiny, landing, keep=lambda lot: lot != WAIVED)
    landed = Request(select=["raw_batch", "validated_batch"])
    assert run_pipeline(tiny, home, landed).ok
    landing.put(tiny, "readings", WAIVED, readings(2).set_column(3, "load", [[7.5] * 60]), "csv")
    assert list(run_pipeline(tiny, home, landed).rejected) == [WAIVED]
    waive(opened(tiny, home), WAIVED, by="Ada", reason="the scale was changed")
    fewer = replace(tiny, recipe=replace(tiny.recipe, epochs=2))
    assert run_pipeline(fewer, home, UP_TO_THE_MODEL).ok

    record = record_of(opened(fewer, home))
    (given,) = record["waivers"]
    assert (given["by"], given["batch"]) == ("Ada", WAIVED)
    assert _names(record) == [[lot for lot in LOTS if lot != WAIVED], [WAIVED]]
    as_then = as_recorded(tiny, record)
    assert replaced(tiny, as_then) == ["recipe.epochs: 12 now, 2 then"]
    came = reproduce(as_then, record, home, tmp_path / "again")
    assert came.problems == []
    assert came.same


@pytest.mark.slow
def test_a_model_that_went_on_from_a_champion_gets_that_ones_weights(
    tiny: Pipeline, tmp_path: Path, spark: object
) -> None:
    """The parent was trained on other batches, in a home whose registry the work area knows nothing of."""
    warm = replace(tiny, recipe=replace(tiny.recipe, warm_start=WarmStart(replay=0.3)))
    home = fresh_settings(tmp_path / "home")
    land_samples(tiny, landing_of(home), keep=lambda lot: lot < LOTS[-1])
    assert run_pipeline(warm, home).ok
    parent = opened(warm, home).published_artifact("trained_model")
    landing_of(home).put(tiny, "readings", LOTS[-1], readings(5), "csv")
    assert run_pipeline(warm, home, UP_TO_THE_MODEL).ok

    record = record_of(opened(warm, home))
    assert parent is not None
    assert record["parent"]["fingerprint"] == parent.fingerprint
    assert record["training"]["warm_start"]["warm"]
    changed = replace(warm, recipe=replace(warm.recipe, warm_start=WarmStart(replay=0.9)))
    came = reproduce(as_recorded(changed, record), record, home, tmp_path / "again")
    assert came.problems == []
    assert came.same


@pytest.mark.slow
def test_a_batch_that_landed_anew_is_judged_as_it_was_with_what_it_was_compared_with(
    tiny: Pipeline, tmp_path: Path, spark: object
) -> None:
    """The first lot came twice, and the second was withdrawn: others were compared with rows that nobody learned."""
    careful = replace(tiny, batch_gate=replace(tiny.batch_gate, least=3, history=4))
    home = fresh_settings(tmp_path / "home")
    land_samples(tiny, landing_of(home))
    assert run_pipeline(careful, home, Request(select=["raw_batch", "validated_batch"])).ok
    landing_of(home).put(tiny, "readings", LOTS[0], readings(0, seed=9), "csv")
    withdraw(opened(careful, home), LOTS[1], by="Ada", reason="the machine was moved")
    assert run_pipeline(careful, home, UP_TO_THE_MODEL).ok

    record = record_of(opened(careful, home))
    assert {(entry["stage"], entry["batch"]) for entry in record["evidence"]} == {
        (stage, lot) for stage in ("validated_batch", "raw_batch") for lot in LOTS[:2]
    }
    assert [entry["batch"] for entry in record["artifacts"]["features"]] == [LOTS[0], *LOTS[2:]]
    assert _names(record) == [LOTS, LOTS[:1]]
    came = reproduce(as_recorded(careful, record), record, home, tmp_path / "again")
    assert came.problems == []
    assert came.same


def _names(record: Mapping[str, Any]) -> list[list[str]]:
    return [[entry["batch"] for entry in group] for group in order(record)]

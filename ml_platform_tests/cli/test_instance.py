"""Dagster's folder is made, kept equal to the release's, and opens."""

from __future__ import annotations

import logging
import multiprocessing
import traceback
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from ml_platform.errors import SetupError
from ml_platform.instance import CONFIG_FILES, prepare_folder, prepare_instance, release_text
from ml_platform.settings import Settings


def test_the_folder_is_made_once_and_left_alone(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    home = prepare_folder(settings)
    assert home == settings.dagster_home
    before = {name: (home / name).stat().st_mtime_ns for name in CONFIG_FILES}
    prepare_folder(settings)
    assert {name: (home / name).stat().st_mtime_ns for name in CONFIG_FILES} == before
    assert not caplog.records
    assert {path.name for path in home.iterdir()} == set(CONFIG_FILES)


def test_a_file_that_differs_is_refreshed_kept_and_said(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    target = prepare_folder(settings) / "dagster.yaml"
    text = target.read_text()
    assert text.startswith(release_text("dagster.yaml"))
    target.write_text("# mine\n")
    with caplog.at_level(logging.WARNING):
        prepare_folder(settings)
    assert target.read_text() == text
    assert target.with_name("dagster.yaml.previous").read_text() == "# mine\n"
    assert str(target) in caplog.text


def test_the_instance_keeps_runs_under_the_home(settings: Settings) -> None:
    with prepare_instance(settings) as instance:
        assert instance.root_directory == str(settings.dagster_home)
        assert instance.get_runs_count() == 0
        assert not instance.telemetry_enabled


def test_a_folder_that_cannot_be_written_is_said(settings: Settings) -> None:
    settings.home.parent.mkdir(parents=True, exist_ok=True)
    settings.home.write_text("a file")
    with pytest.raises(SetupError, match="ML_PLATFORM_HOME"):
        prepare_folder(settings)


ROUNDS, PROCESSES = 3, 4


def _open_in_step(barrier: Barrier, homes: list[Path], failures: Path) -> None:
    """Open the instance of each home at the same moment as the other processes do, and use all its databases."""
    import dagster  # noqa: F401 - its import takes seconds, and not the same in each process

    for home in homes:
        barrier.wait(120)
        try:
            with prepare_instance(Settings(home=home)) as instance:
                assert instance.get_runs_count() == 0
                assert instance.get_asset_keys() == []
                assert instance.all_instigator_state() == []
        except Exception:
            with failures.open("a") as file:
                file.write(traceback.format_exc())


def test_many_processes_may_open_a_home_that_is_new_to_all_of_them(tmp_path: Path) -> None:
    spawning = multiprocessing.get_context("spawn")
    barrier, failures = spawning.Barrier(PROCESSES), tmp_path / "failures"
    homes = [tmp_path / f"home {i}" for i in range(ROUNDS)]
    processes = [spawning.Process(target=_open_in_step, args=(barrier, homes, failures)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(180)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    assert not failures.exists(), failures.read_text()

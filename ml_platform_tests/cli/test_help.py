"""The help is a page to learn from, answers at once, and errors are printed as what they say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ml_platform.cli.main import app, main
from ml_platform.errors import PlatformError
from ml_platform_tests.cli.conftest import Command

COMMANDS = (
    "run",
    "check",
    "canary",
    "gates",
    "waive",
    "waivers",
    "withdraw",
    "plan",
    "explain",
    "impact",
    "lineage",
    "ui",
    "land",
    "list",
    "new",
    "gc",
    "sweep",
    "doctor",
)
GROUPS = ("models",)


def test_the_first_page_names_every_command_and_shows_how_to_begin(command: Command) -> None:
    answer = command("--help")
    assert answer.code == 0
    assert {info.name for info in app.registered_commands} == set(COMMANDS)
    assert {group.typer_instance.info.name for group in app.registered_groups if group.typer_instance} == set(GROUPS)
    for name in (*COMMANDS, *GROUPS):
        assert f"│ {name} " in answer.out
    assert "ml-platform run nyc_flights" in answer.out
    assert "ML_PLATFORM_HOME" in answer.out


@pytest.mark.parametrize("words", [(), ("run",), ("new",), ("land",), ("canary",)], ids=lambda words: "".join(words))
def test_an_example_fits_in_a_line_of_a_narrow_terminal(
    command: Command, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    examples = [line.rstrip() for line in command(*words, "--help").out.splitlines() if line.startswith("   ml-pl")]
    assert examples
    assert [line for line in examples if len(line) > 80] == []


def test_without_a_word_the_same_page_is_shown(command: Command) -> None:
    answer = command()
    assert "ml-platform doctor" in answer.out + answer.err


@pytest.mark.parametrize("name", ["run", "ui", "land", "new", "gc", "sweep"])
def test_a_command_shows_examples_one_a_line(command: Command, name: str) -> None:
    lines = [line.strip() for line in command(name, "--help").out.splitlines()]
    assert sum(line.startswith(f"ml-platform {name}") for line in lines) >= 2


def test_help_imports_nothing_heavy() -> None:
    heavy = ("dagster", "torch", "pyspark", "mlflow", "pandas", "polars", "pyarrow", "pandera", "sklearn", "pydantic")
    program = f"import sys, ml_platform.cli.main; print([name for name in {heavy!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_an_error_is_said_without_a_traceback(command: Command) -> None:
    answer = command("run", "no_such_pipeline")
    assert answer.code == 2
    assert "There is no such pipeline." in answer.err
    assert "no_such_pipeline" in answer.err
    assert "nyc_flights" in answer.err, "the message does not say which there are"
    assert "Traceback" not in answer.err


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("words", [["--debug", "run", "no_such"], ["run", "no_such", "--debug"]])
def test_debug_shows_where_it_was_raised(words: list[str]) -> None:
    with pytest.raises(PlatformError):
        main(words)


def test_a_setting_that_is_not_allowed_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_DEVICE", "tpu")
    monkeypatch.setenv("ML_PLATFORM_GATE_MEMORY", "much")
    answer = command("list")
    assert answer.code == 2
    assert "ML_PLATFORM_DEVICE='tpu'" in answer.err
    assert "ML_PLATFORM_GATE_MEMORY='much'" in answer.err


def test_options_that_are_no_json_are_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_STORAGE_OPTIONS", "{endpoint")
    answer = command("list")
    assert answer.code == 2
    assert "ML_PLATFORM_STORAGE_OPTIONS" in answer.err

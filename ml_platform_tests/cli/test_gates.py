"""`ml-platform gates`: the heat map shows what was rejected and why, in any terminal; the page is whole by itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ml_platform.pipeline import Pipeline
from ml_platform.settings import Settings
from ml_platform.settings import settings as process_settings
from ml_platform.stages import stages_of
from ml_platform.stages.opening import chain_of
from ml_platform.stages.verdicts import batch_verdicts
from ml_platform_tests.cli.conftest import TINY, Command
from ml_platform_tests.judged import DRIFTED, LOTS, REJECTED, TRAP, judge_lots


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, tiny: Pipeline) -> Settings:
    """A home in which the gate has judged all lots, and rejected two."""
    return judge_lots(tiny, tmp_path_factory.mktemp("gates") / "home")


@pytest.fixture
def home(judged: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(judged.home))
    monkeypatch.setenv("ML_PLATFORM_PIPELINES", TINY)
    monkeypatch.setenv("COLUMNS", "80")
    process_settings.cache_clear()
    yield judged.home
    process_settings.cache_clear()


def test_the_heat_map_shows_what_was_rejected_and_why_in_eighty_columns(command: Command) -> None:
    answer = command("gates", "tiny")
    assert answer.code == 0, answer.err
    assert f"{len(LOTS)} batches: 2 rejected, {len(LOTS) - 2} accepted" in answer.out
    assert "\x1b" not in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80
    assert re.search(rf"^lot-01 +·{{6}}✗·{{{len(LOTS) - 8}}}✗$", answer.out, re.MULTILINE), "a sign a batch"
    rows = _rows(answer.out)
    assert _signs(rows["lot-01 +5"]) == "·" * 11, "runs of batches of which nothing is told are one line"
    assert _signs(rows[REJECTED]) == "····✗···---"
    assert _signs(rows[DRIFTED]) == "··········✗"
    assert "2 of 60 rows break" in answer.out
    assert "· passed   ! warned   ✗ failed   w waived   - not reached" in answer.out


def test_only_what_is_told_of_can_be_shown(command: Command) -> None:
    answer = command("gates", "tiny", "--failing")
    assert set(_rows(answer.out)) == {REJECTED, DRIFTED}
    assert "“+" not in answer.out, "no line stands for several batches"


def test_only_some_batches_can_be_shown(command: Command) -> None:
    answer = command("gates", "tiny", "--batches", "lot-02..lot-05")
    assert "4 batches: 0 rejected, 4 accepted" in answer.out
    assert set(_rows(answer.out)) == {"lot-02 +3"}
    assert "“+3”: and 3 batches after it" in answer.out
    one = command("gates", "tiny", "--batches", "lot-02").out
    assert "1 batch: 0 rejected, 1 accepted" in one
    assert "“+" not in one


def test_batches_that_were_not_judged_yet_are_counted(command: Command, judged: Settings, tmp_path: Path) -> None:
    landed = Path(judged.landing) / "tiny" / "readings"
    new = landed / "lot-99.csv"
    new.write_bytes((landed / "lot-01.csv").read_bytes())
    try:
        assert "1 not judged yet" in command("gates", "tiny").out
    finally:
        new.unlink()


def test_the_page_is_one_file_that_asks_for_nothing_and_escapes_what_is_in_the_data(
    command: Command, tmp_path: Path
) -> None:
    page = tmp_path / "gates.html"
    answer = command("gates", "tiny", "--html", page)
    assert answer.code == 0, answer.err
    html = page.read_text(encoding="utf-8")
    found = _Elements()
    found.feed(html)
    assert not found.names & {"script", "link", "img", "iframe", "object"}
    assert found.addresses
    assert all(address.startswith("#batch-lot-") for address in found.addresses)
    assert TRAP not in html
    assert TRAP.replace("<", "&lt;").replace(">", "&gt;") in html
    assert f'id="batch-{REJECTED}"' in html
    assert {f"#batch-{REJECTED}", f"#batch-{DRIFTED}"} <= found.addresses
    assert "svg" in found.names
    assert f"{len(LOTS) - 2} accepted batches, lot-01 to {LOTS[-2]}" in html, "the batch beside its baseline"


def test_where_nothing_was_judged_it_says_so(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "new"))
    answer = command("gates", "tiny", "--html", tmp_path / "gates.html")
    assert answer.code == 0
    assert "Nothing was judged yet: `ml-platform run tiny` does that." in answer.out
    assert "No batch was judged yet." in (tmp_path / "gates.html").read_text()


def test_a_page_that_cannot_be_written_is_said(command: Command, tmp_path: Path) -> None:
    answer = command("gates", "tiny", "--html", tmp_path / "nowhere" / "gates.html")
    assert answer.code == 2
    assert "cannot be written" in answer.err


def test_check_says_of_every_batch_what_the_run_has_said(command: Command, judged: Settings, tiny: Pipeline) -> None:
    answer = command("check", "tiny", "--batch", "..", "--format", "json")
    assert answer.code == 1
    checked = [json.dumps(file["report"], sort_keys=True) for file in json.loads(answer.out)["files"]]
    said = batch_verdicts(chain_of(stages_of(tiny), judged))
    assert [verdict.batch for verdict in said] == list(LOTS)
    assert checked == [
        json.dumps(json.loads(report.to_json()), sort_keys=True) for each in said for report in each.reports.values()
    ]


def test_a_waived_batch_says_who_and_why(command: Command) -> None:
    """Last in this module: it changes the home."""
    assert command("waive", "tiny", REJECTED, "--by", "ann", "--reason", "night shifts began").code == 0
    assert command("run", "tiny", "--select", "validated_batch", "--batches", REJECTED).code == 0
    answer = command("gates", "tiny")
    assert "1 rejected, 1 waived" in answer.out
    assert "w" in _signs(_rows(answer.out)[REJECTED])
    assert "waived by ann: night shifts began" in answer.out


class _Elements(HTMLParser):
    """Which elements a page has, and which addresses it names."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.addresses: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.addresses |= {value or "" for name, value in attrs if name in ("href", "src", "action", "data")}


def _rows(out: str) -> dict[str, str]:
    """Lines of the map by batch, which come between its head and its legend."""
    lines = out.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("Batch "))
    end = next(place for place, line in enumerate(lines) if line.startswith("· passed"))
    found = (re.fullmatch(r"(lot-\d+(?: \+\d+)?) +(.*)", line) for line in lines[start + 1 : end])
    return {match[1]: match[2] for match in found if match}


def _signs(row: str) -> str:
    return row.replace(" ", "")

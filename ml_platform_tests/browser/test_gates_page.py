"""The page that `ml-platform gates --html` writes, in real Chromium: seen, clicked through, and alone in the world."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ml_platform.cli.page import render
from ml_platform.pipeline import Pipeline
from ml_platform.stages import stages_of
from ml_platform.stages.opening import chain_of
from ml_platform.stages.verdicts import batch_verdicts, stage_verdicts
from ml_platform_tests.browser.conftest import CHROMIUM_FLAGS, PATIENCE_MS
from ml_platform_tests.judged import DRIFTED, REJECTED, judge_lots

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(chromium: str, tiny: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page, opened from its file. It asks nobody for anything else."""
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("gates page")
    chain = chain_of(stages_of(tiny), judge_lots(tiny, folder / "home"))
    file = Path(folder / "gates.html")
    file.write_text(render(chain, batch_verdicts(chain), stage_verdicts(chain)), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
        page.goto(file.as_uri())
        assert asked == [file.as_uri()]
        yield page
        browser.close()


def test_the_heat_map_is_seen_and_a_cell_leads_to_its_batch(page: Page) -> None:
    assert page.locator("svg.map").first.is_visible()
    section = page.locator(f'[id="batch-{REJECTED}"]')
    assert not section.is_visible()
    page.locator(f'svg.map a[href="#batch-{REJECTED}"]').first.click()
    section.wait_for(state="visible")
    assert REJECTED in page.locator("details.batch[open] > summary").all_inner_texts()[-1]
    assert "2 of 60 rows break" in section.inner_text()
    assert "<script>alert(1)</script>" in section.locator("table.rows").first.inner_text()


def test_a_drifted_batch_is_drawn_beside_its_baseline(page: Page) -> None:
    page.locator(f'svg.map a[href="#batch-{DRIFTED}"]').first.click()
    section = page.locator(f'[id="batch-{DRIFTED}"]')
    figure = section.locator("figure", has_text="load").first
    figure.wait_for(state="visible")
    charts = figure.locator("svg")
    assert charts.count() == 2
    assert all(box is not None and box["width"] > 200 for box in (chart.bounding_box() for chart in charts.all()))
    assert figure.locator("svg path.was").count() == 1
    assert figure.locator("svg path.now").count() == 1
    assert "share of rows" in figure.inner_text()


def test_it_is_as_readable_in_the_dark(page: Page) -> None:
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert light == "rgb(255, 255, 255)"
    assert dark != light
    assert dark != ink

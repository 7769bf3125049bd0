"""A real `ml-platform ui` on a fresh home, and headless Chromium in front of it. A failure leaves a screenshot."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE
from ml_platform.settings import Settings, child_environment
from ml_platform.stages.opening import landing_of
from ml_platform_tests.browser.pages import Pages
from ml_platform_tests.conftest import fresh_settings, land_samples

GOOD, BROKEN = "2013-01-01", "2013-01-02"

# Chromium finds no network here, and must not look for one.
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
START_SECONDS = 180
STOP_SECONDS = 60
PATIENCE_MS = 180_000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home in which two days have landed, one of them with distances below zero."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    settings = fresh_settings(tmp_path_factory.mktemp("browser") / "home")
    landing = landing_of(settings)
    land_samples(PIPELINE, landing, keep=lambda batch: batch in (GOOD, BROKEN))
    path = Path(settings.landing) / "nyc_flights" / "flights" / f"{BROKEN}.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("distance")
    broken = table.set_column(place, table.schema.field(place), pc.negate(table["distance"]))
    landing.put(PIPELINE, "flights", BROKEN, broken, "parquet")
    return settings


@pytest.fixture(scope="module")
def address(home: Settings) -> Iterator[str]:
    """Dagster's webserver and daemon as `ml-platform ui` starts them."""
    from ml_platform.cli.processes import free_port

    port = free_port("127.0.0.1", 0, option="--port")
    log = home.home.parent / "ui.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ml_platform.cli", "ui", "--port", str(port)],
            # Its sensors would start runs of their own beside those of the tests.
            env=child_environment(
                ML_PLATFORM_HOME=str(home.home), ML_PLATFORM_SETTLE_SECONDS="0", ML_PLATFORM_AUTOMATION="0"
            ),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(f"{address}/server_info"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def chromium() -> str:
    """The browser of the machine: it is no Python package, so an environment alone does not bring it."""
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if not found:
        pytest.skip("no Chromium here: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def ui(chromium: str, address: str, home: Settings) -> Iterator[Pages]:
    """The UI in one tab."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        yield Pages(page, address, group="nyc_flights", screenshots=home.home.parent)
        browser.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Save what the browser showed when a test or a fixture before it failed, and say where."""
    report = yield
    ui = getattr(item, "funcargs", {}).get("ui")
    if report.failed and isinstance(ui, Pages):
        report.sections.append(("browser", ui.screenshot(item.name)))
    return report

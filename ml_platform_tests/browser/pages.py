"""Dagster's UI as a person uses it: open a page, click, wait for what is to be seen. Every wait is bounded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

ENDED = re.compile("^(Success|Failure|Canceled)$")
RUN = re.compile(r"/runs/[0-9a-f-]{36}")
BACKFILL = re.compile(r"/runs/b/\w+")


class Pages:
    """One tab.

    Args:
        page: Playwright's, whose default timeout bounds every wait.
        address: of the webserver.
        group: the pipeline whose assets are looked at.
        screenshots: folder for those of failures.
    """

    def __init__(self, page: Page, address: str, *, group: str, screenshots: Path) -> None:
        self.page, self._address, self._group, self._screenshots = page, address, group, screenshots

    def open(self, path: str) -> None:
        """Go to a page of the UI."""
        self.page.goto(f"{self._address}{path}")

    def open_asset(self, stage: str, **view: str) -> None:
        """Go to an asset's page; `view` is its query, such as view="events"."""
        query = "&".join(f"{name}={value}" for name, value in view.items())
        self.open(f"/assets/{self._group}/{stage}?{query}")

    def open_group(self, tab: str) -> None:
        """Go to the group's page: tab "lineage" or "list"."""
        self.open(f"/locations/ml_platform/asset-groups/{self._group}/{tab}")

    def sees(self, text: str | re.Pattern[str]) -> None:
        """Wait until a text is visible."""
        self.page.get_by_text(text).first.wait_for()

    def materialize(self, stage: str) -> str:
        """Click Materialize on an unpartitioned asset's page, follow the run, and return how it ended."""
        self.open_asset(stage)
        # By its text: an icon's label is part of the button's accessible name.
        self.page.locator("button", has_text="Materialize").first.click()
        self._follow(RUN)
        return self.end_of_run()

    def launch_partition(self, stage: str, partition: str) -> str:
        """Materialize one partition from an asset's page, follow the run, and return how it ended."""
        self.open_asset(stage)
        self.page.locator("button", has_text="Materialize").first.click()
        self._choose(partition, count="1 partition")
        self._follow(RUN)
        return self.end_of_run()

    def launch_backfill(self, stages: list[str], first: str, last: str, *, count: int) -> str:
        """Tick assets in the group's list, materialize a range of partitions, and return the path of the backfill."""
        self.open_group("list")
        for stage in stages:
            # The native box is hidden behind its label, which draws it.
            box = self.page.get_by_test_id(f"checkbox-{self._group}/{stage}")
            self.page.locator("label").filter(has=box).click()
        self.page.locator("button", has_text=f"Materialize selected ({len(stages)})").click()
        self._choose(f"[{first}...{last}]", count=f"{count} partitions")
        self._follow(BACKFILL)
        return self.page.url.removeprefix(self._address).partition("?")[0]

    def end_of_run(self) -> str:
        """On a run's page or a list of one run: wait until it has ended, and return how."""
        status = self.page.get_by_text(ENDED).first
        status.wait_for()
        return status.inner_text()

    def text(self) -> str:
        """All that is to be read on the page."""
        return self.page.inner_text("body")

    def screenshot(self, name: str) -> str:
        """Save what is on the screen; returns where, and the address that it shows."""
        path = self._screenshots / f"{name}.png"
        self.page.screenshot(path=path)
        return f"{path}\n{self.page.url}"

    def _choose(self, partitions: str, *, count: str) -> None:
        dialog = self.page.get_by_role("dialog")
        field = dialog.get_by_placeholder("ex: ")
        field.fill(partitions)
        field.press("Enter")
        dialog.get_by_text(count, exact=True).wait_for()
        dialog.locator("button", has_text="Launch").click()

    def _follow(self, address: re.Pattern[str]) -> None:
        """Click what the notice of a launch offers, before it fades."""
        self.page.locator('a[href^="/runs/"]', has_text="View").last.click()
        self.page.wait_for_url(address)

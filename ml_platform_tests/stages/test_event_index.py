"""What is read from Dagster's SQLite files must be what Dagster itself would answer."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from ml_platform.errors import SetupError
from ml_platform.instance import prepare_instance
from ml_platform.settings import Settings
from ml_platform.stages.event_index import EventIndex
from ml_platform.stages.published import DATA_VERSION_TAG, MATERIALIZATION, OBSERVATION, InstanceEvents

KEY = ["tiny", "part"]


def _log(instance: dg.DagsterInstance, version: str, partition: str | None, *, observed: bool = False) -> None:
    event = dg.AssetObservation if observed else dg.AssetMaterialization
    tags = {DATA_VERSION_TAG: version, "ml_platform/fingerprint": f"f{version}"}
    instance.report_runless_asset_event(event(asset_key=dg.AssetKey(KEY), partition=partition, tags=tags))


def _same(instance: dg.DagsterInstance, home: Path) -> dict[str, str]:
    files, asked = EventIndex(home), InstanceEvents(instance)
    for type_ in (MATERIALIZATION, OBSERVATION):
        ids = files.latest_ids(KEY, type_)
        assert ids == asked.latest_ids(KEY, type_)
        tags = files.tags_of(KEY, type_, ids.values())
        assert tags == asked.tags_of(KEY, type_, ids.values())
        assert tags.keys() == set(ids.values())
        assert all("ml_platform/fingerprint" in each for each in tags.values())
        assert files.latest_tag(KEY, type_, DATA_VERSION_TAG) == asked.latest_tag(KEY, type_, DATA_VERSION_TAG)
    assert dict(files.latest_tags(KEY)) == dict(asked.latest_tags(KEY))
    return files.latest_tag(KEY, MATERIALIZATION, DATA_VERSION_TAG)


def test_says_what_dagster_says_through_a_history_and_a_wipe(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert EventIndex(settings.dagster_home).latest_tag(KEY, MATERIALIZATION, DATA_VERSION_TAG) == {}
    with prepare_instance(settings) as instance:
        home = settings.dagster_home
        assert _same(instance, home) == {}
        _log(instance, "1", "a")
        _log(instance, "2", "b")
        _log(instance, "3", "a")
        _log(instance, "4", "c", observed=True)
        assert _same(instance, home) == {"a": "3", "b": "2"}
        instance.wipe_assets([dg.AssetKey(KEY)])
        assert _same(instance, home) == {}
        _log(instance, "5", "b")
        assert _same(instance, home) == {"b": "5"}


def test_reads_an_unpartitioned_asset_that_was_wiped(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with prepare_instance(settings) as instance:
        _log(instance, "1", None)
        assert EventIndex(settings.dagster_home).latest_tags(KEY)[DATA_VERSION_TAG] == "1"
        _same(instance, settings.dagster_home)
        instance.wipe_assets([dg.AssetKey(KEY)])
        assert EventIndex(settings.dagster_home).latest_tags(KEY) == {}
        _same(instance, settings.dagster_home)


def test_a_damaged_index_is_named_and_its_folder_may_be_moved_away(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with prepare_instance(settings) as instance:
        _log(instance, "1", "a")
    history = settings.dagster_home / "history"
    for path in (history / "runs").glob("index.db*"):
        path.unlink()
    index = history / "runs" / "index.db"
    index.write_bytes(b"damaged" * 1000)
    with pytest.raises(SetupError, match="move the folder") as caught:
        EventIndex(settings.dagster_home).latest_tag(KEY, MATERIALIZATION, DATA_VERSION_TAG)
    assert str(index) in str(caught.value)
    history.rename(tmp_path / "moved")
    with prepare_instance(settings) as instance:
        assert _same(instance, settings.dagster_home) == {}
        _log(instance, "2", "a")
        assert _same(instance, settings.dagster_home) == {"a": "2"}

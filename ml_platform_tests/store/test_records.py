"""Small records that are kept for good, such as waivers: in a folder and in a bucket."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from ml_platform.gates.waivers import Waiver, Waivers, iso
from ml_platform.store import Store, layout
from ml_platform_tests.store.conftest import Place

NOW = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)


def test_a_record_is_never_written_over(store: Store) -> None:
    path = layout.decision(layout.waiver("flights", "planes", "", "v1"), "a")
    assert store.records(layout.waivers("flights")) == []
    assert store.add_record(path, b"first")
    assert not store.add_record(path, b"second")
    assert store.records(layout.waivers("flights")) == [path]
    assert store.read_records([path, "waivers/flights/none.json"]) == {path: b"first"}
    assert store.records(layout.waivers("flight")) == []


def test_who_shares_the_store_shares_its_waivers(place: Place, tmp_path: Path) -> None:
    mine, yours = (Waivers(place.store(tmp_path / name), "tiny", NOW) for name in ("mine", "yours"))
    waiver = Waiver(
        pipeline="tiny",
        stage="validated_batch",
        batch="lot-1",
        data_version="v1",
        by="Ada",
        reason="it is right",
        when=iso(NOW),
    )
    mine.add(waiver)
    assert yours.standing("validated_batch", "lot-1", "v1") == waiver
    mine.revoke(waiver, by="Ada", reason="it was not")
    assert Waivers(place.store(tmp_path / "third"), "tiny", NOW).standing("validated_batch", "lot-1", "v1") is None

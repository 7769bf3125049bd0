"""Garbage goes, and nothing that is needed ever does, whoever else is at work in the store."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from ml_platform.errors import RegistryError, StoreError
from ml_platform.store import Manifest, Store, garbage, layout
from ml_platform.store.garbage import Collected, Needed, collect
from ml_platform_tests.store.conftest import Place, blob, draft

DAY = 86_400.0
P = "flights"


def gc(store: Store, *needed: Manifest, days: float = 30, **more: Any) -> Collected:
    """Collect what these artifacts do not rest on."""
    names = {(manifest.pipeline, manifest.data_version) for manifest in needed}
    return collect(store, lambda _: Needed(names=names), keep_seconds=days * DAY, **more)


def told(done: Collected) -> dict[str, int]:
    return {f"{found.kind} {found.what}": found.count for found in done.garbage}


def artifact(store: Store, stage: str, name: str, *inputs: Manifest, **more: Any) -> Manifest:
    """An artifact whose data version is its name."""
    with store.scratch() as scratch:
        (scratch / "x").write_text(f"bytes of {more.pop('bytes_of', name)}")
        return store.commit(
            draft(
                f"f-{stage}-{name}",
                stage=stage,
                batch="",
                data_version=name,
                inputs={manifest.stage: manifest.data_version for manifest in inputs},
                **{"created": "2026-01-01T00:00:00.000+00:00", **more},
            ),
            {"x": scratch / "x"},
        )


def stands(place: Place, cache: Path, manifest: Manifest) -> bool:
    """Whether somebody who comes anew finds the artifact, every byte of it."""
    reader = place.store(cache)
    found = reader.find(manifest.pipeline, manifest.stage, manifest.fingerprint)
    return found is not None and [len(reader.read_bytes(file)) for file in found.files] == [f.size for f in found.files]


def age(place: Place, days: float, *manifests: Manifest) -> None:
    """Let artifacts of a store in a folder, or all that is in it, have been written so long ago."""
    paths = [layout.manifest(m.pipeline, m.stage, m.fingerprint) for m in manifests]
    paths += [blob(file) for manifest in manifests for file in manifest.files]
    for path in paths or place.names():
        then = time.time() - days * DAY
        os.utime(Path(place.url) / path, (then, then))


@pytest.fixture
def local(local_place: Place, tmp_path: Path) -> Store:
    return local_place.store(tmp_path / "cache")


def test_what_nothing_rests_on_goes_once_it_is_old(local: Store, local_place: Place, tmp_path: Path) -> None:
    raw, old_raw, young_raw = (artifact(local, "raw_batch", name) for name in ("raw", "old", "of-the-young"))
    rows = artifact(local, "features", "rows", raw)
    model = artifact(local, "trained_model", "model", rows)
    old = artifact(local, "features", "old-rows", old_raw)
    age(local_place, 40)
    young = artifact(local, "features", "young", young_raw)
    before = local_place.names()
    expected = {"artifacts flights/features": 1, "artifacts flights/raw_batch": 1, "bytes that no artifact names": 2}
    assert told(gc(local, model, dry_run=True)) == expected
    assert local_place.names() == before
    done = gc(local, model)
    assert told(done) == expected
    assert sum(found.bytes for found in done.garbage if found.kind == "bytes") == old.bytes + old_raw.bytes
    for manifest in (raw, rows, model, young, young_raw):
        assert stands(local_place, tmp_path / "fresh", manifest)
    assert len(before) - len(local_place.names()) == 4
    assert local.find(P, "features", old.fingerprint) is None
    assert told(gc(local, model)) == {}
    assert artifact(local, "features", "old-rows", old_raw) is not None, "and it can be built again"


def test_bytes_stay_while_anything_names_them(local: Store, local_place: Place, tmp_path: Path) -> None:
    artifact(local, "features", "a", bytes_of="both")
    b = artifact(local, "features", "b", bytes_of="both")
    age(local_place, 40)
    assert told(gc(local, b)) == {"artifacts flights/features": 1}
    assert stands(local_place, tmp_path / "fresh", b)


def test_what_a_forced_run_replaced_stays_while_it_is_needed(local: Store, local_place: Place, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"first")
    first = local.commit(draft(data_version="first"), {"x": tmp_path / "x"})
    (tmp_path / "x").write_bytes(b"second")
    (second,) = local.commit_many([(draft(data_version="second"), {"x": tmp_path / "x"})], replace=True)
    age(local_place, 40)
    assert told(gc(local, first, second)) == {}
    assert told(gc(local, second)) == {"artifacts flights/features": 1, "bytes that no artifact names": 1}
    assert stands(local_place, tmp_path / "fresh", second)


def test_pipelines_that_were_not_named_or_run_now_stay(local: Store, local_place: Place) -> None:
    artifact(local, "features", "a")
    artifact(local, "features", "b", pipeline="churn")
    age(local_place, 40)
    for busy in ({"flights": "a run", "churn": "a run"}, {"": "a run"}):
        done = collect(local, lambda _, busy=busy: Needed(busy=busy), keep_seconds=0)  # type: ignore[misc]
        assert told(done) == {}
        assert [remark.partition(".")[0] for remark in done.remarks] == [
            "churn is busy: a run",
            "flights is busy: a run",
        ]
    assert told(gc(local, pipelines=["churn"], dry_run=True))["artifacts churn/features"] == 1
    assert told(gc(local, pipelines=["churn"])) == {"artifacts churn/features": 1, "bytes that no artifact names": 1}
    assert local.find(P, "features", "f-features-a") is not None


def test_what_once_landed_stays_where_it_is_asked_for(local: Store, local_place: Place) -> None:
    artifact(local, "raw_batch", "raw")
    taken = draft("t", stage="raw_batch", data_version="t", inputs={"landing/2013-01-01": "t"})
    local.commit(taken, {})
    age(local_place, 400)
    assert told(collect(local, lambda _: Needed(archive=True), keep_seconds=0))["artifacts flights/raw_batch"] == 1
    assert local.find(P, "raw_batch", "t") is not None


def test_nothing_goes_where_it_is_not_known_what_is_needed(local: Store, local_place: Place) -> None:
    artifact(local, "features", "a")
    age(local_place, 40)
    before = local_place.names()

    def look(_: Collection[Manifest]) -> Needed:
        raise RegistryError("The registry is away.")

    with pytest.raises(RegistryError):
        collect(local, look, keep_seconds=0)
    asked = []

    def look_twice(_: Collection[Manifest]) -> Needed:
        asked.append(1)
        return Needed() if len(asked) < 2 else look(_)

    with pytest.raises(RegistryError):
        collect(local, look_twice, keep_seconds=0)
    assert local_place.names() == before
    later = local_place.read(before[-1]).replace(b'"schema": 1', b'"schema": 2')
    (path,) = [name for name in before if name.startswith("manifests")]
    later = local_place.read(path).replace(b'"schema": 1', b'"schema": 2')
    local_place.write(path, later)
    with pytest.raises(StoreError, match="upgrade"):
        gc(local)
    assert local_place.names() == before


def test_a_manifest_that_cannot_be_read_holds_all_bytes(local: Store, local_place: Place) -> None:
    a = artifact(local, "features", "a")
    b = artifact(local, "features", "b")
    local_place.write(layout.manifest(P, "features", a.fingerprint), b"{")
    age(local_place, 40)
    done = gc(local)
    assert told(done) == {"artifacts flights/features": 1}
    assert a.fingerprint in done.remarks[0]
    assert {blob(a.files[0]), blob(b.files[0])} <= {*local_place.names()}


def test_what_becomes_needed_meanwhile_stays(local: Store, local_place: Place, tmp_path: Path) -> None:
    a, b, c = (artifact(local, "features", name) for name in "abc")
    age(local_place, 40)
    asked = []

    def look(_: Collection[Manifest]) -> Needed:
        asked.append(1)
        return Needed(names={(P, "a")} if len(asked) > 1 else set())

    assert local.renew([b]) == [], "a run takes it from history"
    assert told(collect(local, look, keep_seconds=0)) == {
        "artifacts flights/features": 1,
        "bytes that no artifact names": 1,
    }
    assert stands(local_place, tmp_path / "fresh", a)
    assert stands(local_place, tmp_path / "fresh", b)
    assert local.renew([c]) == [c], "it is gone, and whoever wanted it is told so"


def test_a_run_that_takes_it_from_history_at_the_last_moment_keeps_it(
    local: Store, local_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = artifact(local, "features", "a")
    age(local_place, 40)
    runs = local_place.store(tmp_path / "run")
    rename = os.rename
    told_run = []

    def renew_first(source: Any, target: Any) -> None:
        if "manifests" in str(source):
            told_run.append(runs.renew([a]))
        rename(source, target)

    monkeypatch.setattr(os, "rename", renew_first)
    gc(local)
    assert told_run[0] == []
    assert stands(local_place, tmp_path / "fresh", a)


COMMITTER = """
import os, sys
os.fsync = lambda handle: None
from pathlib import Path
from ml_platform.store import Store
from ml_platform_tests.store.conftest import draft
url, cache, name, numbers = sys.argv[1], Path(sys.argv[2]), sys.argv[3], range(*map(int, sys.argv[4:]))
store = Store(url, cache=cache)
print("ready", flush=True)
sys.stdin.readline()
for number in numbers:
    with store.scratch() as scratch:
        (scratch / "x").write_text(f"orphan {number}")
        manifest = store.commit(draft(f"{name}-{number}", data_version=f"{name}-{number}"), {"x": scratch / "x"})
        store.read_bytes(manifest.files[0])
"""


def test_commits_that_rely_on_old_bytes_lose_nothing_to_a_collection(
    local: Store, local_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes commit bytes that are there already and named by nothing, while just those are removed."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    orphans = {}
    for number in range(2000):
        orphans[str(number)] = tmp_path / f"orphan {number}"
        orphans[str(number)].write_text(f"orphan {number}")
    local.commit(draft("orphans", data_version="orphans"), orphans)
    (Path(local_place.url) / layout.manifest(P, "features", "orphans")).unlink()
    age(local_place, 40)
    committers = [
        subprocess.Popen(
            [sys.executable, "-c", COMMITTER, local_place.url, str(tmp_path / name), name, *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, numbers in (("a", (0, 400)), ("b", (1999, 1599, -1)))
    ]
    for committer in committers:
        assert committer.stdout is not None
        committer.stdout.readline()
    for committer in committers:
        assert committer.stdin is not None
        committer.stdin.write("\n")
        committer.stdin.flush()
    removed = told(gc(local))["bytes that no artifact names"]
    for committer in committers:
        _, err = committer.communicate()
        assert committer.returncode == 0, err
    assert 1000 < removed <= 2000
    prints = [f"a-{number}" for number in range(400)] + [f"b-{number}" for number in range(1999, 1599, -1)]
    assert len(local_place.store(tmp_path / "fresh").find_many(P, "features", prints)) == 800


@pytest.mark.parametrize("seed", range(8))
def test_random_histories(local: Store, local_place: Place, tmp_path: Path, seed: int) -> None:
    """Whatever was built, forced, registered and aged: what is needed verifies, what is old and not needed is gone."""
    chance = random.Random(seed)
    chain = ("raw_batch", "validated_batch", "features", "training_set", "trained_model")
    layers: list[list[Manifest]] = [[artifact(local, chain[0], f"raw-{n}") for n in range(6)]]
    for stage in chain[1:]:
        above = layers[-1]
        count = chance.randint(3, 8)
        layers.append(
            [
                artifact(
                    local,
                    stage,
                    f"{stage}-{n}",
                    *chance.sample(above, 1),
                    bytes_of=f"{stage}-{chance.randint(0, 5)}",
                )
                for n in range(count)
            ]
        )
    everything = [manifest for layer in layers for manifest in layer]
    old = [manifest for manifest in everything if chance.random() < 0.8]
    age(local_place, 40)
    for manifest in everything:
        if manifest not in old:
            age(local_place, 3, manifest)
    needed = chance.sample(everything, 4)
    by_version = {manifest.data_version: manifest for manifest in everything}
    kept: dict[str, Manifest] = {}
    todo = [*needed, *(manifest for manifest in everything if manifest not in old)]
    while todo:
        manifest = todo.pop()
        if manifest.data_version not in kept:
            kept[manifest.data_version] = manifest
            todo += [by_version[version] for version in manifest.inputs.values()]
    promised = told(gc(local, *needed, dry_run=True))
    assert told(gc(local, *needed)) == promised
    for manifest in everything:
        assert stands(local_place, tmp_path / "fresh", manifest) == (manifest.data_version in kept)
    left = {blob(file) for manifest in kept.values() for file in manifest.files}
    there = {name for name in local_place.names() if name.startswith("blobs/")}
    assert left <= there
    assert told(gc(local, *needed)) == {}


KILLED = """
import os, signal, sys
from pathlib import Path
from ml_platform.store import Store
store = Store(sys.argv[1], cache=Path(sys.argv[2]), storage_options=eval(sys.argv[3]))
store.claims.take("flights", "features", ["f" * 32])
with store.scratch() as scratch:
    (scratch / "left behind").write_bytes(b"12345")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_and_what_others_hold_stays(place: Place, store: Store, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, place.url, str(tmp_path / "cache"), repr(place.options)])
    assert done.returncode == -9
    other = place.store(tmp_path / "other")
    other.claims.take(P, "features", ["a" * 32])
    with store.scratch() as mine:
        collected = gc(store)
        assert told(collected) == {"temporary files that dead processes left": 1, "claims of dead processes": 1}
        assert sum(found.bytes for found in collected.garbage) == 5
        assert mine.is_dir()
    assert {*store.claims.held(P, "features", ["a" * 32, "f" * 32])} == {"a" * 32}
    assert [name for name in place.names() if "f" * 32 in name] == []
    assert told(gc(store)) == {}
    other.claims.close()


def test_a_bucket_is_swept_as_a_folder_is(s3_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects cannot be dated back: so all that was written before this instant counts as old."""
    store = s3_place.store(tmp_path / "cache")
    raw = artifact(store, "raw_batch", "raw")
    rows = artifact(store, "features", "rows", raw)
    other = artifact(store, "features", "other")
    assert told(gc(store, rows)) == {}, "all is young"
    monkeypatch.setattr(garbage, "YOUNG", -2.0)
    expected = {"artifacts flights/features": 1, "bytes that no artifact names": 1}
    assert told(gc(store, rows, days=-1, dry_run=True)) == expected
    assert told(gc(store, rows, days=-1)) == expected
    assert stands(s3_place, tmp_path / "fresh", rows)
    assert stands(s3_place, tmp_path / "fresh", raw)
    assert not stands(s3_place, tmp_path / "fresh", other)


def test_copies_are_trimmed_but_for_those_in_use(s3_place: Place, tmp_path: Path) -> None:
    store = s3_place.store(tmp_path / "cache")
    old, read, young = (artifact(store, "features", name).files[0] for name in ("old", "read", "young"))
    then = time.time() - 3 * DAY
    for file in (old, read):
        os.utime(store.path(file), (then, then))
    assert len(store.copies.trim(0, {read.sha256}, dry_run=True)) == 1
    assert store.copies.trim(1000, set(), dry_run=False) == []
    assert len(store.copies.trim(0, {read.sha256}, dry_run=False)) == 1
    assert sorted(path.name for path in (tmp_path / "cache" / "blobs").rglob("*") if path.is_file()) == sorted(
        (read.sha256, young.sha256)
    )
    assert store.read_bytes(old) == b"bytes of old", "fetched again"


def test_readers_see_no_gap(local: Store, local_place: Place, tmp_path: Path) -> None:
    """What is needed can be read at every moment of a collection."""
    keep = [artifact(local, "features", f"keep-{number}") for number in range(20)]
    for number in range(100):
        artifact(local, "features", f"go-{number}")
    age(local_place, 40)
    stop, missed = threading.Event(), []

    def read() -> None:
        reader = local_place.store(tmp_path / "reader")
        while not stop.is_set():
            missed.extend(
                {m.fingerprint for m in keep} - reader.find_many(P, "features", [m.fingerprint for m in keep]).keys()
            )

    thread = threading.Thread(target=read)
    thread.start()
    gc(local, *keep)
    stop.set()
    thread.join()
    assert missed == []
    assert len(local.artifacts(P, "features")) == 20

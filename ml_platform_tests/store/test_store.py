"""One suite for every kind of store: what is found is whole, and what is not whole is not found."""

from __future__ import annotations

import hashlib
import logging
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ml_platform.errors import DamagedArtifactError, StoreError
from ml_platform.store import ArtifactFile, Manifest, Store, layout
from ml_platform_tests.store.conftest import Place, blob, commit, draft

F = "f" * 32
MANIFEST = layout.manifest("flights", "features", F)


def test_what_is_committed_is_found(store: Store, place: Place, tmp_path: Path) -> None:
    files = {"part/0.parquet": b"zero" * 1000, "part/1.parquet": b"one", "empty": b"", "same": b"one"}
    committed = commit(store, files)
    assert [file.name for file in committed.files] == sorted(files)
    assert committed.created.endswith("+00:00")
    for reader in (store, place.store(tmp_path / "another cache"), pickle.loads(pickle.dumps(store))):
        found = reader.find("flights", "features", F)
        assert found == committed
        assert {file.name: reader.read_bytes(file) for file in found.files} == files
        assert reader.path(found.file("part/1.parquet")).read_bytes() == b"one"
    assert store.find("flights", "features", "0" * 32) is None
    assert store.find("flights", "training_set", F) is None


def test_many_at_once(store: Store, place: Place) -> None:
    prints = [f"{number:032x}" for number in range(40)]
    with store.scratch() as scratch:
        drafts = []
        for number, each in enumerate(prints):
            path = scratch / each
            path.write_bytes(b"%d" % (number // 2))
            drafts.append((draft(each, batch=str(number)), {"x": path}))
        committed = store.commit_many(drafts)
    assert [manifest.fingerprint for manifest in committed] == prints
    found = store.find_many("flights", "features", [*prints, "0" * 31 + "x"])
    assert found == dict(zip(prints, committed, strict=True))
    assert len([name for name in place.names() if name.startswith("blobs/")]) == 20, "equal bytes are kept once"
    assert sorted(m.batch for m in store.artifacts("flights", "features")) == sorted(map(str, range(40)))
    assert store.artifacts("flights", "nothing") == []


def test_the_first_writer_wins(store: Store, place: Place, tmp_path: Path) -> None:
    first = commit(store, {"x": b"first"}, data_version="1" * 32)
    second = commit(place.store(tmp_path / "other"), {"x": b"second"}, data_version="2" * 32)
    assert second == first
    found = store.find("flights", "features", F)
    assert found == first
    assert store.read_bytes(found.files[0]) == b"first"


def test_of_two_of_one_name_in_one_commit_the_first_stands(store: Store, tmp_path: Path) -> None:
    first, second = store.commit_many([(draft(data_version=each * 32), {}) for each in "12"])
    assert first.data_version == second.data_version == "1" * 32
    assert store.find("flights", "features", F) == first


def test_a_forced_commit_stands_and_keeps_what_stood(store: Store, place: Place, tmp_path: Path) -> None:
    def force(data: bytes, version: str) -> Manifest:
        (tmp_path / "x").write_bytes(data)
        return store.commit_many([(draft(data_version=version * 32), {"x": tmp_path / "x"})], replace=True)[0]

    first = force(b"first", "1")
    assert store.find("flights", "features", F) == first
    stood = place.read(MANIFEST)
    assert force(b"other layout", "1") == first, "of equal content the first stands"
    second = force(b"second", "2")
    assert second.data_version == "2" * 32
    found = place.store(tmp_path / "reader").find("flights", "features", F)
    assert found == second
    assert store.read_bytes(found.files[0]) == b"second"
    assert place.read(layout.superseded("flights", "features", F, "1" * 32)) == stood
    assert commit(store, {"x": b"third"}, data_version="3" * 32) == second, "unforced, the first stands"
    assert force(b"first", "1").files == first.files
    assert len([name for name in place.names() if name.startswith("superseded/")]) == 2


def test_of_many_writers_at_once_one_wins(place: Place, tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    stands: list[Manifest] = []

    def write(number: int) -> None:
        mine = place.store(tmp_path / f"cache{number}")
        with mine.scratch() as scratch:
            (scratch / "x").write_bytes(b"%d" % number)
            barrier.wait()
            stands.append(mine.commit(draft(data_version=f"{number:032x}"), {"x": scratch / "x"}))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stands) == 8
    assert len({manifest.data_version for manifest in stands}) == 1
    store = place.store(tmp_path / "reader")
    found = store.find("flights", "features", F)
    assert found == stands[0]
    assert store.read_bytes(found.files[0]) == b"%d" % int(found.data_version, 16)


WRITER = """
import sys
from pathlib import Path
from ml_platform.store import Store
from ml_platform_tests.store.conftest import draft
url, cache, options, name = sys.argv[1], Path(sys.argv[2]), eval(sys.argv[3]), sys.argv[4]
store = Store(url, cache=cache, storage_options=options)
with store.scratch() as scratch:
    (scratch / "x").write_text(name)
    print("ready", flush=True)
    sys.stdin.readline()
    print(store.commit(draft(data_version=name * 32), {"x": scratch / "x"}).data_version)
"""


def test_of_two_processes_one_wins(place: Place, tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, place.url, str(tmp_path / name), repr(place.options), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    said = {writer.communicate(timeout=60)[0].strip() for writer in writers}
    found = place.store(tmp_path / "reader").find("flights", "features", F)
    assert found is not None
    assert said == {found.data_version}


def test_a_damaged_file_is_a_miss_and_the_next_commit_repairs_it(
    store: Store, place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    committed = commit(store, {"x": b"right", "y": b"other"})
    assert store.find("flights", "features", F) == committed
    file = committed.file("x")
    for spoil in (b"wrong", b"longer than it was", b""):
        place.write(blob(file), spoil)
        for reader in (store, place.store(tmp_path / f"fresh {len(spoil)}")):
            caplog.clear()
            assert reader.find("flights", "features", F) is None
            assert "x" in caplog.text
            assert "built again" in caplog.text
        with pytest.raises(DamagedArtifactError, match="run the stage again"):
            place.store(tmp_path / f"another {len(spoil)}").path(file)
        assert commit(store, {"x": b"right", "y": b"other"}).files == committed.files
        assert store.find("flights", "features", F) is not None
        assert place.store(tmp_path / f"third {len(spoil)}").read_bytes(file) == b"right"


def test_a_missing_file_is_a_miss_and_other_bytes_may_take_its_place(
    store: Store, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    committed = commit(store, {"x": b"before"})
    place.delete(blob(committed.files[0]))
    assert store.find("flights", "features", F) is None
    assert store.find("flights", "features", F) is None
    assert caplog.text.count("is missing") == 1, "once is enough"
    # The stage runs again and this time makes other bytes: the manifest that nobody can use must not win.
    again = commit(store, {"x": b"after"}, data_version="2" * 32)
    assert again.data_version == "2" * 32
    found = store.find("flights", "features", F)
    assert found == again
    assert store.read_bytes(found.files[0]) == b"after"


@pytest.mark.parametrize("spoil", ["truncated", "empty", "edited", "another's", "not text"])
def test_a_damaged_manifest_is_a_miss_and_is_replaced(
    store: Store, place: Place, spoil: str, caplog: pytest.LogCaptureFixture
) -> None:
    committed = commit(store, {"x": b"1"})
    other = commit(store, {"x": b"2"}, fingerprint="a" * 32)
    whole = place.read(MANIFEST)
    place.write(
        MANIFEST,
        {
            "truncated": whole[: len(whole) // 2],
            "empty": b"",
            "edited": whole.replace(b'"rows": 3', b'"rows": 4'),
            "another's": place.read(layout.manifest("flights", "features", other.fingerprint)),
            "not text": b"\xff\xfe\x00",
        }[spoil],
    )
    assert store.find("flights", "features", F) is None
    assert "manifest" in caplog.text
    assert store.artifacts("flights", "features") == [other]
    assert store.find_many("flights", "features", [F, "a" * 32]) == {"a" * 32: other}
    again = commit(store, {"x": b"1"})
    assert store.find("flights", "features", F) == again
    assert again.files == committed.files


def test_a_manifest_of_a_later_platform_is_neither_read_nor_replaced(store: Store, place: Place) -> None:
    commit(store, {"x": b"1"})
    later = place.read(MANIFEST).replace(b'"schema": 1', b'"schema": 2')
    place.write(MANIFEST, later)
    with pytest.raises(StoreError, match="upgrade"):
        store.find("flights", "features", F)
    with pytest.raises(StoreError, match="upgrade"):
        commit(store, {"x": b"1"})
    assert place.read(MANIFEST) == later


KILLED = """
import os, signal, sys
from pathlib import Path
from ml_platform.store import Store
from ml_platform.store.store import Store
from ml_platform_tests.store.conftest import draft
Store._publish = lambda *whatever, **more: os.kill(os.getpid(), signal.SIGKILL)
store = Store(sys.argv[1], cache=Path(sys.argv[2]), storage_options=eval(sys.argv[3]))
with store.scratch() as scratch:
    (scratch / "x").write_bytes(b"right")
    (scratch / "left behind").write_bytes(b"1")
    store.commit(draft(), {"x": scratch / "x"})
"""


def test_killed_before_the_manifest_nothing_shows(place: Place, store: Store, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, place.url, str(tmp_path / "cache"), repr(place.options)])
    assert done.returncode == -9
    digest = hashlib.sha256(b"right").hexdigest()
    assert layout.blob(digest) in place.names(), "the bytes had been put"
    assert store.find("flights", "features", F) is None
    assert store.artifacts("flights", "features") == []
    committed = commit(store, {"x": b"right"})
    assert store.find("flights", "features", F) == committed


def test_unchanged_files_are_not_read_again(
    place: Place, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, {"x": b"1" * 1000})
    fresh = place.store(tmp_path / "fresh")
    assert fresh.find("flights", "features", F) is not None
    read: list[str] = []
    backend = fresh._backend
    digests = backend.digests
    monkeypatch.setattr(backend, "digests", lambda paths: read.extend(paths) or digests(paths))
    assert fresh.find("flights", "features", F) is not None
    assert read == []
    (tmp_path / "fresh" / "verified.sqlite").write_bytes(b"damaged" * 1000)
    assert fresh.find("flights", "features", F) is not None
    assert len(read) == 1


def test_unchanged_manifests_are_not_read_again_but_for_their_facts(
    place: Place, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prints = [f"{number:032x}" for number in range(70)]
    (tmp_path / "x").write_bytes(b"1")
    committed = store.commit_many([(draft(each, batch=each), {"x": tmp_path / "x"}) for each in prints])
    fresh = place.store(tmp_path / "fresh")
    for reader in (store, fresh):
        assert reader.find_many("flights", "features", prints) == dict(zip(prints, committed, strict=True))
    for reader in (store, fresh, place.store(tmp_path / "fresh")):
        read: list[str] = []
        read_many = reader._backend.read_many

        def count(paths: list[str], read: list[str] = read, real: Any = read_many) -> dict[str, bytes]:
            read.extend(paths)
            return real(paths)

        monkeypatch.setattr(reader._backend, "read_many", count)
        found = reader.find_many("flights", "features", [*prints, "0" * 31 + "x"])
        assert {manifest.data_version for manifest in found.values()} == {"d" * 32}
        assert reader.artifacts("flights", "features")[0].batch == prints[0]
        assert read == []
        assert found[prints[3]].facts["names"] == ["a", "é"]
        assert pickle.loads(pickle.dumps(found[prints[4]])) == committed[4]
        assert len(read) == 2
    place.delete(blob(committed[0].files[0]))
    assert fresh.find_many("flights", "features", prints) == {}, "seventy shared it"


def test_facts_outlive_a_forced_run_and_are_never_another_artifacts(store: Store, place: Place, tmp_path: Path) -> None:
    prints = [f"{number:032x}" for number in range(70)]
    store.commit_many([(draft(each), {}) for each in prints])
    place.store(tmp_path / "b").find_many("flights", "features", prints)
    found = place.store(tmp_path / "b").find_many("flights", "features", prints)
    store.commit_many([(draft(each, data_version="2" * 32, facts={"rows": 9}), {}) for each in prints], replace=True)
    assert found[prints[0]].facts["rows"] == 3
    assert store.find_many("flights", "features", prints)[prints[0]].facts == {"rows": 9}
    place.delete(layout.superseded("flights", "features", prints[1], "d" * 32))
    with pytest.raises(DamagedArtifactError, match="run again"):
        dict(found[prints[1]].facts)


def test_scratch_is_always_removed(store: Store) -> None:
    with store.scratch() as scratch:
        (scratch / "deep").mkdir()
        (scratch / "deep" / "x").write_bytes(b"1")
        (scratch / "deep" / "x").chmod(0o400)
        (scratch / "deep").chmod(0o500)
    assert not scratch.exists()
    with pytest.raises(RuntimeError, match="on purpose"), store.scratch() as scratch:
        raise RuntimeError("on purpose")
    assert not scratch.exists()


def test_many_files_are_found_at_once(store: Store, place: Place, tmp_path: Path) -> None:
    files = commit(store, {f"part-{number}": b"%d" % number for number in range(20)}).files
    for reader in (store, place.store(tmp_path / "fresh")):
        assert [path.read_bytes() for path in reader.paths(files)] == [reader.read_bytes(file) for file in files]
        assert reader.paths([]) == []
    place.delete(blob(files[7]))
    with pytest.raises(DamagedArtifactError, match=files[7].name):
        place.store(tmp_path / "another").paths(files)


def test_a_file_from_elsewhere_is_copied_not_moved(store: Store, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    committed = store.commit(draft(), {"x": mine})
    assert mine.read_bytes() == b"mine"
    mine.write_bytes(b"new!")
    assert store.read_bytes(committed.files[0]) == b"mine"


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a\\b", ".", "a/"])
def test_a_file_cannot_leave_its_artifact(store: Store, tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(b"1")
    with pytest.raises(StoreError, match="Not a name"):
        store.commit(draft(), {name: tmp_path / "x"})


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden"])
def test_an_artifact_cannot_leave_its_folder(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="Not a name"):
        store.find(name, "features", F)
    with pytest.raises(StoreError, match="Not a name"):
        store.commit(draft(name), {})
    with pytest.raises(StoreError, match="Not a SHA"):
        store.path(ArtifactFile(name="x", sha256=name, size=1))


def test_an_artifact_may_have_no_files(store: Store) -> None:
    committed = store.commit(draft(verdict="rejected"), {})
    assert store.find("flights", "features", F) == committed


def test_the_probe_says_what_the_store_is(store: Store, place: Place) -> None:
    assert place.url in store.probe()
    assert place.names() == []


def test_nothing_is_left_in_tmp(store: Store, place: Place, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        commit(store, {"x": b"1", "y": b"1"})
        commit(store, {"x": b"1"})
    assert [name for name in place.names() if name.startswith("tmp")] == []
    assert [record for record in caplog.records if record.name.startswith("ml_platform")] == []

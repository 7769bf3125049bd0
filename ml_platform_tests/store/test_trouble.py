"""A store that cannot do what is asked says so, and says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ml_platform.errors import DamagedArtifactError, StoreError
from ml_platform.store import Store
from ml_platform_tests.store.conftest import Place, blob, commit, draft


def test_an_endpoint_that_is_not_there(tmp_path: Path, s3_endpoint: str) -> None:
    options = {"s3": {"endpoint_url": "http://127.0.0.1:9"}}
    store = Store("s3://bucket/x", cache=tmp_path, storage_options=options)
    for act in (lambda: store.find("p", "s", "f" * 32), lambda: commit(store, {"x": b"1"}), store.probe):
        with pytest.raises(StoreError, match="endpoint is up"):
            act()


def test_a_bucket_that_is_not_there(tmp_path: Path, s3_options: dict[str, dict[str, Any]]) -> None:
    store = Store("s3://no-such-bucket/x", cache=tmp_path, storage_options=s3_options)
    with pytest.raises(StoreError, match="bucket or folder exists"):
        store.probe()
    with pytest.raises(StoreError, match="bucket or folder exists"):
        commit(store, {"x": b"1"})


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("gs://bucket/x", "gcsfs"),
        ("nonsense://x", "nonsense"),
        ("simplecache::s3://bucket/x", "chained"),
    ],
)
def test_a_url_that_cannot_be_opened(tmp_path: Path, url: str, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        Store(url, cache=tmp_path).find("p", "s", "f" * 32)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    from fsspec.registry import _registry

    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(StoreError, match=r"pip install 'ml-platform\[s3\]'"):
        Store("s3://bucket/x", cache=tmp_path).find("p", "s", "f" * 32)


def test_a_bad_download_is_not_kept(s3_place: Place, tmp_path: Path) -> None:
    committed = commit(s3_place.store(tmp_path / "a"), {"x": b"right"})
    file = committed.files[0]
    reader = s3_place.store(tmp_path / "b")
    assert reader.path(file).read_bytes() == b"right"
    reader.path(file).write_bytes(b"wrong")  # the copy in the cache is spoilt: it is fetched again
    assert reader.read_bytes(file) == b"right"
    reader.path(file).unlink()
    s3_place.write(blob(file), b"wrong")
    with pytest.raises(DamagedArtifactError):
        reader.path(file)
    assert not [path for path in (tmp_path / "b").rglob("*") if path.is_file() and path.name != "verified.sqlite"]


FULL = """
import resource, sys
from pathlib import Path
from ml_platform.errors import StoreError
from ml_platform.store import Store
from ml_platform_tests.store.conftest import draft
store = Store(sys.argv[1], cache=Path(sys.argv[1]) / "cache")
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    store.commit(draft(), {"x": Path(sys.argv[2])})
except StoreError as error:
    print(error)
"""


def test_a_full_store(tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk that is full: both fail in the middle of writing."""
    big = tmp_path / "big"
    big.write_bytes(os.urandom(1_000_000))
    root = tmp_path / "store"
    done = subprocess.run([sys.executable, "-c", FULL, str(root), str(big)], capture_output=True, text=True)
    assert "The store cannot be written." in done.stdout, done.stderr
    assert "fix:" in done.stdout
    assert not [path for path in (root / "tmp").rglob("*") if path.is_file()], "the half that was written is removed"
    store = Store(root, cache=tmp_path / "cache")
    assert store.find("flights", "features", "f" * 32) is None
    assert store.commit(draft(), {"x": big}) is not None


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file", cache=tmp_path / "cache")
    with pytest.raises(StoreError, match="fix:"):
        store.probe()
    with pytest.raises(StoreError, match="fix:"):
        commit(store, {"x": b"1"})


def test_importing_the_store_is_light() -> None:
    program = (
        "import sys, ml_platform.store; print([m for m in ('fsspec', 'numpy', 'pyarrow', 's3fs') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""A real S3 endpoint over HTTP (moto's server), and a store on each kind of place."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ml_platform.store import ArtifactFile, Manifest, Store, layout


@dataclass
class Place:
    """Where a store or a landing place is, and the bytes in it as somebody else would see and spoil them."""

    url: str
    options: dict[str, dict[str, Any]]
    read: Callable[[str], bytes]
    write: Callable[[str, bytes], None]
    delete: Callable[[str], None]
    names: Callable[[], list[str]]

    def store(self, cache: Path) -> Store:
        return Store(self.url, cache=cache, storage_options=self.options)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of an S3 service that lives as long as the tests."""
    from moto.server import ThreadedMotoServer

    names = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture
def s3_options(s3_endpoint: str) -> dict[str, dict[str, Any]]:
    """Storage options with which fsspec reaches the S3 service."""
    return {"s3": {"endpoint_url": s3_endpoint}}


@pytest.fixture
def s3_url(s3_endpoint: str) -> str:
    """A folder in a new bucket of the S3 service."""
    import boto3

    bucket = f"test-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    return f"s3://{bucket}/a folder"


@pytest.fixture
def s3_place(s3_url: str, s3_endpoint: str, s3_options: dict[str, dict[str, Any]]) -> Place:
    import boto3

    client = boto3.client("s3", endpoint_url=s3_endpoint)
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")

    def names() -> list[str]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"].removeprefix(f"{prefix}/") for page in pages for item in page.get("Contents", [])]

    return Place(
        url=s3_url,
        options=s3_options,
        read=lambda path: client.get_object(Bucket=bucket, Key=f"{prefix}/{path}")["Body"].read(),
        write=lambda path, data: client.put_object(Bucket=bucket, Key=f"{prefix}/{path}", Body=data) and None,
        delete=lambda path: client.delete_object(Bucket=bucket, Key=f"{prefix}/{path}") and None,
        names=names,
    )


@pytest.fixture
def local_place(tmp_path: Path) -> Place:
    root = tmp_path / "a folder"

    def write(path: str, data: bytes) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if (root / path).exists():
            (root / path).chmod(0o644)
        (root / path).write_bytes(data)

    return Place(
        url=str(root),
        options={},
        read=lambda path: (root / path).read_bytes(),
        write=write,
        delete=lambda path: (root / path).unlink(),
        names=lambda: sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()),
    )


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest) -> Place:
    """A folder, and then a bucket: every test that takes it holds for both."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture
def store(place: Place, tmp_path: Path) -> Store:
    return place.store(tmp_path / "cache")


def draft(fingerprint: str = "f" * 32, **changes: Any) -> Manifest:
    """A manifest without files."""
    values: dict[str, Any] = {
        "pipeline": "flights",
        "stage": "features",
        "batch": "2013-01-01",
        "fingerprint": fingerprint,
        "code_version": "c" * 32,
        "data_version": "d" * 32,
        "inputs": {"raw_batch": "e" * 32},
        "files": (),
        "facts": {"rows": 3, "share": 0.1, "names": ["a", "é"]},
    }
    return Manifest(**{**values, **changes})


def commit(store: Store, files: dict[str, bytes], fingerprint: str = "f" * 32, **changes: Any) -> Manifest:
    """Write files into scratch and commit them."""
    with store.scratch() as scratch:
        paths = {}
        for number, (name, data) in enumerate(files.items()):
            paths[name] = scratch / str(number)
            paths[name].write_bytes(data)
        return store.commit(draft(fingerprint, **changes), paths)


def blob(file: ArtifactFile) -> str:
    return layout.blob(file.sha256)

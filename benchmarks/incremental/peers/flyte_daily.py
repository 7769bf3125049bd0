"""flytekit with its local cache: three tasks a day and one over all days.

A file's hash is given as an argument, because the cache does not look at files.
"""

import csv
import hashlib
import os
from typing import List  # noqa: UP035 -- as flytekit's own examples write it

from flytekit import dynamic, task, workflow

CACHED = {"cache": True, "cache_version": "1"}


@task(**CACHED)
def ingest(day: str, fingerprint: str) -> List[int]:  # noqa: UP006
    print("body")
    with open(f"data/{day}.csv") as file:
        return [int(row["number"]) for row in csv.DictReader(file)]


@task(**CACHED)
def validate(rows: List[int]) -> List[int]:  # noqa: UP006
    print("body")
    assert all(row >= 0 for row in rows)
    return rows


@task(**CACHED)
def preprocess(rows: List[int]) -> List[int]:  # noqa: UP006
    print("body")
    return [row * 2 for row in rows]


@task(**CACHED)
def train(features: List[List[int]]) -> int:  # noqa: UP006
    print("body")
    return sum(sum(rows) for rows in features)


@dynamic
def loop(days: List[str], fingerprints: List[str]) -> int:  # noqa: UP006
    features = []
    for day, fingerprint in zip(days, fingerprints, strict=True):
        features.append(preprocess(rows=validate(rows=ingest(day=day, fingerprint=fingerprint))))
    return train(features=features)


@workflow
def daily(days: List[str], fingerprints: List[str]) -> int:  # noqa: UP006
    return loop(days=days, fingerprints=fingerprints)


if __name__ == "__main__":
    names = sorted(os.listdir("data"))
    hashes = []
    for name in names:
        with open(f"data/{name}", "rb") as data:
            hashes.append(hashlib.sha256(data.read()).hexdigest())
    daily(days=[name.removesuffix(".csv") for name in names], fingerprints=hashes)

"""Fills a home in which one batch was really built with thousands of copies of it, under names of their own.

    python -m benchmarks.incremental.fill FOLDER HOME COUNT

Each copy has a landed file, artifacts that the store has committed, and the events of the original with its own
partition, versions and fingerprint, inserted into Dagster's index in bulk. Running the stages would take an hour.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.incremental import made
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.chain import Chain, State
from ml_platform.stages.opening import chain_of
from ml_platform.store.manifest import Manifest
from ml_platform.versions.fingerprint import short_hash

STAGES = ("raw_batch", "validated_batch", "features")
EVENT = "run_id, event, dagster_event_type, timestamp, step_key, asset_key"
TAG = "key, value, event_timestamp"
TOGETHER = 1000


def main() -> None:
    """The command line."""
    folder, home, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    pipeline = made.load(folder)
    settings = Settings(home=home, settle_seconds=0.0)
    first, *others = made.days(count)
    made.land(home / "landing", others)
    os.fsync = lambda fd: None  # only here: nothing is lost with this home, and flushing it would take minutes
    with sqlite3.connect(settings.dagster_home / "history" / "runs" / "index.db") as index:
        for name in STAGES:
            chain = chain_of(stages_of(pipeline), settings)
            original = chain.statuses(name, [first])[first].manifest
            assert original is not None
            copies = _copies(chain, original, others)
            _tell(index, original, copies)
            index.commit()
    chain = chain_of(stages_of(pipeline), settings)
    for name in STAGES:
        states = [status.state for status in chain.statuses(name).values()]
        assert states == [State.FRESH] * count, {state: states.count(state) for state in State}


def _copies(chain: Chain, original: Manifest, batches: list[str]) -> list[Manifest]:
    """Commit a copy of an artifact for each batch."""
    statuses = chain.statuses(original.stage, batches)
    contents = {file.name: chain.store.read_bytes(file) for file in original.files}
    made_: list[Manifest] = []
    for start in range(0, len(batches), TOGETHER):
        with chain.store.scratch() as scratch:
            drafts = []
            for batch in batches[start : start + TOGETHER]:
                work = statuses[batch].work
                assert work is not None
                files = {}
                for name, content in contents.items():
                    files[name] = scratch / f"{batch}-{name}"
                    files[name].write_bytes(content if name == "code.json" else content + batch.encode())
                version = work.inputs.get(f"landing/{batch}") or short_hash([original.data_version, batch])
                copy = replace(original, batch=batch, fingerprint=work.fingerprint, inputs=work.inputs)
                drafts.append((replace(copy, data_version=version, files=(), created=""), files))
            made_ += chain.store.commit_many(drafts)
    return made_


def _tell(index: sqlite3.Connection, original: Manifest, copies: list[Manifest]) -> None:
    """Insert the events of the original for each copy."""
    key = f'["{original.pipeline}", "{original.stage}"]'
    events = index.execute(
        f"SELECT id, {EVENT} FROM event_logs WHERE asset_key = ? AND partition = ? ORDER BY id", (key, original.batch)
    ).fetchall()
    tags = index.execute(f"SELECT event_id, {TAG} FROM asset_event_tags WHERE asset_key = ?", (key,)).fetchall()
    assert events
    assert tags
    (last,) = index.execute("SELECT max(id) FROM event_logs").fetchone()
    for copy in copies:

        def own(text: str, copy: Manifest = copy) -> str:
            for name in ("data_version", "fingerprint", "batch"):
                text = text.replace(getattr(original, name), getattr(copy, name))
            return text

        for old, run, event, *more in events:
            last += 1
            index.execute(
                f"INSERT INTO event_logs (id, {EVENT}, partition) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (last, run, own(event), *more, copy.batch),
            )
            index.executemany(
                f"INSERT INTO asset_event_tags (event_id, asset_key, {TAG}) VALUES (?, ?, ?, ?, ?)",
                [(last, key, name, own(value), when) for event_id, name, value, when in tags if event_id == old],
            )


if __name__ == "__main__":
    main()

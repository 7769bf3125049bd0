"""A model built once more from the bytes that landed, in a work area of its own; and whether it is the same.

    with the record of a version, and the raw artifacts that it names:
    check them by hash, land them elsewhere, give the waivers of then, run the chain up to the evaluation, compare.

Nothing is taken from the store but landed bytes (and, for a model that went on from another one's weights, those
weights). What a gate said depends on the batches that were accepted before, so batches are judged in the order in which
they were judged then, with those among them that no row was learned from: these are withdrawn before features are made.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DamagedArtifactError, RefusedError
from ml_platform.gates.waivers import Waiver, Waivers
from ml_platform.gates.withdrawals import Withdrawal, Withdrawals
from ml_platform.landing import REFERENCES
from ml_platform.provenance.record import WEIGHTS, Record, landed_files, stage_names, version_of
from ml_platform.provenance.walk import TRAINED, VALIDATED
from ml_platform.stages import stages_of
from ml_platform.stages.chain import RAW_BATCH
from ml_platform.stages.opening import landing_of, store_of
from ml_platform.stages.run import Request, run_pipeline
from ml_platform.store.manifest import ArtifactFile, Manifest

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.summary import Progress, RunSummary
    from ml_platform.store import Store

Entry = Mapping[str, Any]
WHY = "built once more from the provenance record"


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """How the artifacts of a stage came out: how many the record has, and which of them, by batch, are otherwise.

    `why` is what a gate said now of one that it had let in.
    """

    name: str
    artifacts: int
    different: Sequence[str] = ()
    absent: Sequence[str] = ()
    why: str = ""

    @property
    def same(self) -> int:
        """How many have the same data version."""
        return self.artifacts - len(self.different) - len(self.absent)


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What building a model once more came to.

    Args:
        stages: in the order of the chain.
        weights_then, weights_now: SHA-256 of the weights; "" where there are none.
        problems: why a run did not come to its end.
        seconds: how long it took.
    """

    stages: Sequence[StageResult]
    weights_then: str
    weights_now: str
    problems: Sequence[str]
    seconds: float

    @property
    def same(self) -> bool:
        """Whether every artifact has the same data version, and the weights are the same bytes."""
        return self.weights_then == self.weights_now and all(each.same == each.artifacts for each in self.stages)

    @property
    def finished(self) -> bool:
        """Whether there is something to say: the model was built, or what was built before it differs."""
        return bool(self.weights_now) or any(each.different for each in self.stages)


def reproduce(
    pipeline: Pipeline,
    record: Record,
    settings: Settings,
    folder: Path,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> Reproduction:
    """Build a model once more.

    Args:
        pipeline: as it was declared then (`declared.as_recorded`), with the code that is here.
        record: of the model.
        settings: where the raw artifacts are; nothing there is changed.
        folder: an empty folder to work in.
        on_progress: told how the runs get on.

    Raises:
        RefusedError: a raw artifact is gone or damaged, or the pipeline has no such stages any more.
        LandingError: the pipeline does not take a file under its name any more.
        KeyboardInterrupt: by Ctrl-C, also where it came during a run.
    """
    begun = time.monotonic()
    store, home = store_of(settings), settings.apart(folder)
    if record["topology"].get("device") == "cpu":  # also where there is a GPU
        home = home.model_copy(update={"device": "cpu"})
    if gone := [name for name in stage_names(record) if name not in stages_of(pipeline)]:
        raise RefusedError("The pipeline has no such stage any more.", where=pipeline.name, got=", ".join(gone))
    files = _verified(store, [*record["artifacts"][RAW_BATCH], *_whole(record)])
    record = _with_evidence_there(record, store, files)
    _give_waivers(record, home)
    _carry_parent(record, pipeline, store, home)
    _land(pipeline, _whole(record), files, home)
    problems: list[str] = []
    judged_alone = order(record)
    for group in judged_alone:
        _land(pipeline, group, files, home)
        if len(judged_alone) > 1:
            request = Request(batches={entry["batch"] for entry in group}, select=(RAW_BATCH, VALIDATED))
            problems += _run(pipeline, home, request, on_progress).problems
    _withdraw(record, home)
    summary = _run(pipeline, home, Request(select=stage_names(record)), on_progress)
    return _compare(record, store_of(home), [*problems, *_told(summary)], time.monotonic() - begun)


def _run(
    pipeline: Pipeline, home: Settings, request: Request, on_progress: Callable[[Progress], None] | None
) -> RunSummary:
    """One run in the work area. Dagster takes Ctrl-C for a step that failed; here it ends everything."""
    summary = run_pipeline(pipeline, home, request, on_progress=on_progress)
    if summary.stopped:
        raise KeyboardInterrupt
    return summary


def _told(summary: RunSummary) -> list[str]:
    return [*summary.problems, *(f"{batch} was rejected: {reason}" for batch, reason in summary.rejected.items())]


def order(record: Record) -> list[list[Entry]]:
    """The raw batches of a record in the order in which they were judged, in groups that one run can judge.

    A run judges its batches in the order of their names. So a batch that came late is in a group after those with later
    names, and one that came twice is in two.
    """
    raw = {_landed_as(entry): entry for entry in _raw(record)}
    judged = [*record["artifacts"][VALIDATED], *(e for e in record["evidence"] if e["stage"] == VALIDATED)]
    groups: list[list[Entry]] = []
    for entry in sorted(judged, key=lambda entry: (entry["created"], entry["batch"])):
        batch = entry["batch"]
        found = raw.get(_landed_as(entry))
        if found is None:
            raise RefusedError("The record does not name the bytes that a batch was made of.", got=batch)
        if not groups or batch <= groups[-1][-1]["batch"]:
            groups.append([])
        groups[-1].append(found)
    return groups


def _raw(record: Record) -> list[Entry]:
    return [*record["artifacts"][RAW_BATCH], *(e for e in record["evidence"] if e["stage"] == RAW_BATCH)]


def _whole(record: Record) -> list[Entry]:
    """What belongs to no batch; of these, references have landed bytes."""
    return [entry for some in record["artifacts"].values() for entry in some if not entry["batch"]]


def _with_evidence_there(record: Record, store: Store, files: dict[str, Path]) -> Record:
    """The record without the evidence whose bytes are gone: no row of it was learned from. `files` gets the others."""
    there = {_landed_as(entry) for entry in record["artifacts"][RAW_BATCH]}
    for entry in record["evidence"]:
        if entry["stage"] == RAW_BATCH:
            with contextlib.suppress(RefusedError):
                files |= _verified(store, [entry])
                there.add(_landed_as(entry))
    return {**record, "evidence": [entry for entry in record["evidence"] if _landed_as(entry) in there]}


def _landed_as(entry: Entry) -> tuple[str, str]:
    """The batch and the data version of the raw batch that an artifact is, or was validated from."""
    batch = entry["batch"]
    return batch, version_of(entry) if entry["stage"] == RAW_BATCH else entry["inputs"].get(f"{RAW_BATCH}/{batch}", "")


def _verified(store: Store, entries: Sequence[Entry]) -> dict[str, Path]:
    """Local paths of landed bytes by their SHA-256, each read and found to be what its name says."""
    wanted = {
        file["sha256"]: (entry, ArtifactFile(name=file["name"], sha256=file["sha256"], size=file["size"]))
        for entry in entries
        for file in landed_files(entry).values()
    }
    try:
        paths = store.paths(file for _, file in wanted.values())
    except DamagedArtifactError as error:
        bad = next((e["name"] for e, file in wanted.values() if file.sha256 in str(error)), "a raw artifact")
        raise RefusedError(
            "The bytes that landed are not what the record says: the model cannot be built once more from them.",
            where=f"{bad} in the store {store.url}",
            got=f"{error.what} {error.where or ''}, {error.got or ''}".rstrip(", "),
            fix="bring the file back from a backup of the store, or from where it came",
        ) from error
    return dict(zip(wanted, paths, strict=True))


def _land(pipeline: Pipeline, entries: Sequence[Entry], files: Mapping[str, Path], home: Settings) -> None:
    """Put landed bytes into the work area's landing place, with the time at which they had landed."""
    landing = landing_of(home)
    for entry in entries:
        for feed, file in landed_files(entry).items():
            format_ = file["name"].rpartition(".")[2]
            of, name = (feed, entry["batch"]) if entry["batch"] else (REFERENCES, feed)
            url = landing.put(pipeline, of, name, files[file["sha256"]], format_)
            if landed := entry.get("landed_at", {}).get(feed):
                seconds = dt.datetime.fromisoformat(landed).timestamp()
                os.utime(url, (seconds, seconds))


def _give_waivers(record: Record, home: Settings) -> None:
    """What a person accepted then is accepted here, also where the waiver has expired or was revoked since."""
    waivers = Waivers(store_of(home), record["pipeline"]["name"])
    known = {field.name for field in fields(Waiver)}
    for given in record["waivers"]:
        waivers.add(replace(Waiver(**{name: value for name, value in given.items() if name in known}), expires=""))


def _withdraw(record: Record, home: Settings) -> None:
    """Take out what later batches were compared with and no row was learned from."""
    learned = {entry["batch"] for entry in record["artifacts"][RAW_BATCH]}
    name = record["pipeline"]["name"]
    withdrawals = Withdrawals(Waivers(store_of(home), name).records)
    for batch in sorted({entry["batch"] for entry in record["evidence"]} - learned):
        when = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        withdrawals.add(Withdrawal(pipeline=name, batch=batch, by="reproduce", reason=WHY, when=when))


def _carry_parent(record: Record, pipeline: Pipeline, store: Store, home: Settings) -> None:
    """Make the model whose weights training went on from the champion of the work area's registry."""
    if (entry := record["parent"]) is None:
        return
    from ml_platform.registry.connection import Connection
    from ml_platform.registry.models import CHAMPION, COMPLETE_TAG, FINGERPRINT_TAG
    from ml_platform.registry.upload import DATA_VERSION_TAG

    there = store_of(home)
    known = [ArtifactFile(name=name, **file) for name, file in entry["files"].items()]
    with there.scratch() as scratch:
        copies = {
            file.name: Path(shutil.copyfile(path, scratch / file.sha256))
            for file, path in zip(known, store.paths(known), strict=True)
        }
        there.commit(
            Manifest(
                pipeline=pipeline.name,
                stage=TRAINED,
                batch="",
                fingerprint=entry["fingerprint"],
                code_version=entry["code_version"],
                data_version=version_of(entry),
                inputs=entry["inputs"],
                files=(),
                facts=entry["facts"],
                created=entry["created"],
            ),
            copies,
        )
    client = Connection(home.mlflow).client
    client.create_registered_model(pipeline.name)
    tags = {FINGERPRINT_TAG: entry["fingerprint"], DATA_VERSION_TAG: version_of(entry), COMPLETE_TAG: "true"}
    version = client.create_model_version(pipeline.name, home.home.as_uri(), tags=tags)
    client.set_registered_model_alias(pipeline.name, CHAMPION, version.version)


def _compare(record: Record, built: Store, problems: Sequence[str], seconds: float) -> Reproduction:
    stages: list[StageResult] = []
    weights = ""
    for stage, entries in record["artifacts"].items():
        now = {manifest.batch: manifest for manifest in built.artifacts(record["pipeline"]["name"], stage)}
        different, absent, why = [], [], ""
        for entry in entries:
            manifest = now.get(entry["batch"])
            if manifest is None:
                absent.append(entry["batch"])
            elif manifest.data_version != version_of(entry):
                different.append(entry["batch"])
                why = why or str(manifest.facts.get("reason", ""))
        stages.append(StageResult(name=stage, artifacts=len(entries), different=different, absent=absent, why=why))
        if stage == TRAINED and "" in now:
            weights = now[""].file(WEIGHTS).sha256
    return Reproduction(
        stages=stages,
        weights_then=record["model"]["weights"],
        weights_now=weights,
        problems=problems,
        seconds=seconds,
    )

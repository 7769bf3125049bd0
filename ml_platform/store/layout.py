"""Every path of a store, made in one place.

    blobs/<2 hex>/<sha256>                                  bytes, named by what they are
    manifests/<pipeline>/<stage>/<2 hex>/<fingerprint>.json what makes an artifact visible, written last
    superseded/<pipeline>/<stage>/<fingerprint>-<data version>.json  whose place a forced run gave to another
    claims/<pipeline>/<stage>/<fingerprint>.<generation>    who builds that artifact now
    claims/.owners/<token>.json                             the process that holds claims
    waivers/<pipeline>/<stage>/<batch>/<data version>/<time>-<hash>.json  who accepted what a gate had rejected
    waivers/<pipeline>/withdrawn-batches/<batch>/<time>-<hash>.json  who took a batch out of training
    trail/<pipeline>/<registry>/<number>.json               who decided which model is used, one after another
    used/<path of a manifest or of bytes>                   when an old file was last relied on
    jobs/<fingerprint>/<specification>/                     what a training job elsewhere reads, keeps and leaves
    tmp/<time>-<host>-<boot>-<pid>-<start>-<random>/        scratch; what a dead process left is garbage

Paths are relative to the store's root, with forward slashes.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import re
import secrets
from pathlib import PurePosixPath

from ml_platform.errors import StoreError
from ml_platform.processes import ProcessId, is_alive, this_process

BLOBS = "blobs"
MANIFESTS = "manifests"
SUPERSEDED = "superseded"
TMP = "tmp"
USED = "used"
_SCRATCH_TIME = "%Y%m%dT%H%M%S"
_SCRATCH = re.compile(r"(\d{8}T\d{6})-([\w.]+)-([0-9a-f]{8})-(\d+)-([\w.]*)-[0-9a-f]{8}")
JOBS = "jobs"
CLAIMS = "claims"
OWNERS = f"{CLAIMS}/.owners"
WAIVERS = "waivers"
TRAIL = "trail"

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def blob(sha256: str) -> str:
    """Where the bytes with this hash are kept."""
    if len(sha256) != 64 or not sha256.isalnum():  # quicker than an expression: there are tens of thousands
        raise StoreError("Not a SHA-256.", got=repr(sha256))
    return f"{BLOBS}/{sha256[:2]}/{sha256}"


@functools.lru_cache(maxsize=100)
def manifests(pipeline: str, stage: str) -> str:
    """The folder of a stage's manifests."""
    return f"{MANIFESTS}/{_segment(pipeline)}/{_segment(stage)}"


def manifest(pipeline: str, stage: str, fingerprint: str) -> str:
    """Where the manifest of that artifact is kept."""
    return f"{manifests(pipeline, stage)}/{_segment(fingerprint)[:2]}/{fingerprint}.json"


def superseded(pipeline: str, stage: str, fingerprint: str, data_version: str) -> str:
    """Where a manifest is kept when another took its place."""
    return f"{SUPERSEDED}/{_segment(pipeline)}/{_segment(stage)}/{_segment(f'{fingerprint}-{data_version}')}.json"


def claims(pipeline: str, stage: str) -> str:
    """The folder of the claims on a stage's artifacts."""
    return f"{CLAIMS}/{_segment(pipeline)}/{_segment(stage)}"


def claim(pipeline: str, stage: str, fingerprint: str, generation: int) -> str:
    """Where a claim on that artifact is kept."""
    return f"{claims(pipeline, stage)}/{_segment(fingerprint)}.{generation}"


def owner(token: str) -> str:
    """Where the record of the owner with this token is kept."""
    return f"{OWNERS}/{_segment(token)}.json"


def owner_token(path: str) -> str:
    """The token of the owner whose record is kept at this path."""
    return path.removeprefix(f"{OWNERS}/").removesuffix(".json")


def waivers(pipeline: str) -> str:
    """The folder of the records of what people decided about a pipeline's batches."""
    return f"{WAIVERS}/{_segment(pipeline)}"


def waiver(pipeline: str, stage: str, batch: str, data_version: str) -> str:
    """The folder of the waivers of one data version. What belongs to no batch is kept under `whole`."""
    return "/".join((waivers(pipeline), *map(_segment, (stage, batch or "whole", data_version))))


def withdrawals(pipeline: str) -> str:
    """The folder of the withdrawals. No stage has such a name: theirs have no hyphen."""
    return f"{waivers(pipeline)}/withdrawn-batches/"


def withdrawal(pipeline: str, batch: str) -> str:
    """The folder of one batch's withdrawals."""
    return f"{withdrawals(pipeline)}{_segment(batch)}"


def decision(folder: str, name: str) -> str:
    """Where one record of a waiver or a withdrawal is kept."""
    return f"{folder}/{_segment(name)}.json"


def trails(pipeline: str) -> str:
    """The folder of what was decided about a pipeline's models, in whatever registry."""
    return f"{TRAIL}/{_segment(pipeline)}"


def trail(pipeline: str, registry: str) -> str:
    """The folder of what was decided about a pipeline's models in one registry."""
    return f"{trails(pipeline)}/{_segment(registry)}"


def trail_record(pipeline: str, registry: str, number: int) -> str:
    """Where the decision with this number is kept; the first one has 1."""
    return f"{trail(pipeline, registry)}/{number:08d}.json"


def jobs(name: str) -> str:
    """The folder of all that jobs of one name keep in the store."""
    return f"{JOBS}/{_segment(name)}"


def job(name: str, specification: str) -> str:
    """The folder of one job that runs where nothing but the store is shared."""
    return f"{jobs(name)}/{_segment(specification)}"


def used(path: str) -> str:
    """Where it is kept when the file at this path was last relied on."""
    return f"{USED}/{path}"


def scratch_name() -> str:
    """A name for a scratch folder that tells when and by which process it was made, so that the dead can be buried."""
    now = dt.datetime.now(dt.UTC).strftime(_SCRATCH_TIME)
    return "-".join((now, *_scratch_owner(this_process()), secrets.token_hex(4)))


def scratch_made(name: str) -> tuple[float, bool | None] | None:
    """When and by whom a scratch folder was made.

    Returns:
        Seconds since 1970 by its maker's clock, and whether its maker still lives (None where that cannot be told from
        here); None for a name that `scratch_name` did not make.
    """
    match = _SCRATCH.match(name)
    if match is None:
        return None
    made, host, boot, pid, started = match.groups()
    when = dt.datetime.strptime(made, _SCRATCH_TIME).replace(tzinfo=dt.UTC).timestamp()
    here = this_process()
    if (host, boot) != _scratch_owner(here)[:2]:
        return when, None
    return when, is_alive(ProcessId(host=here.host, boot=here.boot, pid=int(pid), started=started))


def _scratch_owner(process: ProcessId) -> tuple[str, ...]:
    host = re.sub(r"[^A-Za-z0-9.]", "_", process.host)
    return host, hashlib.sha256(process.boot.encode()).hexdigest()[:8], str(process.pid), process.started


def check_file_name(name: str) -> None:
    """Refuse a file name inside an artifact that is absolute or leaves the artifact.

    Raises:
        StoreError
    """
    path = PurePosixPath(name)
    if (
        name in ("", ".")
        or "\\" in name
        or "\0" in name
        or path.is_absolute()
        or ".." in path.parts
        or str(path) != name
    ):
        raise StoreError(
            "Not a name for a file of an artifact.", got=repr(name), fix="write it relative, like part/0.parquet"
        )


def _segment(name: str) -> str:
    if not _SEGMENT.fullmatch(name) or ".." in name:
        raise StoreError("Not a name for a folder of the store.", got=repr(name))
    return name

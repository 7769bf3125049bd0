"""What is known of a landed file before it is read: its name, whether that is accepted, and whether it is complete."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ml_platform.pipeline import NamedBatches, Pipeline

SUFFIXES = {"marker": ".done", "checksum": ".sha256"}
"""What stands behind a file's name in the name of the file beside it that says it is complete."""


REFERENCES = "references"
"""The folder of reference tables."""


@dataclass(frozen=True)
class LandedFile:
    """A file as it was listed. `version` changes with its bytes; `modified` is in seconds since 1970; `checksum` is
    the file beside it that holds its SHA-256, where the source declares one."""

    url: str
    size: int
    version: str
    modified: float
    checksum: LandedFile | None = None


@dataclass(frozen=True)
class RefusedFile:
    """A file that is there and will not be taken."""

    url: str
    reason: str


class LandedFiles(dict[str, LandedFile]):
    """What has landed of a feed, by batch (by name for references), and what was refused."""

    def __init__(self, files: dict[str, LandedFile], refused: tuple[RefusedFile, ...]) -> None:
        super().__init__(sorted(files.items()))
        self.refused = refused


def name_of(pipeline: Pipeline | str) -> str:
    """The name of a pipeline that is given whole or by its name."""
    return pipeline if isinstance(pipeline, str) else pipeline.name


def refusal(pipeline: Pipeline | str, feed: str, name: str, suffix: str, format_: str) -> str | None:
    """Why a file of this name is not taken; "" when it is none of this listing's business, None when it is taken."""
    safe = NamedBatches()
    if not safe.accepts(name_of(pipeline)) or not safe.accepts(feed):
        return "the names of the pipeline and of the source must not leave the folder"
    if not safe.accepts(name):
        return f"a name is {safe.describe()}"
    if isinstance(pipeline, Pipeline):
        if feed == REFERENCES:
            declared = {reference.name: reference.format for reference in pipeline.references}
            if name not in declared:
                return f"the pipeline's references are {', '.join(declared) or 'none'}"
            if suffix == declared[name] != format_:
                return ""
        elif feed not in {source.name for source in pipeline.sources}:
            return f"the pipeline's sources are {', '.join(source.name for source in pipeline.sources)}"
        elif not pipeline.batches.accepts(name):
            return f"a batch is {pipeline.batches.describe()}"
    return None if suffix == format_ else f"the feed is declared as {format_}: the name must end in .{format_}"


def declared_complete(pipeline: Pipeline | str, feed: str) -> str:
    """How it is known that a feed's file is complete. Nothing is asked of references, nor of who gives a name only."""
    sources = () if isinstance(pipeline, str) else pipeline.sources
    return next((source.complete for source in sources if source.name == feed), "still")


def vouched(file: LandedFile, beside: Mapping[str, LandedFile | str], complete: str) -> LandedFile | None:
    """The file, if what stands beside it says that it is complete. An older marker is of what was there before."""
    voucher = beside.get(file.url.rpartition("/")[2])
    if not isinstance(voucher, LandedFile) or voucher.modified < file.modified:
        return None
    return replace(file, checksum=voucher) if complete == "checksum" else file


def local_file(path: Path | str, stat: os.stat_result | None = None) -> LandedFile:
    """A file of a folder, as it is now or as `stat` has it. Raises FileNotFoundError."""
    stat = stat or os.stat(path)
    return LandedFile(str(path), stat.st_size, f"{stat.st_mtime_ns}-{stat.st_ino}", stat.st_mtime)


def remote_file(url: str, info: dict[str, Any]) -> LandedFile:
    """A file as fsspec describes it."""
    marks = [str(info[key]) for key in ("ETag", "etag", "generation", "md5Hash") if info.get(key)]
    times = [info[key] for key in ("LastModified", "last_modified", "mtime", "updated", "created") if info.get(key)]
    modified = times[0].timestamp() if times and isinstance(times[0], dt.datetime) else 0.0
    return LandedFile(url, int(info["size"]), marks[0] if marks else str(times[0]) if times else "", modified)

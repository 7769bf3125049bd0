"""A checkpoint's tensors on disk, as torch.distributed.checkpoint writes them: each rank a file, and one `.metadata`.

Only tensors are written, so none is a pickled object: `torch.load(weights_only=True)` reads them. `.metadata` is a
pickle, and is read by an unpickler that knows the few classes it is made of and refuses any other.
It is imported when this module is, by the one thread that there is then: torch's modules import each other in circles,
and two threads that import them at once can come to wait for each other for good.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from ml_platform.errors import TrainingError

METADATA = ".metadata"
_KNOWN = {
    "torch.distributed.checkpoint.metadata": {
        *("ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties"),
        *("TensorStorageMetadata", "_MEM_FORMAT_ENCODING"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", *(name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype))},
    "pathlib": {"PosixPath"},
    "pathlib._local": {"PosixPath"},
}


class WriteError(Exception):
    """A rank could not write its part: the same on all ranks."""


def write(tensors: Mapping[str, Tensor], draft: Path, group: dist.ProcessGroup | None, rank: int) -> list[str]:
    """Write this rank's part, together with the others. All of it is flushed when this returns, on every rank.

    Args:
        tensors: on the CPU. A plain tensor is given by one rank alone, a DTensor by all that have a shard of it.
        draft: the folder.
        group: of all ranks; None where there is but one.
        rank: this one.

    Returns:
        The files that this rank wrote.

    Raises:
        WriteError: some rank could not write.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # it is one process, and means it
        try:
            save(
                dict(tensors),
                storage_writer=FileSystemWriter(draft, overwrite=True),
                planner=DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
                process_group=group,
                no_dist=group is None,
            )
        except CheckpointException as error:
            causes = {at: cause[0] for at, cause in sorted(error.failures.items())}
            raise WriteError("; ".join(f"rank {at}: {cause}" for at, cause in causes.items())) from error
    mine = sorted(path.name for path in draft.glob(f"__{rank}_*"))
    return [METADATA, *mine] if rank == 0 else mine


class Parts:
    """A checkpoint to read from.

    Args:
        folder: whole, by its hashes.

    Raises:
        TrainingError: its metadata holds something else than tensors.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with (folder / METADATA).open("rb") as file:
            self._metadata = _Metadata(file).load()
        found = self._metadata.state_dict_metadata
        self.shapes: dict[str, torch.Size] = {name: each.size for name, each in found.items()}
        self.dtypes: dict[str, torch.dtype] = {name: each.properties.dtype for name, each in found.items()}

    def read(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill tensors, or this rank's shards of them, by name. No rank waits for another."""
        metadata = self._metadata

        class Reader(FileSystemReader):
            def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
                return metadata

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            load(
                dict(tensors),
                storage_reader=Reader(self._folder),
                planner=DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
                no_dist=True,
            )

    def read_alone(self, names: list[str]) -> dict[str, Tensor]:
        """Whole tensors, on the CPU."""
        tensors = {name: torch.empty(self.shapes[name], dtype=self.dtypes[name]) for name in names}
        self.read(tensors)
        return tensors


def _member(kind: Any, name: str) -> Any:
    """A member of an enum, and nothing else that a class has."""
    if isinstance(kind, type) and issubclass(kind, Enum) and name in kind.__members__:
        return kind[name]
    raise TrainingError("A checkpoint's metadata holds what does not belong there.", got=f"builtins.getattr of {name}")


class _Metadata(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _KNOWN.get(module, ()):
            return super().find_class(module, name)
        if (module, name) == ("builtins", "getattr"):  # how Python 3.11 pickled members of enums up to 3.11.3
            return _member
        raise TrainingError("A checkpoint's metadata holds what does not belong there.", got=f"{module}.{name}")

"""Gradients averaged over ranks of one machine through memory that they share, in place of gloo's sockets.

Each rank puts its gradients into a place of its own, tells the others, and sums all places in the order of the ranks,
so every rank comes to the same bytes, and two ranks to those that gloo comes to. There are two sets of places in turn:
who hears that all have filled one set knows that nobody reads the other any more, so one meeting a sum is enough.

A meeting is a byte from everyone to everyone over Unix sockets: the kernel orders memory around it, nobody waits by
spinning, and the end of a rank is noticed at once, by whoever waits for it.
"""

# DistributedDataParallel looks at a hook's annotations themselves: they must not be put off.

import logging
import mmap
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ml_platform.errors import TrainingError
from ml_platform.training.place import Place

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
PLACE_BYTES = 2**20
"""Of gradients that are summed at once: few enough to stay in a processor's cache."""
_SECONDS = 1800.0
"""How long a rank waits for another, as gloo does."""
_MEMORY = Path("/dev/shm")


class SharedSums:
    """This rank's end, open as long as the process lives. `shared_sums` makes it, on all ranks together."""

    def __init__(self, memory: Tensor, rank: int, peers: dict[int, socket.socket], patience: float) -> None:
        self._memory, self._rank, self._peers = memory, rank, peers
        self._turn, self._patience = 0, patience
        for peer in peers.values():
            peer.settimeout(patience)

    def mean(self, values: Tensor) -> None:
        """Replace values by their mean over the ranks. All ranks call it with as many values of the same type.

        Args:
            values: contiguous, (n,), on the CPU.

        Raises:
            ConnectionError: another rank has ended.
        TrainingError: another rank does not come.
        """
        world = len(self._memory[0])
        for part in torch.split(values, PLACE_BYTES // values.element_size()):
            places = self._memory[self._turn].view(part.dtype)[:, : len(part)]
            torch.mul(part, 1.0 / world, out=places[self._rank])
            self._meet()
            torch.add(places[0], places[1], out=part)
            for other in places[2:]:
                part.add_(other)
            self._turn = 1 - self._turn

    def hook(self, _: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
        """For DistributedDataParallel.register_comm_hook."""
        self.mean(bucket.buffer())
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    def _meet(self) -> None:
        for peer in self._peers.values():
            peer.sendall(b"\0")
        for other, peer in self._peers.items():
            try:
                here = peer.recv(1)
            except TimeoutError:
                raise TrainingError(
                    f"Rank {other} does not come to where the ranks meet after each step: it hangs.",
                    where=f"rank {self._rank}, which waits for it",
                    got=f"nothing for {self._patience:g} s",
                    fix=f"look for what only rank {other} waits for or does so slowly: reading, locks, the network",
                ) from None
            if not here:
                raise ConnectionError("Connection closed by peer: another rank has ended")


def shared_sums(place: Place, *, patience: float = _SECONDS) -> SharedSums | None:
    """What the ranks sum with. None where they are not all on one machine and on its CPUs, or where memory cannot be
    shared: all of them come to the same answer.

    Args:
        place: this rank's.
        patience: seconds that a rank waits for another.
    """
    if place.world == 1 or place.local_world < place.world or place.device != "cpu":
        return None
    (folder, *_) = place.gather(_tried(lambda: _make(place.world)) if place.rank == 0 else None)
    if folder is None:
        return None
    sums = None
    try:
        listening = _tried(lambda: _listen(folder, place.rank))
        if all(place.gather(listening is not None)) and listening is not None:
            with listening:
                sums = _tried(lambda: _join(folder, place, listening, patience))
        return sums if all(place.gather(sums is not None)) else None
    finally:
        if place.rank == 0:  # what is open stays
            shutil.rmtree(folder, ignore_errors=True)


def _make(world: int) -> str:
    """A folder, in memory where there is such a place, with room for all ranks' gradients."""
    folder = Path(tempfile.mkdtemp(prefix="ranks-", dir=_MEMORY if _MEMORY.is_dir() else None))
    try:
        (folder / "memory").write_bytes(bytes(2 * world * PLACE_BYTES))  # written, so it is known to be there
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return str(folder)


def _listen(folder: str, rank: int) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.settimeout(_SECONDS)
    listening.bind(f"{folder}/{rank}")
    listening.listen()
    return listening


def _join(folder: str, place: Place, listening: socket.socket, patience: float) -> SharedSums:
    """Open the memory, and a connection to every other rank. All listen."""
    with Path(folder, "memory").open("r+b") as file:
        memory = torch.frombuffer(mmap.mmap(file.fileno(), 0), dtype=torch.uint8)
    peers = {}
    for other in range(place.rank):
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(_SECONDS)
        peer.connect(f"{folder}/{other}")
        peer.sendall(place.rank.to_bytes(4))
        peers[other] = peer
    for _ in range(place.rank + 1, place.world):
        peer, _address = listening.accept()
        peer.settimeout(_SECONDS)
        peers[int.from_bytes(peer.recv(4))] = peer
    return SharedSums(memory.view(2, place.world, PLACE_BYTES), place.rank, peers, patience)


def _tried(attempt: Callable[[], _T]) -> _T | None:
    """None where the system refuses: gloo does as well, only slower."""
    try:
        return attempt()
    except OSError as error:
        _log.info("Ranks cannot share memory, and sum by gloo: %s", error)
        return None

"""How this machine differs from the one on which a model was built: said before it is built once more."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_platform.java import find_java
from ml_platform.versions.libraries import version_of

if TYPE_CHECKING:
    from ml_platform.provenance.record import Record
    from ml_platform.settings import Settings


@dataclass(frozen=True)
class Difference:
    """One thing that is otherwise: what, how it was, how it is here. "" is what is not known, or not there."""

    what: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.what}: {self.then or 'unknown'} then, {self.now or 'none'} here"


def differences(record: Record, settings: Settings) -> list[Difference]:
    """What of Python, Java, libraries, processor and device differs. Imports torch, to ask it for the device."""
    return [each for each in _compared(record, settings) if each.then and each.then != each.now]


def _compared(record: Record, settings: Settings) -> Iterator[Difference]:
    then, topology = record["environment"], record["topology"]
    yield Difference("Python", then["python"], platform.python_version())
    yield Difference("machine", then["machine"], f"{platform.system()} {platform.machine()}")
    java = find_java(settings.java_home).version.partition('"')[2].rstrip('"')
    yield Difference("Java", then["java"], java)
    for name, version in then["libraries"].items():
        yield Difference(name, version, version_of(name) or "")
    yield Difference("image", then["image"], settings.image_digest)
    import torch

    if topology.get("device", "cpu") != "cpu":
        gpu = torch.cuda.is_available() and settings.device != "cpu"
        yield Difference("device", topology["device"], torch.cuda.get_device_name() if gpu else "cpu")
    here = torch.backends.cpu.get_cpu_capability()  # type: ignore[no-untyped-call,unused-ignore]
    yield Difference("processor's instructions", topology.get("cpu_capability", ""), here)

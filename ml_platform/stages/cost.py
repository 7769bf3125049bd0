"""What building an artifact costs, told from those that were built before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_platform.store.manifest import Manifest

MINUTE, HOUR = 60, 3600


@dataclass(frozen=True)
class Cost:
    """Seconds of a stage's bodies (not of starting processes around them), and GPU-hours."""

    seconds: float = 0.0
    gpu_hours: float = 0.0

    def __mul__(self, times: int) -> Cost:
        return Cost(self.seconds * times, self.gpu_hours * times)

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.gpu_hours + other.gpu_hours)

    def to_dict(self) -> dict[str, float]:
        """As JSON."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


def cost_of(artifacts: Sequence[Manifest]) -> Cost | None:
    """What one more costs: the mean of these; None where there are none."""
    if not artifacts:
        return None
    total = sum((Cost(each.seconds, _gpu_hours(each)) for each in artifacts), Cost())
    return Cost(total.seconds / len(artifacts), total.gpu_hours / len(artifacts))


def _gpu_hours(artifact: Manifest) -> float:
    """Of a training job on GPUs, one for each process: its wall time times their number. To choose among candidates is
    no such job, though it tells how the chosen one was trained."""
    if "candidates" in artifact.facts:
        return 0.0
    topology = artifact.facts.get("history", {}).get("topology", {})
    on_gpus = topology.get("device", "cpu") != "cpu"
    return artifact.seconds * topology.get("processes", 1) / HOUR if on_gpus else 0.0


def total(costs: Iterable[Cost | None]) -> Cost:
    """The sum of those that are known."""
    return sum((cost for cost in costs if cost is not None), Cost())


def duration(seconds: float) -> str:
    """Seconds as people say them: "45 s", "3 min 10 s", "2 h 5 min"."""
    if seconds < MINUTE:
        return f"{max(seconds, 0.1):.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s".removesuffix(" 0 s")
    return f"{whole // HOUR} h {whole % HOUR // MINUTE} min".removesuffix(" 0 min")

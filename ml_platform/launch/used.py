"""What the jobs of one name have taken so far: counted over all attempts and launches, and kept by the launcher where
the next one finds it, whoever that is and however the one before ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

from ml_platform.errors import StoreError, TrainingError
from ml_platform.training.config import TrainingJob

KEEP_SECONDS = 5.0
"""How much a launcher that is killed may forget."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Used:
    """What a job has taken.

    Args:
        seconds: for which it ran.
        gpu_seconds: GPUs times seconds, each for as long as it was taken.
        until: up to when that is counted, in seconds since 1970, where a job may run without being looked at.
    """

    seconds: float = 0.0
    gpu_seconds: float = 0.0
    until: float = 0.0

    def plus(self, seconds: float, gpus: int, *, until: float = 0.0) -> Used:
        """And a while more, for which it ran on so many GPUs."""
        return Used(self.seconds + seconds, self.gpu_seconds + seconds * gpus, until)

    def beyond(self, job: TrainingJob, said: Sequence[str] = ()) -> TrainingError | None:
        """The error of a job that has taken more than its recipe lets it; None where it has not.

        Args:
            job: which.
            said: its last lines, which tell one that was slow from one that did not get on.
        """
        limit, ceiling = job.recipe.timeout_seconds, job.recipe.gpu_hours
        hours = self.gpu_seconds / 3600
        if limit is not None and self.seconds > limit:
            what, raised = "The training job has run for longer than it may", "Recipe.timeout_seconds"
            got = f"{self.seconds:.0f} s in all its attempts; {raised} is {limit:g}"
        elif ceiling is not None and hours > ceiling:
            what, raised = "The training job has taken more GPU-hours than it may", "Recipe.gpu_hours"
            got = f"{hours:.3g} GPU-hours in {self.seconds:.0f} s, in all its attempts; {raised} is {ceiling:g}"
        else:
            return None
        if said:
            got += "; the last that it said:" + "".join(f"\n    {line}" for line in said)
        fix = f"raise {raised}: it goes on from its last checkpoint; or let the recipe do less"
        return TrainingError(f"{what}, and was ended.", where=job.pipeline, got=got, fix=fix)

    @classmethod
    def from_record(cls, record: Mapping[str, float]) -> Used:
        """From what was kept of one (`asdict`); nothing was taken where nothing was kept."""
        return cls(**{each.name: float(record.get(each.name, 0.0)) for each in fields(cls)})


class Meter:
    """Counts on from what was kept, and keeps what it counts.

    Args:
        kept: what was kept so far.
        keep: keeps it, in place of what was.
    """

    def __init__(self, kept: Used, keep: Callable[[Used], object]) -> None:
        self.used, self._keep, self._at = kept, keep, time.monotonic()

    def count(self, used: Used) -> None:
        """Have it be so much by now. It is kept every `KEEP_SECONDS`."""
        self.used = used
        if time.monotonic() - self._at >= KEEP_SECONDS:
            self.keep()

    def keep(self) -> None:
        """Keep it now. Where that cannot be it is logged, and the next time keeps all."""
        self._at = time.monotonic()
        try:
            self._keep(self.used)
        except (OSError, StoreError) as error:
            _log.warning("What the training job has taken so far was not kept: %s", error)

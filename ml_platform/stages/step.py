"""One step of a Dagster run: a stage, many batches, published as they are done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from ml_platform.failures import FAILURE_TAG, Failure, classify
from ml_platform.stages import progress
from ml_platform.stages.execute import Did, Result, execute
from ml_platform.stages.outcome import TAGGING, note_stage
from ml_platform.stages.publish import Publisher
from ml_platform.stages.summary import StageSummary
from ml_platform.words import few

if TYPE_CHECKING:
    from ml_platform.stages.stage import Bench, Stage


SHOWN = 5
"""Reasons, and batches of one reason, that a message names."""


class StageRun:
    """A stage being carried out inside a step. Iterate over `results`, then ask `summary` and `refuse`."""

    def __init__(
        self,
        stage: Stage,
        bench: Bench,
        batches: Sequence[str] | None,
        *,
        again: bool,
        force: bool = False,
        partial: bool = False,
    ) -> None:
        self.stage, self.bench = stage, bench
        self.publisher = Publisher(stage, bench.chain, bench.context, again=again or force)
        self._batches, self._force, self._partial, self._again = batches, force, partial, again
        self._counts = dict.fromkeys(Did, 0)
        self._seconds = 0.0
        self._lasting = False
        self.reasons: dict[Did, dict[str, str]] = {Did.REJECTED: {}, Did.FAILED: {}, Did.BLOCKED: {}}

    def results(self) -> Iterator[Result]:
        """Each artifact as it is settled; the caller publishes it."""
        try:
            yield from self._results()
        except Exception as error:  # of no single artifact: the store or the landing place, for instance
            self._classify(lasting=classify(error) == "permanent")
            raise

    def _results(self) -> Iterator[Result]:
        started = time.monotonic()
        total = done = 0

        def tell(count: int, message: str) -> None:
            nonlocal total
            if self.bench.stopping.is_set():
                raise KeyboardInterrupt
            total = done + count
            self._tell(done, total, message)

        for result in execute(self.stage, self.bench, self._batches, force=self._force, tell=tell):
            self._counts[result.did] += 1
            if result.did in self.reasons:
                self.reasons[result.did][result.batch] = result.reason
            self._lasting |= result.did is Did.FAILED and not result.passing
            if result.did in (Did.BUILT, Did.FAILED):
                done += 1
                self._tell(done, max(total, done))
            yield result
        self._seconds = time.monotonic() - started
        self._tell(max(total, 1), max(total, 1))
        note_stage(self.bench.context.instance, self.bench.run_id, self.summary())

    def log_all(self) -> None:
        """Carry the stage out, publishing everything as logged events."""
        for result in self.results():
            self.publisher.log(result)

    def summary(self) -> StageSummary:
        """What became of the batches."""
        told = self._partial or not any(self._counts[did] for did in (Did.BUILT, Did.CACHED, Did.FRESH))
        return StageSummary(
            name=self.stage.name,
            built=self._counts[Did.BUILT],
            cached=self._counts[Did.CACHED],
            fresh=self._counts[Did.FRESH],
            rejected=self._counts[Did.REJECTED],
            failed=self._counts[Did.FAILED],
            seconds=self._seconds,
            detail=next(iter(self.reasons[Did.BLOCKED].values()), "") if self._lenient and told else "",
        )

    @property
    def _lenient(self) -> bool:
        """Whether what cannot be built yet is only told."""
        return self._partial or (self.stage.apart and not self._again)

    def refuse(self) -> dg.Failure | None:
        """The failure that a step must end in, if any: something failed, or nothing of what was asked could be had.

        A run of some batches is not for what reads them all: that may wait for the others, or stand as it was before.
        A stage apart waits for what this run may not be able to bring about, such as a person's word.
        """
        failed, rejected, blocked = (self.reasons[did] for did in (Did.FAILED, Did.REJECTED, Did.BLOCKED))
        usable = sum(self._counts[did] for did in (Did.BUILT, Did.CACHED, Did.FRESH))
        partial = self._lenient and (self.stage.apart or not self.stage.partitioned) and not rejected
        if not failed and (usable or partial or not (rejected or blocked)):
            return None
        self._classify(lasting=self._lasting or not failed)
        reasons = failed or rejected or blocked
        by_reason: dict[str, list[str]] = {}
        for batch, reason in reasons.items():
            by_reason.setdefault(reason, []).append(batch)
        told = [f"{few(batches, SHOWN)}: {reason}".removeprefix(": ") for reason, batches in by_reason.items()]
        more = f"\n... and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
        shown = "\n".join(told[:SHOWN])
        word = "failed" if failed else "was rejected" if rejected else "cannot be built"
        metadata: dict[str, Any] = {word: len(reasons)}
        return dg.Failure(f"{self.stage.name} {word}.\n{shown}{more}", metadata=metadata, allow_retries=False)

    def _classify(self, *, lasting: bool) -> None:
        """Say on the run whether trying again later makes sense. One lasting failure makes it a lasting one."""
        instance, run_id = self.bench.context.instance, self.bench.run_id
        with TAGGING:
            run = instance.get_run_by_id(run_id)
            if run is not None and run.tags.get(FAILURE_TAG) != "permanent":
                failure: Failure = "permanent" if lasting else "passing"
                instance.add_run_tags(run_id, {FAILURE_TAG: failure})

    def _tell(self, done: int, total: int, message: str = "") -> None:
        progress.notify(self.bench.run_id, self.stage.name, done, max(total, 1), message)

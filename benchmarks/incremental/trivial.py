"""Chains of trivial stages, carried out by the platform as any other: versions, manifests, fsync, Dagster's events.

    python -m benchmarks.incremental.trivial daily|chain FOLDER HOME COUNT

`daily` is `raw_batch` as it is, two stages over its batches that do next to nothing, and one over them all. `chain` is
COUNT stages in a row without batches. FOLDER holds the package `made`.
"""

from __future__ import annotations

import csv
import json
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.incremental import bodies, made
from ml_platform.settings import Settings
from ml_platform.stages.raw_batch import RawBatch
from ml_platform.stages.stage import UNPARTITIONED, Bench, Outcome, Stage, Work
from ml_platform.store.manifest import Manifest
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.stages.chain import Chain

FILE = "rows.json"
CODE = "benchmarks.incremental.bodies"


class Trivial(Stage):
    """A stage whose artifact is a small JSON file."""

    description = "Next to nothing."
    upstream: tuple[str, ...] = ()

    def code(self) -> CodeVersion:
        return code_version((f"{CODE}:valid",), params={})

    def outcome(self, bench: Bench, work: Work, value: object) -> Outcome:
        """The value as what was made."""
        path = bench.scratch / f"{uuid.uuid4().hex}.json"
        path.write_text(json.dumps(value))
        return Outcome(batch=work.batch, data_version=short_hash(value), files={FILE: path})


class OfBatches(Trivial):
    """One that makes something of each batch of another stage."""

    partitioned = True
    chunk = 500

    def __init__(self, pipeline: Pipeline, name: str, before: str) -> None:
        super().__init__(pipeline)
        self.name, self.upstream = name, (before,)

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        (before,) = self.upstream
        return {
            batch: m if isinstance(m, str) else {f"{before}/{batch}": m.data_version}
            for batch, m in chain.settled(before, batches).items()
        }

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        (before,) = self.upstream
        for work in works:
            manifest = work.manifests[f"{before}/{work.batch}"]
            yield self.outcome(bench, work, self.make(bench, manifest))

    def make(self, bench: Bench, before: Manifest) -> list[int]:
        """What becomes of a batch."""
        return bodies.doubled(json.loads(bench.store.read_bytes(before.file(FILE))))


class Checked(OfBatches):
    """The numbers of a landed file."""

    def make(self, bench: Bench, before: Manifest) -> list[int]:
        """The numbers, if they are as they should be."""
        text = bench.store.read_bytes(before.file("numbers.csv")).decode()
        return bodies.valid([int(row["number"]) for row in csv.DictReader(text.splitlines())])


class OverAll(Trivial):
    """One number made of all batches."""

    name = "model"
    upstream = ("features",)

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        settled = chain.settled("features", chain.taken())
        if reasons := [m for m in settled.values() if isinstance(m, str)]:
            return {UNPARTITIONED: reasons[0]}
        return {UNPARTITIONED: {f"features/{b}": m.data_version for b, m in settled.items() if isinstance(m, Manifest)}}

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        (work,) = works
        values = [json.loads(bench.store.read_bytes(m.file(FILE))) for m in work.manifests.values()]
        yield self.outcome(bench, work, bodies.added(values))


class Link(Trivial):
    """One of a row of stages without batches."""

    def __init__(self, pipeline: Pipeline, number: int) -> None:
        super().__init__(pipeline)
        self.name = f"s{number}"
        self.upstream = (f"s{number - 1}",) if number else ()

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        if not self.upstream:
            return {UNPARTITIONED: {}}
        (name,) = self.upstream
        before = chain.settled(name, [UNPARTITIONED])[UNPARTITIONED]
        return {UNPARTITIONED: before if isinstance(before, str) else {name: before.data_version}}

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        (work,) = works
        before = [json.loads(bench.store.read_bytes(m.file(FILE))) for m in work.manifests.values()]
        yield self.outcome(bench, work, bodies.added([before]) + 1)


def daily(pipeline: Pipeline) -> dict[str, Stage]:
    """Three stages a batch, and one over all."""
    stages = [
        RawBatch(pipeline),
        Checked(pipeline, "validated_batch", "raw_batch"),
        OfBatches(pipeline, "features", "validated_batch"),
        OverAll(pipeline),
    ]
    return {stage.name: stage for stage in stages}


def chain(pipeline: Pipeline, count: int) -> dict[str, Stage]:
    """As many stages in a row."""
    return {link.name: link for link in (Link(pipeline, number) for number in range(count))}


def carry_out(stages: Mapping[str, Stage], settings: Settings, **config: object) -> None:
    """One Dagster run in this process, as `ml-platform run` makes it. Prints how many bodies ran.

    Raises:
        RuntimeError: it failed.
    """
    from ml_platform.instance import prepare_instance
    from ml_platform.stages.assets import build_chain_job
    from ml_platform.stages.outcome import stages_done
    from ml_platform.stages.resources import build_resources

    with prepare_instance(settings) as instance:
        run = build_chain_job(stages).execute_in_process(
            instance=instance,
            resources=build_resources(settings),
            run_config={"console": "CRITICAL", **config},
            raise_on_error=False,
        )
        record = instance.get_run_by_id(run.run_id)
        assert record is not None
        done = stages_done(record)
        print("bodies", sum(stage.built for stage in done))
        if not run.success:
            raise RuntimeError("\n".join(str(e.step_failure_data) for e in run.all_events if e.is_step_failure))


def main() -> None:
    """The command line."""
    what, folder, home, count = sys.argv[1:]
    pipeline = made.load(Path(folder))
    settings = Settings(home=Path(home), settle_seconds=0.0)
    carry_out(daily(pipeline) if what == "daily" else chain(pipeline, int(count)), settings)


if __name__ == "__main__":
    main()

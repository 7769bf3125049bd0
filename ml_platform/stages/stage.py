"""What a stage is: where it stands in the chain, what it reads, and a body that treats many batches at once.

A body never sees Dagster's events. It gets `Work` (a batch and its settled inputs) and yields an `Outcome` for each;
`execute.py` looks for a known artifact first, commits what was built, and publishes it.
"""

from __future__ import annotations

import functools
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ml_platform.store.manifest import Manifest

if TYPE_CHECKING:
    from dagster import AssetExecutionContext, MetadataValue, OpExecutionContext

    from ml_platform.landing import Landing
    from ml_platform.launch.protocol import Launcher
    from ml_platform.pipeline import Pipeline
    from ml_platform.registry.tracking import MlflowResource
    from ml_platform.settings import Settings
    from ml_platform.stages.chain import Chain
    from ml_platform.store import Store
    from ml_platform.versions.code import CodeVersion

UNPARTITIONED = ""
"""The batch name of an artifact that belongs to no batch."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One artifact to build: `inputs` are data versions by input name, `manifests` the artifacts behind them."""

    batch: str
    inputs: Mapping[str, str]
    manifests: Mapping[str, Manifest]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What one asset check said. Kept in the manifest's facts, so that a cached artifact says it again."""

    name: str
    passed: bool
    description: str = ""
    warn: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a body made of one `Work`.

    Args:
        batch: whose.
        data_version: hash of the content; "" where `error` is set.
        files: local files of the artifact, by name.
        facts: JSON facts about the content.
        checks: results of the stage's asset checks.
        rejected: why a gate refused it, or "" when it is accepted.
        gated: whether the stage is a gate at all.
        waived: a person has accepted it, though the gate would have rejected it.
        inputs: what it turned out to be made of, where that is not what the work says: its name follows from this.
        error: why nothing could be built; nothing is committed then.
        passing: whether the error may go away by itself (`failures`).
    """

    batch: str
    data_version: str = ""
    files: Mapping[str, Path] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    checks: Sequence[CheckResult] = ()
    rejected: str = ""
    gated: bool = False
    waived: bool = False
    inputs: Mapping[str, str] | None = None
    error: str = ""
    passing: bool = False

    @property
    def verdict(self) -> str:
        """What the manifest says of it."""
        if not self.gated:
            return ""
        return "rejected" if self.rejected else "waived" if self.waived else "accepted"


@dataclass(frozen=True, kw_only=True)
class Check:
    """A declared asset check of a stage; blocking unless it only warns."""

    name: str
    description: str
    blocking: bool = True


@dataclass(kw_only=True)
class Bench:
    """Everything a body may use while it runs. `scratch` is a folder that vanishes afterwards; `stopping` is set when
    the run was ended, for bodies in threads that no signal reaches."""

    chain: Chain
    context: OpExecutionContext | AssetExecutionContext
    spark: Any
    mlflow: MlflowResource
    launcher: Launcher
    scratch: Path
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that runs."""
        return self.chain.pipeline

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        return self.chain.settings

    @property
    def store(self) -> Store:
        """Where artifacts are."""
        return self.chain.store

    @property
    def landing(self) -> Landing:
        """Where data lands."""
        return self.chain.landing

    @property
    def run_id(self) -> str:
        """The Dagster run."""
        return self.context.run.run_id

    @property
    def log(self) -> logging.Logger:
        """The run's log, shown in the UI."""
        return self.context.log


class Stage(ABC):
    """One asset of the chain.

    Attributes:
        name: last part of the asset key.
        partitioned: whether it has one artifact a batch.
        kinds: what Dagster's UI shows as icons.
        apart: whether a run carries it out last, whatever became of the stages that it does not read. Where nothing
            of it can be built yet, the run is none the worse.
        waivable: whether a person may accept what its gate rejected.
        chunk: how many batches a body treats in one call at most: what a killed run may lose.
    """

    name: str
    partitioned: ClassVar[bool] = False
    kinds: ClassVar[tuple[str, ...]] = ()
    apart: ClassVar[bool] = False
    waivable: ClassVar[bool] = False
    chunk: ClassVar[int] = 1

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @property
    @abstractmethod
    def description(self) -> str:
        """One paragraph that states the grain."""

    @property
    @abstractmethod
    def upstream(self) -> tuple[str, ...]:
        """Names of the stages that it reads."""

    @property
    def lookback(self) -> int:
        """How many earlier batches an artifact of a batch is made of, beside its own."""
        return 0

    @functools.cached_property
    def version(self) -> CodeVersion:
        """What its code does, read once: a file that is edited while this process runs did not run in it."""
        return self.version_now()

    def version_now(self) -> CodeVersion:
        """What its code does, read now; where the pipeline sets the version by hand, that and the parameters."""
        pin = self.pipeline.versions.get(self.name)
        return self.code() if pin is None else self.code().pinned(pin)

    @abstractmethod
    def code(self) -> CodeVersion:
        """What its code does, read now."""

    @abstractmethod
    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        """For each batch its settled inputs (data version by input name), or the reason why it cannot be built now.

        Inputs name the artifact that they come from: "stage" or "stage/batch".
        """

    @abstractmethod
    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        """Build artifacts, in any order, and yield each as soon as it is done."""

    def committed(self, bench: Bench, work: Work) -> None:  # noqa: B027
        """Called when an artifact that this process built is safe in the store."""

    def restore(self, bench: Bench, work: Work, manifest: Manifest) -> None:  # noqa: B027
        """Called before an artifact from history is published again, for a stage with effects outside the store."""

    def stands(self, chain: Chain, manifest: Manifest) -> bool:
        """Whether what a published artifact left outside the store is still there."""
        return True

    def remedy(self, batch: str) -> str:
        """What a person can do about a rejected artifact, in a sentence or two; "" where the reason says it."""
        return ""

    def checks(self) -> tuple[Check, ...]:
        """The asset checks that every artifact of the stage answers."""
        return ()

    def answers(self, chain: Chain, manifest: Manifest) -> Sequence[Mapping[str, Any]]:
        """The results of an artifact's checks when it is published, as the manifest's facts have them."""
        found: Sequence[Mapping[str, Any]] = manifest.facts.get("checks", ())
        return found

    def metadata(self, chain: Chain, manifest: Manifest) -> dict[str, MetadataValue]:
        """What a person wants to see of an artifact in the UI, beside what every artifact shows."""
        return {}

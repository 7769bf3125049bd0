"""What a run would do, and why: the same statuses that a run acts on, looked at without acting.

A stage whose input will be built anew may run: if the input comes out equal, it will not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ml_platform.stages.chain import Chain, State, Status
from ml_platform.stages.execute import CODE_FILE
from ml_platform.stages.stage import UNPARTITIONED
from ml_platform.store.manifest import Manifest
from ml_platform.versions.code import CodeVersion

if TYPE_CHECKING:
    from ml_platform.stages.stage import Stage

NEVER_BUILT = "never built"


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One stage of a plan. The lists name batches, or hold "" for an unpartitioned stage.

    Args:
        name: the stage.
        fresh: nothing to do.
        known: built before: published again, without running.
        stale: will be built.
        may: will be built unless an input that is built anew comes out equal.
        rejected: refused by a gate, with the reason.
        waiting: cannot be built, with the reason.
        causes: why artifacts are stale, each with the number of artifacts.
        seconds: what building the stale ones takes, by earlier artifacts' time; None where there is no history.
    """

    name: str
    fresh: Sequence[str] = ()
    known: Sequence[str] = ()
    stale: Sequence[str] = ()
    may: Sequence[str] = ()
    rejected: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    causes: Mapping[str, int] = field(default_factory=dict)
    seconds: float | None = None

    @property
    def to_do(self) -> bool:
        """Whether a run would do anything here."""
        return bool(self.known or self.stale or self.may)


def make_plan(chain: Chain) -> list[StagePlan]:
    """What a run over everything that has landed would do, stage by stage. Changes nothing and builds nothing.

    Args:
        chain: with `planning` set.
    """
    assert chain.planning
    plans: dict[str, StagePlan] = {}
    for stage in chain.stages.values():
        plans[stage.name] = _plan_stage(chain, stage, plans)
    return list(plans.values())


def _plan_stage(chain: Chain, stage: Stage, plans: Mapping[str, StagePlan]) -> StagePlan:
    statuses = chain.statuses(stage.name)
    pending = {batch for name in stage.upstream for batch in (*plans[name].stale, *plans[name].may)}
    groups: dict[State | str, list[str]] = {}
    for batch, status in statuses.items():
        # A batch waits for its own inputs; an unpartitioned stage for any, and a batch for an unpartitioned one too.
        waits = status.state is State.BLOCKED and (
            batch in pending or (bool(pending) and UNPARTITIONED in {batch, *pending})
        )
        groups.setdefault("may" if waits else status.state, []).append(batch)
    stale = groups.get(State.STALE, [])
    history = _latest(chain, stage.name) if stale else {}
    causes = [cause for batch in stale for cause in _causes(chain, stage, statuses[batch], history.get(batch))]
    return StagePlan(
        name=stage.name,
        fresh=groups.get(State.FRESH, []),
        known=groups.get(State.KNOWN, []),
        stale=stale,
        may=groups.get("may", []),
        rejected={batch: statuses[batch].reason for batch in groups.get(State.REJECTED, [])},
        waiting={batch: statuses[batch].reason for batch in groups.get(State.BLOCKED, [])},
        causes=dict(Counter(causes)),
        seconds=_estimate(history.values(), len(stale)),
    )


def _latest(chain: Chain, name: str) -> dict[str, Manifest]:
    """The newest artifact of each batch."""
    return {manifest.batch: manifest for manifest in chain.store.artifacts(chain.pipeline.name, name)}


def _causes(chain: Chain, stage: Stage, status: Status, before: Manifest | None) -> list[str]:
    """Why an artifact must be built: what differs from the newest one of its batch."""
    assert status.work is not None
    if before is None:
        return [NEVER_BUILT]
    causes: list[str] = []
    if before.code_version != stage.version.value:
        causes += map(str, stage.version.diff(CodeVersion.from_dict(_code_record(chain, before))))
    now, then = status.work.inputs, before.inputs
    for name in sorted({*now, *then}):
        if now.get(name) != then.get(name):
            what = "is new" if name not in then else "is gone" if name not in now else "changed"
            causes.append(f"input {name.partition('/')[0]} {what}")
    return list(dict.fromkeys(causes)) or ["its artifact is damaged or was removed"]


def _code_record(chain: Chain, manifest: Manifest) -> Mapping[str, object]:
    record: Mapping[str, object] = json.loads(chain.store.read_bytes(manifest.file(CODE_FILE)))
    return record


def _estimate(history: Iterable[Manifest], count: int) -> float | None:
    seconds = [manifest.seconds for manifest in history]
    return round(sum(seconds) / len(seconds) * count, 1) if seconds else None

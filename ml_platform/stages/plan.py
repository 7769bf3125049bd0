"""What a run would do, and why: the same statuses that a run acts on, looked at without acting.

A stage whose input will be built anew may run: if the input comes out equal, it will not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ml_platform.stages.chain import Chain, State, Status
from ml_platform.stages.cost import Cost, cost_of
from ml_platform.stages.stage import UNPARTITIONED
from ml_platform.stages.why import History, Why
from ml_platform.store.gist import paused_collection
from ml_platform.versions.cause import Cause

if TYPE_CHECKING:
    from ml_platform.stages.stage import Stage
    from ml_platform.store.manifest import Manifest

SCHEMA = 1
"""Of the JSON that `plan --json` prints. Raise it when a field changes its meaning or goes."""
SAMPLED = 50
"""Earlier artifacts from which is told what one more costs."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a gate rejected an artifact: the checks that failed, and its own words."""

    gates: tuple[str, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One stage of a plan. The lists name batches, or hold "" for an unpartitioned stage.

    Args:
        name: the stage.
        partitioned: whether it has one artifact a batch.
        fresh: nothing to do.
        known: in history: published again, without running.
        stale: will be built anew: the code or an input changed.
        missing: will be built for the first time.
        may: will be built unless an input that is built anew comes out equal.
        rejected: refused by a gate; nothing is to be done but other data or a waiver.
        waiting: cannot be built, with the reason.
        withdrawn: not to be built, since a person has taken the batch out; with who and why.
        causes: why artifacts are stale or missing; of those that may be built, what is known already.
        waits_for: the stages next above on which those wait that may be built.
        roots: why these will be built: the first causes, each with the stage that it makes stale.
        each: what one artifact costs, by earlier ones; None where there is no history.
    """

    name: str
    partitioned: bool = False
    fresh: Sequence[str] = ()
    known: Sequence[str] = ()
    stale: Sequence[str] = ()
    missing: Sequence[str] = ()
    may: Sequence[str] = ()
    rejected: Mapping[str, Refusal] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    withdrawn: Mapping[str, str] = field(default_factory=dict)
    causes: Sequence[Cause] = ()
    waits_for: Sequence[str] = ()
    roots: Sequence[Cause] = ()
    each: Cost | None = None

    @property
    def build(self) -> tuple[str, ...]:
        """What will certainly be built."""
        return (*self.stale, *self.missing)

    @property
    def to_do(self) -> bool:
        """Whether a run would do anything here."""
        return bool(self.known or self.build or self.may)

    @property
    def cost(self) -> Cost | None:
        """What building all that must be costs; None where it is not known."""
        return Cost() if not self.build else self.each and self.each * len(self.build)

    @property
    def at_most(self) -> Cost | None:
        """What it costs where everything runs that may."""
        return Cost() if not (self.build or self.may) else self.each and self.each * len([*self.build, *self.may])

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "partitioned": self.partitioned,
            **{word: list(getattr(self, word)) for word in ("fresh", "known", "stale", "missing", "may")},
            "rejected": [
                {"batch": batch, "gates": list(refusal.gates), "reason": refusal.reason}
                for batch, refusal in self.rejected.items()
            ],
            "waiting": [{"batch": batch, "reason": reason} for batch, reason in self.waiting.items()],
            "withdrawn": [{"batch": batch, "reason": reason} for batch, reason in self.withdrawn.items()],
            "causes": [cause.to_dict() for cause in self.causes],
            "waits_for": list(self.waits_for),
            "roots": [cause.to_dict() for cause in self.roots],
            "cost": self.cost and self.cost.to_dict(),
            "at_most": self.at_most and self.at_most.to_dict(),
        }


@paused_collection()
def make_plan(
    chain: Chain,
    batches: Collection[str] | None = None,
    *,
    select: Collection[str] | None = None,
    forced: Collection[str] = (),
) -> list[StagePlan]:
    """What a run would do, stage by stage. Changes nothing and builds nothing.

    Args:
        chain: with `planning` set.
        batches: which batches the run is for; None for all that there are.
        select: which stages the run is for; None for all.
        forced: stages that are built anew whatever there is.
    """
    assert chain.planning
    chain.scope = set(chain.stages) if select is None else set(select)
    chain.taking = None if batches is None else set(batches)
    planner = _Planner(chain, None if batches is None else sorted(batches), forced)
    for stage in chain.stages.values():
        if select is None or stage.name in select:
            planner.add(stage)
    return list(planner.plans.values())


class _Planner:
    """Makes a plan stage by stage, in the order of the chain."""

    def __init__(self, chain: Chain, batches: Sequence[str] | None, forced: Collection[str]) -> None:
        self.chain, self.batches, self.forced = chain, batches, forced
        self.history = History(chain)
        self.why = Why(chain, self.history)
        self.plans: dict[str, StagePlan] = {}

    def add(self, stage: Stage) -> None:
        """Plan one more stage."""
        statuses = self.chain.statuses(stage.name, self.batches if stage.partitioned else None)
        if not stage.partitioned and (outside := self._outside(stage)):
            self.plans[stage.name] = StagePlan(name=stage.name, partitioned=False, waiting={UNPARTITIONED: outside})
            self.chain.scope = {name for name in self.plans if name != stage.name}  # what is below goes by what stands
            return
        above = [self.plans[name] for name in stage.upstream if name in self.plans]
        waits_for = [plan for plan in above if plan.build or plan.may]
        groups = self._groups(stage, statuses, {batch for plan in waits_for for batch in (*plan.build, *plan.may)})
        build = {batch: statuses[batch] for batch in groups.get(State.STALE, ())}
        before = self.history.replaced(stage.name, build) if build else {}
        told = self.history.told(stage.name) if build else set()
        never = dict.fromkeys(batch for batch in build if batch not in before and batch not in told)
        may = groups.get("may", [])
        again: list[str] = []
        if stage.name in self.forced:
            again = sorted(b for state in (State.FRESH, State.KNOWN, State.REJECTED) for b in groups.pop(state, ()))
        causes = self.why.causes(stage, build, before) if build else []
        if may:
            own = self.why.code_alone(stage, may)
            causes = [*causes, *(cause for cause in own if cause not in causes)]
        if again:
            causes = [*causes, Cause(kind="artifact", text="asked for", name=stage.name, count=len(again))]
        self.plans[stage.name] = StagePlan(
            name=stage.name,
            partitioned=stage.partitioned,
            fresh=groups.get(State.FRESH, []),
            known=groups.get(State.KNOWN, []),
            stale=[*again, *(batch for batch in build if batch not in never)],
            missing=list(never),
            may=may,
            rejected={batch: _refusal(statuses[batch]) for batch in groups.get(State.REJECTED, ())},
            waiting={batch: statuses[batch].reason for batch in groups.get(State.BLOCKED, ())},
            withdrawn={batch: statuses[batch].reason for batch in groups.get("withdrawn", ())},
            causes=causes,
            waits_for=[plan.name for plan in waits_for] if may else [],
            roots=_roots(waits_for) if may else [],
            each=cost_of(_some(before) or self.history.sample(stage.name, SAMPLED)) if build or may or again else None,
        )

    def _outside(self, stage: Stage) -> str:
        """Why a stage that reads all batches waits for some that the run is not for; "" where it does not."""
        if self.batches is None:
            return ""
        for name in stage.upstream:
            if self.chain.stages[name].partitioned:
                wanted = set(self.batches)
                others = self.chain.statuses(name, [batch for batch in self.chain.taken() if batch not in wanted])
                stale = [batch for batch, status in others.items() if status.state in (State.STALE, State.KNOWN)]
                if stale:
                    return f"{len(stale)} other batches of {name} are out of date; it reads all of them."
        return ""

    def _groups(
        self, stage: Stage, statuses: Mapping[str, Status], pending: set[str]
    ) -> dict[State | str, Sequence[str]]:
        """Batches by state, "may" for those that wait for `pending` ones of the stages above, "withdrawn" for those
        that wait for nothing."""
        window = _Window(stage, statuses, pending)
        withdrawn = self.chain.withdrawals.holding() if stage.upstream else {}
        groups: dict[State | str, list[str]] = {}
        for batch, status in statuses.items():
            if batch in withdrawn:
                groups.setdefault("withdrawn", []).append(batch)
                continue
            if status.state is State.BLOCKED:
                # A batch waits for its own inputs, an unpartitioned stage for any, a batch for an unpartitioned one.
                waits = batch in pending or (bool(pending) and UNPARTITIONED in {batch, *pending})
            else:
                waits = window.waits(batch)
            groups.setdefault("may" if waits else status.state, []).append(batch)
        return dict(groups)


class _Window:
    """The earlier batches that a stage looks back on: when one of them is built anew, so may be what looks on it."""

    def __init__(self, stage: Stage, statuses: Mapping[str, Status], pending: set[str]) -> None:
        self._reach = stage.lookback if stage.partitioned else 0
        self._pending = pending
        ready = {batch for batch, status in statuses.items() if status.state is not State.BLOCKED}
        self._names = sorted(ready | pending) if self._reach and pending else []

    def waits(self, batch: str) -> bool:
        """Whether one of the batches before is pending, so that what the inputs are is not known yet."""
        at = bisect_left(self._names, batch)
        return not self._pending.isdisjoint(self._names[max(0, at - self._reach) : at])


def _some(artifacts: Mapping[str, Manifest]) -> list[Manifest]:
    """As many as tell what one more costs, from all over the batches."""
    found = list(artifacts.values())
    return found[:: max(1, len(found) // SAMPLED)][:SAMPLED]


def _roots(above: Iterable[StagePlan]) -> list[Cause]:
    found: dict[Cause, Cause] = {}
    for plan in above:
        for cause in (*plan.roots, *(replace(cause, stage=plan.name) for cause in plan.causes)):
            found.setdefault(cause, cause)
    return list(found)


def _refusal(status: Status) -> Refusal:
    manifest: Manifest | None = status.manifest
    checks = manifest.facts.get("checks", ()) if manifest else ()
    gates = tuple(check["name"] for check in checks if not check["passed"] and not check.get("warn"))
    return Refusal(gates=gates, reason=status.reason)

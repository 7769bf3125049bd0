"""Who decided which version of a model is used, when, why and on what evidence: an append-only trail in the store.

A decision is a small file with a number, made unless there is one of that number: of two who decide at once one is
first, and the other looks again. It is bound to one model by the data version of what was trained, is written before
an alias moves, and names the hash of the decision before it, so that a change in the middle is noticed. What holds now
follows from all of them, in their order. Another registry has other versions, and so a trail of its own.

That the end of a trail is missing no record of it can tell. So MLflow keeps a mark beside the model: the latest
decision that its aliases show, how many it is, and which trail it is of.

Imports no MLflow: every run looks here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ml_platform.errors import StoreError
from ml_platform.registry import identity
from ml_platform.store import layout
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.store import Store

SCHEMA_VERSION = 1
POLICY = "the policy"
"""Who decided what no person did."""

Action = Literal[
    "promoted", "waiting", "refused", "approved", "rejected", "promoted_by_hand", "rolled_back", "moved_in_mlflow"
]
MOVES = frozenset({"promoted", "approved", "promoted_by_hand", "rolled_back", "moved_in_mlflow"})
"""After these the model is the champion."""
WORDS: Mapping[str, str] = {
    "promoted": "promoted by policy",
    "waiting": "kept as challenger",
    "refused": "refused by its gates",
    "approved": "approved",
    "rejected": "rejected",
    "promoted_by_hand": "promoted by hand",
    "rolled_back": "rolled back to",
    "moved_in_mlflow": "made champion in MLflow itself",
}


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One decision, as it was made.

    Args:
        number: its place in the trail, from 1.
        action: what was decided.
        model: data version of the trained model that it is about, and bound to.
        version: of the registered model; "" for a model that was refused, which has none.
        before: the version that was champion then, "" for none; `before_model` is its model.
        by: who, a person by name; `POLICY` for none.
        reason: why.
        when: UTC, ISO 8601.
        evidence: what was known: `evaluation` (its data version), `metric`, `metrics`, `intervals`, `gain` over the
            champion with its interval, `gates`, `said`, and `run`, the Dagster run. Whatever was not known is left out.
        after: hash of the decision before it.
    """

    number: int
    action: Action
    model: str
    version: str
    before: str = ""
    before_model: str = ""
    by: str
    reason: str
    when: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    after: str = ""

    @property
    def hash(self) -> str:
        """Of all that it says."""
        return short_hash(asdict(self))

    def describe(self) -> str:
        """What, who, when and why, in one line."""
        what = f"version {self.version} {WORDS[self.action]}" if self.version else f"a model {WORDS[self.action]}"
        if self.action == "rolled_back":
            what = f"rolled back from version {self.before or '-'} to {self.version}"
        who = "" if self.action == "promoted" else f" by {self.by}"  # by policy it says already
        return f"{what}{who} on {self.when[:16].replace('T', ' ')} UTC: {self.reason}"


@dataclass(frozen=True)
class Mark:
    """Up to which decision the registry's aliases are as was decided: what a tag of the registered model says.

    Args:
        decision: its hash; "" where nothing was carried out yet.
        number: its place in the trail; 0 where an earlier version of the platform made the mark.
        trail: hash of the trail's first decision, which tells trails in different stores apart; "" likewise.
    """

    decision: str = ""
    number: int = 0
    trail: str = ""

    @classmethod
    def parse(cls, text: str) -> Mark:
        """Of the tag's value."""
        decision, _, more = text.partition(" ")
        number, _, trail = more.partition(" ")
        return cls(decision, int(number), trail) if number.isdecimal() else cls(decision)

    def __str__(self) -> str:
        return f"{self.decision} {self.number} {self.trail}".strip()


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A trail, and what follows from it.

    Args:
        decisions: all of them, in their order.
        damaged: which record of the trail is damaged or missing; "" when none is. What it said may have been a
            rejection: nobody is promoted by policy then.
        lost: the number of the latest decision that was carried out, where the trail has it no more; 0 otherwise.
        elsewhere: what the registry shows was decided by another trail, in another store; or this one is lost whole.
    """

    decisions: tuple[Decision, ...] = ()
    damaged: str = ""
    lost: int = 0
    elsewhere: bool = False

    @property
    def mark(self) -> Mark:
        """What the registry says when all of this is carried out."""
        last = self.last
        return Mark(last.hash, last.number, self.trail) if last else Mark()

    @property
    def trail(self) -> str:
        """Hash of the first decision, also where the second one must tell it; "" where neither is there."""
        first = self.decisions[0] if self.decisions else None
        return "" if first is None else {1: first.hash, 2: first.after}.get(first.number, "")

    @property
    def last(self) -> Decision | None:
        """The latest decision."""
        return self.decisions[-1] if self.decisions else None

    @property
    def champion(self) -> Decision | None:
        """The decision by which the champion became it; None where nobody has decided yet."""
        return next((each for each in reversed(self.decisions) if each.action in MOVES), None)

    @property
    def challenger(self) -> Decision | None:
        """The decision by which a model waits for a person; None where none does."""
        waiting = None
        for each in self.decisions:
            if each.action == "waiting":
                waiting = each
            elif waiting is not None and each.model == waiting.model:
                waiting = None
        return waiting

    def barred(self, model: str) -> Decision | None:
        """The decision that keeps a model from being promoted by itself: a person rejected it, or rolled back from it,
        and nobody has made it the champion since."""
        found = None
        for each in self.decisions:
            about = {"rejected": each.model, "rolled_back": each.before_model}.get(each.action)
            if about == model:
                found = each
            elif each.model == model and each.action in MOVES:
                found = None
        return found

    def displaced(self, model: str) -> Decision | None:
        """The decision by which a person put another model in the place of this one; None where it was champion since,
        or never."""
        for each in reversed(self.decisions):
            if each.action in MOVES and each.model == model:
                return None
            if each.action in MOVES and each.before_model == model:
                return each if each.by != POLICY else None
        return None

    def about(self, model: str) -> list[Decision]:
        """The decisions about a model, those that took the champion's place from it among them."""
        moved = (each for each in self.decisions if each.action in MOVES)
        gone = {each.number for each in moved if each.before_model == model != each.model}
        return [each for each in self.decisions if each.model == model or each.number in gone]

    def was_champion(self, model: str) -> bool:
        """Whether a model was ever promoted."""
        return any(each.model == model and each.action in MOVES for each in self.decisions)

    def evidence(self, model: str) -> Mapping[str, Any]:
        """The latest that was known of a model when something was decided about it."""
        return next((d.evidence for d in reversed(self.decisions) if d.model == model and d.evidence), {})


class Trail:
    """The trail of one registered model.

    Args:
        store: where it is kept.
        name: of the registered model, which is its pipeline's.
        registry: which one it is, see `identity`.
    """

    def __init__(self, store: Store, name: str, registry: str) -> None:
        self._store, self.name, self.registry = store, name, registry

    @classmethod
    def of(cls, store: Store, name: str, tracking_uri: str) -> Trail:
        """The trail for a registry by any of its names."""
        return cls(store, name, identity.known(tracking_uri))

    @staticmethod
    def registries(store: Store, name: str) -> list[str]:
        """Those for which something was decided about a model."""
        return sorted({path.split("/")[-2] for path in store.records(layout.trails(name))})

    def read(self, mark: Mark | None = None) -> Standing:
        """All that was decided by now; and, beside the registry's `mark` (read before), whether its end is there."""
        folder = layout.trail(self.name, self.registry)
        paths = [path for path in self._store.records(folder) if path.endswith(".json")]
        found = self._store.read_records(paths)
        decisions: list[Decision] = []
        damaged = ""
        for path in paths:
            decision = _parsed(found.get(path, b""))
            number = decisions[-1].number + 1 if decisions else 1
            after = decisions[-1].hash if decisions else ""
            if decision is None or (decision.number, decision.after) != (number, after):
                gap = decision is not None and decision.number > number
                damaged = damaged or (layout.trail_record(self.name, self.registry, number) if gap else path)
            if decision is not None:
                decisions.append(decision)
        return self._beside(mark or Mark(), Standing(decisions=tuple(decisions), damaged=damaged))

    def _beside(self, mark: Mark, standing: Standing) -> Standing:
        """A trail with what the registry's mark tells of its end."""
        if not mark.decision or any(each.hash == mark.decision for each in standing.decisions):
            return standing
        if not mark.trail or mark.trail != standing.trail:
            return replace(standing, elsewhere=True)
        lost = layout.trail_record(self.name, self.registry, mark.number)
        return replace(standing, damaged=standing.damaged or lost, lost=mark.number)

    def add(self, standing: Standing, **fields: Any) -> Decision | None:
        """Keep a decision for good, unless another one was made since `standing` was read: then None.

        `fields` are those of a `Decision` but its number and the hash of the one before.

        Raises:
            StoreError: the store cannot be written.
        """
        last = standing.last
        numbers = [standing.lost, *(each.number for each in standing.decisions)]  # what is lost keeps its number
        if standing.damaged:  # the number of what cannot be read is taken all the same
            paths = self._store.records(layout.trail(self.name, self.registry))
            numbers += [int(path.rpartition("/")[2].removesuffix(".json")) for path in paths if path.endswith(".json")]
        decision = Decision(number=max(numbers, default=0) + 1, after=last.hash if last else "", **fields)
        content = {"schema": SCHEMA_VERSION, "hash": decision.hash, **asdict(decision)}
        data = json.dumps(content, sort_keys=True, indent=1, allow_nan=False).encode()
        path = layout.trail_record(self.name, self.registry, decision.number)
        return decision if self._store.add_record(path, data) else None


def decisions_of(store: Store, name: str, tracking_uri: str, model: str | None = None) -> list[Decision]:
    """What was decided about a registered model in a registry, the oldest first.

    Args:
        store: where the trail is kept.
        name: of the registered model.
        tracking_uri: of the registry.
        model: only about this data version of a trained model.
    """
    standing = Trail.of(store, name, tracking_uri).read()
    return list(standing.decisions) if model is None else standing.about(model)


def _parsed(data: bytes) -> Decision | None:
    """A record, or None where it is not what was written.

    Raises:
        StoreError: a later version of the platform wrote it.
    """
    try:
        record = json.loads(data)
        schema, hashed = record.pop("schema"), record.pop("hash")
    except (ValueError, KeyError, AttributeError):
        return None
    if short_hash(record) != hashed:
        return None
    if schema != SCHEMA_VERSION:
        raise StoreError(
            "A decision about a model was written by another version of the platform.",
            got=f"schema {schema}",
            fix="use that version, or a later one",
        )
    return Decision(**record)

"""Who becomes the champion: decisions by policy and by people, written down first and then carried out in MLflow.

Every decision goes the same way, one at a time for a registered model: what an earlier one has left undone is done
first; what is decided is added to the trail; then the aliases are moved. So a process that is killed in between leaves
a trail that is ahead of the aliases, and the next run or command brings them up to it. A tag of the registered model
says how far the trail is carried out. Where an alias is another one all the same, somebody moved it in MLflow itself:
that is added to the trail, and stands.

Before an alias names a version its files are read back and compared with their hashes. What an alias names already is
looked at as well; a damaged version loses its aliases, and they come back when its model is registered again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_platform.errors import RefusedError, RegistryError
from ml_platform.registry import identity
from ml_platform.registry.desk import BARRED_TAG, Desk, mark_of, since
from ml_platform.registry.models import CHALLENGER, CHAMPION, RegisteredVersion
from ml_platform.registry.trail import POLICY, Action, Decision, Trail

if TYPE_CHECKING:
    from ml_platform.registry.connection import Connection
    from ml_platform.store import Store

PATIENCE = 180.0
"""Seconds for which somebody else who decides about the same model is waited for."""
_CLAIMS = "decisions"

_one_at_a_time = threading.RLock()


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """What the policy made of a model: `outcome` is "champion", "challenger" or "barred", `said` is why. `new` is the
    decision that was added to the trail; None where everything stays as it was."""

    outcome: str
    said: str
    version: RegisteredVersion
    new: Decision | None = None


class Promotions:
    """Decides about the versions of one registered model.

    Args:
        connection: to MLflow.
        store: where the trail is kept, and where those who decide wait for each other.
        name: of the registered model.
    """

    def __init__(self, connection: Connection, store: Store, name: str) -> None:
        self._connection, self._store, self.name = connection, store, name
        registry = identity.ensured(connection, self._trail_by_other_name)
        self.trail = Trail(store, name, registry)

    def _trail_by_other_name(self) -> str:
        """What a registry without an identity is to be known as: its name, or the other name by which it was called
        when the decision was made that it shows."""
        first = identity.first_name(self._connection.tracking_uri)
        mark = mark_of(self._connection, self.name)
        if mark is None or not mark.decision or Trail(self._store, self.name, first).read().decisions:
            return first
        for registry in Trail.registries(self._store, self.name):
            if any(each.hash == mark.decision for each in Trail(self._store, self.name, registry).read().decisions):
                return registry
        return first

    def by_policy(
        self,
        model: str,
        *,
        promote: bool,
        person: bool,
        reason: str,
        evidence: Mapping[str, Any],
        against: str | None = None,
        announce: Callable[[RegisteredVersion, str], None] = lambda version, said: None,
    ) -> Ruling | None:
        """Decide about a model that is registered, and whose gates it has passed.

        The champion stays what it is. A model that a person rejected or rolled back from is left alone. Others are
        promoted, or wait as challenger: where only a person may decide, where a person has put another one in its
        place, and where `promote` is False, unless the model was champion before and the pipeline has gone back to it.

        Args:
            model: data version of the trained model.
            promote: whether it is good enough to be promoted by itself.
            person: whether only a person may make it the champion.
            reason: why it is promoted or not, for the trail.
            evidence: see `Decision`.
            against: the champion's model that it was compared with, "" for none; None where it was not compared.
            announce: called before it is written down that a model waits.

        Returns:
            None where there is another champion by now than the one that it was compared with: compare again.

        Raises:
            RegistryError: no sound version of it is registered, or MLflow is away.
        """
        with self._deciding() as desk:
            version = desk.sound(model)
            if version is None:
                raise RegistryError(
                    "The model is not registered.", where=self.name, got=f"data version {model}", fix="run again"
                )
            standing, champion = desk.standing, desk.champion
            is_champion = champion is not None and champion.model == model
            if champion is not None and is_champion and standing.champion is not None:
                return Ruling(outcome="champion", said=since(standing.champion), version=champion)
            if against is not None and not is_champion and against != (champion.model if champion else ""):
                return None
            barred = standing.barred(model)
            if said := barred.describe() if barred else version.tags.get(BARRED_TAG, ""):
                return Ruling(outcome="barred", said=said, version=version)
            action: Action = "waiting"
            if is_champion:
                action, reason = "promoted", "it was the champion already when the trail began"
            elif standing.damaged:
                reason = f"the trail of decisions is damaged ({standing.damaged}), and may hold a rejection"
            elif person:
                reason = f"a person decides; {reason}"
            elif displaced := standing.displaced(model):
                reason = f"a person has put another one in its place: {displaced.describe()}"
            elif promote or standing.was_champion(model):
                action = "promoted"
                reason = reason if promote else "it was the champion before, and the pipeline has gone back to it"
            if action == "waiting":
                waits = standing.challenger
                if waits is not None and waits.model == model:
                    return Ruling(outcome="challenger", said=waits.reason, version=version)
                announce(version, reason)
            decision = desk.decide(action, version, by=POLICY, reason=reason, evidence=evidence)
            outcome = "challenger" if action == "waiting" else "champion"
            return Ruling(outcome=outcome, said=reason, version=desk.again(version), new=decision)

    def homeless(self) -> Decision | None:
        """The decision by which a model is the champion of which no sound version is registered any more, or None."""
        with self._deciding() as desk:
            decided = desk.standing.champion
            return decided if decided and desk.champion is None and desk.sound(decided.model) is None else None

    def refused(self, model: str, *, reason: str, evidence: Mapping[str, Any]) -> None:
        """Write down that the gates refused a model, once."""
        with self._deciding() as desk:
            about = desk.standing.about(model)
            if not (about and about[-1].action == "refused" and about[-1].reason == reason):
                desk.decide("refused", None, model=model, by=POLICY, reason=reason, evidence=evidence)

    def approve(self, version: str, *, by: str, reason: str) -> Decision:
        """Make the challenger the champion.

        Raises:
            RefusedError: it does not wait, is damaged, or a word is missing.
        """
        with self._deciding() as desk:
            found = desk.whole(desk.named(version, by, reason))
            waits = desk.standing.challenger
            if CHALLENGER not in found.aliases or (waits is not None and waits.model != found.model):
                got = "it is the champion" if CHAMPION in found.aliases else "it is not the challenger"
                raise RefusedError(
                    "This version does not wait for approval.",
                    where=desk.where(found),
                    got=got,
                    fix=None
                    if CHAMPION in found.aliases
                    else f'ml-platform models promote {self.name} {version} --reason "..."',
                )
            return desk.decide("approved", found, by=by, reason=reason)

    def reject(self, version: str, *, by: str, reason: str) -> Decision:
        """Say that a version is not to become the champion: no policy promotes its model from now on.

        Raises:
            RefusedError: it is the champion, is rejected already, or a word is missing.
        """
        with self._deciding() as desk:
            found = desk.named(version, by, reason)
            if CHAMPION in found.aliases:
                raise RefusedError(
                    "The champion cannot be rejected.",
                    where=desk.where(found),
                    fix=f'ml-platform models rollback {self.name} --reason "..."',
                )
            barred = desk.standing.barred(found.model)
            if barred is not None and barred.action == "rejected":
                raise RefusedError("It is rejected already.", where=desk.where(found), got=barred.describe())
            return desk.decide("rejected", found, by=by, reason=reason)

    def promote(self, version: str, *, by: str, reason: str) -> Decision:
        """Make any whole version the champion, whatever was decided of it before.

        Raises:
            RefusedError: it is the champion already, is damaged or incomplete, or a word is missing.
        """
        with self._deciding() as desk:
            found = desk.named(version, by, reason)
            desk.refuse_champion(found)
            return desk.decide("promoted_by_hand", desk.whole(found), by=by, reason=reason)

    def roll_back(self, version: str = "", *, by: str, reason: str) -> Decision:
        """Make an earlier champion the champion again: the last one that nobody has rejected or rolled back from, or
        the one that is named. No policy promotes the model that it takes the place of again.

        Raises:
            RefusedError: there is no such one, it is damaged, or a word is missing.
        """
        with self._deciding() as desk:
            desk.worded(by, reason)
            if version:
                found = desk.named(version, by, reason)
                desk.refuse_champion(found)
                if not desk.standing.was_champion(found.model):
                    raise RefusedError(
                        "It was never the champion, as far as the trail tells.",
                        where=desk.where(found),
                        fix=f'ml-platform models promote {self.name} {version} --reason "..."',
                    )
                return desk.decide("rolled_back", desk.whole(found), by=by, reason=reason)
            if desk.standing.damaged:
                raise RefusedError(
                    "The trail of decisions is damaged: it does not say which the last champion was.",
                    where=desk.standing.damaged,
                    fix=f'name a version: ml-platform models rollback {self.name} VERSION --reason "..."',
                )
            return desk.decide("rolled_back", desk.last_champion(), by=by, reason=reason)

    def catch_up(self) -> None:
        """Carry out what is decided and was not carried out."""
        with self._deciding():
            pass

    @contextlib.contextmanager
    def _deciding(self) -> Iterator[Desk]:
        """While nobody else decides about this model, and with nothing left undone. What is decided is carried out."""
        claims, prints = self._store.claims, [self.trail.registry]
        deadline = time.monotonic() + PATIENCE
        with _one_at_a_time, contextlib.ExitStack() as held:
            while not held.enter_context(claims.holding(self.name, _CLAIMS, prints)):
                if time.monotonic() > deadline:
                    others = claims.held(self.name, _CLAIMS, prints).values()
                    raise RegistryError(
                        f"Somebody else has been deciding about the model for {PATIENCE:.0f} seconds.",
                        where=self.name,
                        got=", ".join(map(str, others)) or None,
                        fix="end that process if it hangs, then try again",
                        passing=True,
                    )
                time.sleep(0.2)
            yield Desk(self._connection, self.trail)

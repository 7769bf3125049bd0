"""Where one decision about a registered model is made and carried out, while nobody else decides; see `promotion`."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml_platform.errors import RefusedError, RegistryError
from ml_platform.registry.models import (
    CHALLENGER,
    CHAMPION,
    DAMAGED_TAG,
    EVALUATION_TAG,
    RegisteredVersion,
    condemn,
    verify,
)
from ml_platform.registry.trail import MOVES, Action, Decision, Mark, Trail
from ml_platform.registry.versions import versions_of

if TYPE_CHECKING:
    from ml_platform.registry.connection import Connection

CARRIED_OUT_TAG = "ml_platform.decided"
"""On a registered model: the latest decision that its aliases show, a `trail.Mark`."""
BARRED_TAG = "ml_platform.barred"
"""On a version that a person rejected or rolled back from: who, when and why."""

_log = logging.getLogger(__name__)


class Desk:
    """Where one decision is made: the trail and the registry as they stand while nobody else decides."""

    def __init__(self, connection: Connection, trail: Trail) -> None:
        self._connection, self._trail, self._name = connection, trail, trail.name
        self._sound: dict[str, str] = {}  # what is wrong with a version's files, by number; "" where nothing is
        self.standing, self._versions = trail.read(mark_of(connection, self._name)), self._look()
        self._carry_out()

    @property
    def champion(self) -> RegisteredVersion | None:
        """What the alias names now."""
        return self._by_alias(CHAMPION)

    def again(self, version: RegisteredVersion) -> RegisteredVersion:
        """A version as it stands now."""
        return self._versions[version.version]

    def where(self, version: RegisteredVersion) -> str:
        """A version, in words."""
        return f"{self._name} version {version.version}"

    def sound(self, model: str, preferred: str = "") -> RegisteredVersion | None:
        """The version of a model whose files are right, `preferred` before others and old before new; or None."""
        found = sorted(
            (each for each in self._versions.values() if model and each.model == model and each.complete),
            key=lambda each: (each.version != preferred, int(each.version)),
        )
        return next((each for each in found if not self._wrong(each)), None)

    def whole(self, version: RegisteredVersion) -> RegisteredVersion:
        """The version, whose files were read back. Raises RefusedError where they are not what was uploaded."""
        if wrong := self._wrong(version):
            if version.complete:
                condemn(self._connection, self._name, version.version, wrong)
            raise RefusedError(
                "The version is not whole, so no alias may name it.",
                where=self.where(version),
                got=wrong,
                fix="materialize registered_model again while the pipeline stands at this model; else choose another",
            )
        return version

    def worded(self, by: str, reason: str) -> None:
        """Raises RefusedError where nobody decides, or says why."""
        for name, text in (("by", by), ("reason", reason)):
            if not text.strip():
                what = "who makes it" if name == "by" else "why"
                raise RefusedError(f"A decision says {what}.", where=self._name, fix=f"--{name}")

    def named(self, version: str, by: str, reason: str) -> RegisteredVersion:
        """The version of that number. Raises RefusedError where there is none, or a word is missing."""
        self.worded(by, reason)
        if version not in self._versions:
            known = ", ".join(self._versions) or "none is registered"
            raise RefusedError("There is no such version.", where=self._name, got=version, fix=f"one of: {known}")
        return self._versions[version]

    def refuse_champion(self, version: RegisteredVersion) -> None:
        """Raises RefusedError where it is the champion already: a second of two who decide the same finds it so."""
        if CHAMPION in version.aliases:
            raise RefusedError(
                "It is the champion already.", where=self.where(version), got=since(self.standing.champion)
            )

    def last_champion(self) -> RegisteredVersion:
        """The champion before this one that may be it again. Raises RefusedError where there is none."""
        now = self._by_alias(CHAMPION)
        model = now.model if now else self.standing.champion.model if self.standing.champion else ""
        for decision in reversed(self.standing.decisions):
            if decision.action not in MOVES or decision.model == model or self.standing.barred(decision.model):
                continue
            if found := self.sound(decision.model, decision.version):
                return found
        before = next((d.before for d in self.standing.decisions if d.before and d.before_model != model), "")
        if before in self._versions and not self.standing.barred(self._versions[before].model):
            return self.whole(self._versions[before])  # champion before the trail began
        raise RefusedError(
            "There is no champion to go back to.",
            where=self._name,
            got="no other version was champion, is whole, and was neither rejected nor rolled back from",
            fix=f'ml-platform models promote {self._name} VERSION --reason "..."',
        )

    def decide(
        self,
        action: Action,
        version: RegisteredVersion | None,
        *,
        by: str,
        reason: str,
        model: str = "",
        evidence: Mapping[str, Any] | None = None,
        before: Decision | None = None,
    ) -> Decision:
        """Write a decision down, then carry it out.

        `before` is by which the champion became it, where the alias does not name it any more.
        """
        now = before or self.champion
        model = version.model if version else model
        if not model:
            raise RefusedError(
                "The version does not say which model it is, so nothing can be decided about it.",
                where=self._name,
                got=version.version if version else "",
                fix="it was not registered by this platform: run the pipeline to register its model",
            )
        if evidence is None:
            evidence = self.standing.evidence(model) or (_evidence_of(version) if version else {})
        decision = self._trail.add(
            self.standing,
            action=action,
            model=model,
            version=version.version if version else "",
            before=now.version if now else "",
            before_model=now.model if now else "",
            by=by.strip(),
            reason=reason.strip(),
            when=dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            evidence=dict(evidence),
        )
        self.standing = self._trail.read()
        if decision is None:
            raise RegistryError(
                "Somebody else has just decided about the model.",
                where=self._name,
                got=self.standing.last.describe() if self.standing.last else None,
                fix="look at `ml-platform models list`, and try again",
                passing=True,
            )
        self._carry_out()
        return decision

    def _carry_out(self) -> None:
        """Bring the aliases to what was decided; take note of what somebody did in MLflow itself."""
        for alias in (CHAMPION, CHALLENGER):
            self._guard(alias)
        last = self.standing.last
        if last is None:
            return
        client = self._connection.client
        if (mark := mark_of(self._connection, self._name)) is None:
            return
        known = mark.decision in {"", *(each.hash for each in self.standing.decisions)}
        # A decision that is lost was carried out before those that came after it.
        pending = mark.decision != last.hash and (known or mark.trail == self.standing.trail != "")
        decided = self.standing.champion
        wanted = self.sound(decided.model, decided.version) if decided else None
        now = self.champion
        lost = self.standing.lost
        if now is not None and decided is not None and now.model != decided.model and (lost or not pending):
            reason = "the decision is lost from the trail" if lost else "the alias was moved in MLflow itself"
            self.decide("moved_in_mlflow", now, by="somebody", reason=reason, before=decided)
            return
        if lost:  # the aliases show a decision that nobody can read any more: they stay, and so does the mark
            return
        if wanted is not None and (now is None or now.model != wanted.model):
            self._set(CHAMPION, wanted.version)
        waits = self.standing.challenger
        challenger = self.sound(waits.model, waits.version) if waits else None
        standing_by = self._by_alias(CHALLENGER)
        if challenger is not None and (standing_by is None or (pending and standing_by.model != challenger.model)):
            self._set(CHALLENGER, challenger.version)
        elif standing_by is not None and (
            (pending and challenger is None) or CHAMPION in self._versions[standing_by.version].aliases
        ):
            self._remove(CHALLENGER)
        if mark != (now_shown := self.standing.mark):
            self._bar(last)
            self._connection.call(
                "note what is decided", client.set_registered_model_tag, self._name, CARRIED_OUT_TAG, str(now_shown)
            )
        self._versions = self._look()

    def _guard(self, alias: str) -> None:
        """Take an alias from a version that is not whole."""
        version = self._by_alias(alias)
        if version is None or not (wrong := self._wrong(version)):
            return
        _log.warning("%s is not whole, and loses the alias %s: %s", self.where(version), alias, wrong)
        if version.complete:
            condemn(self._connection, self._name, version.version, wrong)
        else:
            self._remove(alias)
        self._versions = self._look()

    def _bar(self, decision: Decision) -> None:
        """Show in MLflow, too, which versions a decision keeps from being promoted, and which no longer are."""
        client = self._connection.client
        barred = {"rejected": decision.model, "rolled_back": decision.before_model}.get(decision.action, "")
        for version in self._versions.values():
            if barred and version.model == barred:
                self._connection.call(
                    "mark a version",
                    client.set_model_version_tag,
                    self._name,
                    version.version,
                    BARRED_TAG,
                    decision.describe(),
                )
            elif version.model == decision.model and decision.action in MOVES and BARRED_TAG in version.tags:
                self._connection.remove(
                    "take a mark away", client.delete_model_version_tag, self._name, version.version, BARRED_TAG
                )

    def _look(self) -> dict[str, RegisteredVersion]:
        return {version.version: version for version in versions_of(self._connection, self._name)}

    def _by_alias(self, alias: str) -> RegisteredVersion | None:
        return next((each for each in self._versions.values() if alias in each.aliases), None)

    def _wrong(self, version: RegisteredVersion) -> str:
        """What keeps a version from having an alias, in words; "" when nothing does. Its files are read back once."""
        if not version.complete:
            return "it is marked as damaged" if DAMAGED_TAG in version.tags else "it was never completed"
        if version.version not in self._sound:
            client = self._connection.client
            found = self._connection.call("read the version", client.get_model_version, self._name, version.version)
            self._sound[version.version] = verify(self._connection, found)
        return self._sound[version.version]

    def _set(self, alias: str, version: str) -> None:
        client = self._connection.client
        self._connection.call("set an alias", client.set_registered_model_alias, self._name, alias, version)
        self._versions = self._look()

    def _remove(self, alias: str) -> None:
        client = self._connection.client
        self._connection.remove("remove an alias", client.delete_registered_model_alias, self._name, alias)
        self._versions = self._look()


def mark_of(connection: Connection, name: str) -> Mark | None:
    """Up to where the aliases of a model are as was decided; None where there is no such model in the registry."""
    search = connection.client.search_registered_models
    found = connection.call("look up the model", search, f"name = '{name}'")
    return Mark.parse(found[0].tags.get(CARRIED_OUT_TAG, "")) if found else None


def since(decision: Decision | None) -> str:
    return decision.describe() if decision else "it was the champion before the trail began"


def _evidence_of(version: RegisteredVersion) -> dict[str, Any]:
    """What a version's own tags tell, for one of which the trail knows nothing."""
    metrics = {
        name.removeprefix("metric."): float(value) for name, value in version.tags.items() if name.startswith("metric.")
    }
    evaluation = version.tags.get(EVALUATION_TAG, "")
    return {"evaluation": evaluation, "metrics": metrics} if evaluation or metrics else {}

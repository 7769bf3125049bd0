"""Every version of a registered model, how it stands by the trail of decisions, and what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ml_platform.registry.desk import BARRED_TAG
from ml_platform.registry.models import CHALLENGER, CHAMPION, DAMAGED_TAG, EVALUATION_TAG
from ml_platform.registry.trail import Trail
from ml_platform.registry.versions import versions_of

if TYPE_CHECKING:
    from ml_platform.registry.connection import Connection
    from ml_platform.registry.models import RegisteredVersion
    from ml_platform.registry.trail import Standing
    from ml_platform.store import Store


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One version, for people and programs.

    Args:
        version, aliases, made, model, evaluation: as `RegisteredVersion` has them; the last are data versions.
        state: champion; waiting (as challenger); rejected (a person did, or rolled back from it); archived (it was
            champion, or was overtaken before anybody decided); damaged; incomplete (it was never whole).
        metric, value, low, high: the main metric with its interval; None where that is not known.
        gain: over the champion of its time: `gain`, `low` and `high`, and what was compared.
        decided: the latest decision about it, in a line.
        when: of that decision; of the registration where there is none.
    """

    version: str
    state: str
    aliases: tuple[str, ...]
    made: str
    model: str
    evaluation: str
    metric: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    gain: Mapping[str, Any] = field(default_factory=dict)
    decided: str = ""
    when: str = ""


def listed(connection: Connection, store: Store, name: str, metric: str) -> list[Listed]:
    """The versions of a model, the newest first.

    Args:
        connection: to MLflow.
        store: where the trail is kept.
        name: of the registered model.
        metric: the main one, where no decision names it.

    Raises:
        RegistryError: the registry cannot be asked.
    """
    standing = Trail.of(store, name, connection.tracking_uri).read()
    return [_listed(version, standing, metric) for version in reversed(versions_of(connection, name))]


def _listed(version: RegisteredVersion, standing: Standing, metric: str) -> Listed:
    known, about = standing.evidence(version.model), standing.about(version.model)
    metric = known.get("metric", metric)
    tagged = version.tags.get(f"metric.{metric}")
    value = known.get("metrics", {}).get(metric, float(tagged) if tagged else None)
    low, high = known.get("intervals", {}).get(metric, (None, None))
    return Listed(
        version=version.version,
        state=state_of(version, standing),
        aliases=version.aliases,
        made=version.made,
        model=version.model,
        evaluation=version.tags.get(EVALUATION_TAG, ""),
        metric=metric,
        value=value,
        low=low,
        high=high,
        gain=known.get("gain", {}),
        decided=about[-1].describe() if about else "",
        when=about[-1].when if about else version.made,
    )


def state_of(version: RegisteredVersion, standing: Standing) -> str:
    """How a version stands, in a word; see `Listed`."""
    if DAMAGED_TAG in version.tags:
        return "damaged"
    if not version.complete:
        return "incomplete"
    if CHAMPION in version.aliases:
        return "champion"
    if standing.barred(version.model) or BARRED_TAG in version.tags:
        return "rejected"
    return "waiting" if CHALLENGER in version.aliases else "archived"

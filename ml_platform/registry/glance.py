"""Whether the registry still has a model, and which is the champion: asked often, so without MLflow's client where that
can be (`direct.py`).
"""

from __future__ import annotations

import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_platform.registry import models
from ml_platform.registry.connection import Connection
from ml_platform.registry.direct import LIVE, ask, get, query, tags_of
from ml_platform.registry.models import (
    CHAMPION,
    COMPLETE_TAG,
    DAMAGED_TAG,
    EVALUATION_TAG,
    FINGERPRINT_TAG,
    with_data,
)
from ml_platform.registry.threshold import THRESHOLD_TAG
from ml_platform.registry.upload import DATA_VERSION_TAG

_WITH_TAG = """select 1 from model_version_tags t
    where t.name = v.name and t.version = v.version and t.key = ?"""
_SOUND_VERSION = f"""select v.storage_location from model_versions v where v.name = ? and {LIVE}
    and exists ({_WITH_TAG} and t.value = ?) and exists ({_WITH_TAG} and t.value = 'true')
    and not exists ({_WITH_TAG})"""
_MODEL_TAG = "select value from registered_model_tags where name = ? and key = ?"
_CHAMPION = f"""select v.version, t.key, t.value from registered_model_aliases a
    join model_versions v on v.name = a.name and v.version = a.version
    left join model_version_tags t on t.name = v.name and t.version = v.version
    where a.name = ? and a.alias = ? and {LIVE}"""


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The registered version that the alias `champion` names, and the trained model that it is; "" where it has none.

    Args:
        version: MLflow's.
        fingerprint, data_version: of the trained model.
        evaluation: data version of the evaluation with which it was registered.
        threshold: of a binary model, as that evaluation chose it.
    """

    version: str
    fingerprint: str
    data_version: str
    evaluation: str = ""
    threshold: str = ""


def champion(tracking_uri: str, name: str, alias: str = CHAMPION) -> Champion | None:
    """The champion of a registered model, or what another alias names; None where there is none. See `stands`."""

    def in_database(path: Path) -> Champion | None:
        rows = query(path, _CHAMPION, (name, alias))
        return _champion(str(rows[0][0]), {key: value for _, key, value in rows}) if rows else None

    def on_server(uri: str) -> Champion | None:
        found = get(uri, "registered-models/alias", name=name, alias=alias)
        return _champion(found["model_version"]["version"], tags_of(found["model_version"])) if found else None

    def by_client(connection: Connection) -> Champion | None:
        standing = models.champion(connection, name, alias)
        return _champion(standing.version, standing.tags) if standing else None

    return ask(tracking_uri, database=in_database, server=on_server, client=by_client)


def _champion(version: str, tags: Mapping[str, str]) -> Champion:
    return Champion(
        version=version,
        fingerprint=tags.get(FINGERPRINT_TAG, ""),
        data_version=tags.get(DATA_VERSION_TAG, ""),
        evaluation=tags.get(EVALUATION_TAG, ""),
        threshold=tags.get(THRESHOLD_TAG, ""),
    )


def model_tag(tracking_uri: str, name: str, key: str) -> str:
    """A tag of a registered model; "" where it has none, or there is no such model.

    Raises:
        RegistryError: the registry cannot be asked.
    """

    def in_database(path: Path) -> str:
        rows = query(path, _MODEL_TAG, (name, key))
        return str(rows[0][0]) if rows else ""

    def on_server(uri: str) -> str:
        found = get(uri, "registered-models/get", name=name)
        return tags_of(found["registered_model"]).get(key, "") if found else ""

    def by_client(connection: Connection) -> str:
        search = connection.client.search_registered_models
        found = connection.call("look up the model", search, f"name = '{name}'")
        return str(found[0].tags.get(key, "")) if found else ""

    return ask(tracking_uri, database=in_database, server=on_server, client=by_client)


def stands(tracking_uri: str, name: str, data_version: str) -> bool:
    """Whether the registry has a complete, undamaged version of a model's data version. Which one is the champion is
    another question.

    Files in a local folder must be there; whether they are whole is not looked at.

    Args:
        tracking_uri: as `Connection` takes it.
        name: of the registered model.
        data_version: of the trained model.

    Raises:
        RegistryError: the registry cannot be asked: a server that is away for 5 s, a file that is no database.
    """

    def in_database(path: Path) -> bool:
        version = (name, DATA_VERSION_TAG, data_version, COMPLETE_TAG, DAMAGED_TAG)
        return any(_has_files(location) for (location,) in query(path, _SOUND_VERSION, version))

    def on_server(uri: str) -> bool:
        found = get(uri, "model-versions/search", filter=with_data(name, data_version), max_results="100")
        return any(_sound(tags_of(version)) for version in (found or {}).get("model_versions", ()))

    def by_client(connection: Connection) -> bool:
        search, wanted = connection.client.search_model_versions, with_data(name, data_version)
        return any(_sound(found.tags) for found in connection.call("search versions", search, wanted, max_results=100))

    return ask(tracking_uri, database=in_database, server=on_server, client=by_client)


def _has_files(location: str | None) -> bool:
    """Whether a version's model is where MLflow has put it; True where that is no folder of this machine."""
    parts = urllib.parse.urlsplit(location or "")
    if parts.scheme not in ("", "file") or not parts.path:
        return True
    return Path(urllib.request.url2pathname(parts.path), "MLmodel").is_file()


def _sound(tags: dict[str, str]) -> bool:
    return tags.get(COMPLETE_TAG) == "true" and DAMAGED_TAG not in tags

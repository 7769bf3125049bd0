"""Whether the registry still has a model, and which is the champion: asked often, so without MLflow's client, whose
import takes 2 s.

A database is read as it is, a server is asked over its REST API. What neither can tell is asked of the client.
Schema and API as of MLflow 3 (https://mlflow.org/docs/latest/rest-api.html).
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.errors import RegistryError
from ml_platform.registry.connection import SQLITE, Connection
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

_TIMEOUT = 5.0

# A deleted version keeps its row, in a stage of its own.
_LIVE = "coalesce(v.current_stage, '') <> 'Deleted_Internal'"
_WITH_TAG = """select 1 from model_version_tags t
    where t.name = v.name and t.version = v.version and t.key = ?"""
_SOUND_VERSION = f"""select v.storage_location from model_versions v where v.name = ? and {_LIVE}
    and exists ({_WITH_TAG} and t.value = ?) and exists ({_WITH_TAG} and t.value = 'true')
    and not exists ({_WITH_TAG})"""
_MODEL_TAG = "select value from registered_model_tags where name = ? and key = ?"
_CHAMPION = f"""select v.version, t.key, t.value from registered_model_aliases a
    join model_versions v on v.name = a.name and v.version = a.version
    left join model_version_tags t on t.name = v.name and t.version = v.version
    where a.name = ? and a.alias = ? and {_LIVE}"""


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
    if tracking_uri.startswith(SQLITE):
        rows = _query(Path(tracking_uri.removeprefix(SQLITE)), _CHAMPION, (name, alias))
        return _champion(str(rows[0][0]), {key: value for _, key, value in rows}) if rows else None
    if _is_plain_server(tracking_uri):
        with contextlib.suppress(_ForTheClient):
            found = _get(tracking_uri, "registered-models/alias", name=name, alias=alias)
            return _champion(found["model_version"]["version"], _tags(found["model_version"])) if found else None
    from ml_platform.registry.models import champion as by_client

    standing = by_client(Connection(tracking_uri, patience=_TIMEOUT), name, alias)
    return _champion(standing.version, standing.tags) if standing else None


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
    if tracking_uri.startswith(SQLITE):
        rows = _query(Path(tracking_uri.removeprefix(SQLITE)), _MODEL_TAG, (name, key))
        return str(rows[0][0]) if rows else ""
    if _is_plain_server(tracking_uri):
        with contextlib.suppress(_ForTheClient):
            found = _get(tracking_uri, "registered-models/get", name=name)
            return _tags(found["registered_model"]).get(key, "") if found else ""
    connection = Connection(tracking_uri, patience=_TIMEOUT)
    search = connection.client.search_registered_models
    models = connection.call("look up the model", search, f"name = '{name}'")
    return str(models[0].tags.get(key, "")) if models else ""


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
    if tracking_uri.startswith(SQLITE):
        return _in_database(Path(tracking_uri.removeprefix(SQLITE)), name, data_version)
    if _is_plain_server(tracking_uri):
        with contextlib.suppress(_ForTheClient):
            return _on_server(tracking_uri, name, data_version)
    return _by_client(tracking_uri, name, data_version)


def _is_plain_server(tracking_uri: str) -> bool:
    parts = urllib.parse.urlsplit(tracking_uri)
    return parts.scheme in ("http", "https") and parts.username is None


class _ForTheClient(Exception):
    """The server wants credentials or a certificate that MLflow's client knows how to find."""


def _in_database(path: Path, name: str, data_version: str) -> bool:
    version = (name, DATA_VERSION_TAG, data_version, COMPLETE_TAG, DAMAGED_TAG)
    return any(_has_files(location) for (location,) in _query(path, _SOUND_VERSION, version))


def _has_files(location: str | None) -> bool:
    """Whether a version's model is where MLflow has put it; True where that is no folder of this machine."""
    parts = urllib.parse.urlsplit(location or "")
    if parts.scheme not in ("", "file") or not parts.path:
        return True
    return Path(urllib.request.url2pathname(parts.path), "MLmodel").is_file()


def _query(path: Path, query: str, values: Sequence[str]) -> list[Any]:
    """The rows that MLflow's database answers; none where nothing was ever registered there."""
    if not path.is_file():
        return []
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_TIMEOUT)
        ) as database:
            return database.execute(query, values).fetchall()
    except sqlite3.Error as error:
        if "no such table" in str(error):  # nothing was ever registered here
            return []
        raise RegistryError(
            "MLflow's database cannot be read.",
            where=path,
            got=error,
            fix="make it readable, or correct ML_PLATFORM_MLFLOW; if it is damaged, move it away and run again",
        ) from error


def _on_server(uri: str, name: str, data_version: str) -> bool:
    found = _get(uri, "model-versions/search", filter=with_data(name, data_version), max_results="100")
    return any(_sound(_tags(version)) for version in (found or {}).get("model_versions", ()))


def _get(uri: str, what: str, **parameters: str) -> dict[str, Any] | None:
    """The server's answer; None where it says that there is no such thing."""
    url = f"{uri.rstrip('/')}/api/2.0/mlflow/{what}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            answer = json.load(response)
        if not isinstance(answer, dict):
            raise ValueError(f"not an answer of MLflow: {answer!r:.200}")
        return answer
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        if error.code in (401, 403):
            raise _ForTheClient from error
        # Of an alias that is not there MLflow says "invalid parameter", of a model "does not exist".
        if '"RESOURCE_DOES_NOT_EXIST"' in text or (what.endswith("alias") and '"INVALID_PARAMETER_VALUE"' in text):
            return None
        raise _away(uri, f"{error}: {text[:300]}") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise _ForTheClient from error
        raise _away(uri, error.reason) from error
    except (OSError, ValueError) as error:
        raise _away(uri, error) from error


def _away(uri: str, got: object) -> RegistryError:
    return RegistryError(
        "The MLflow server did not say whether the model is registered.",
        where=uri,
        got=got,
        fix="start the MLflow server or correct ML_PLATFORM_MLFLOW, then run again",
        passing=True,
    )


def _by_client(uri: str, name: str, data_version: str) -> bool:
    connection = Connection(uri, patience=_TIMEOUT)
    client = connection.client
    found = connection.call(
        "search versions", client.search_model_versions, with_data(name, data_version), max_results=100
    )
    return any(_sound(version.tags) for version in found)


def _tags(version: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag.get("value", "") for tag in version.get("tags", ())}


def _sound(tags: dict[str, str]) -> bool:
    return tags.get(COMPLETE_TAG) == "true" and DAMAGED_TAG not in tags

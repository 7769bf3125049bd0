"""MLflow asked without its client, whose import takes 2 s: a database is read as it is, a server over its REST API.

Schema and API as of MLflow 3 (https://mlflow.org/docs/latest/rest-api.html). What neither can tell is asked of the
client.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ml_platform.errors import RegistryError
from ml_platform.registry.connection import SQLITE, Connection

TIMEOUT = 5.0
"""Seconds for an answer."""
T = TypeVar("T")
LIVE = "coalesce(v.current_stage, '') <> 'Deleted_Internal'"
"""Of a row `v` of model_versions, that it counts: a deleted version keeps its row, in a stage of its own."""


class ForTheClientError(Exception):
    """The server wants credentials or a certificate that MLflow's client knows how to find."""


def ask(
    tracking_uri: str, *, database: Callable[[Path], T], server: Callable[[str], T], client: Callable[[Connection], T]
) -> T:
    """Ask an MLflow in the way that it takes.

    Args:
        tracking_uri: as `Connection` takes it.
        database: asks a SQLite file (`query`).
        server: asks a server at its URL (`get`); all of it, before it returns.
        client: asks through MLflow's client: any other MLflow, and a server that wants what only the client finds.

    Raises:
        RegistryError: it cannot be asked.
    """
    if tracking_uri.startswith(SQLITE):
        return database(Path(tracking_uri.removeprefix(SQLITE)))
    parts = urllib.parse.urlsplit(tracking_uri)
    if parts.scheme in ("http", "https") and parts.username is None:
        with contextlib.suppress(ForTheClientError):
            return server(tracking_uri)
    return client(Connection(tracking_uri, patience=TIMEOUT))


def query(path: Path, statement: str, values: Sequence[str]) -> list[Any]:
    """The rows that MLflow's database answers; none where nothing was ever registered there.

    Raises:
        RegistryError: it cannot be read.
    """
    if not path.is_file():
        return []
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=TIMEOUT)
        ) as database:
            return database.execute(statement, values).fetchall()
    except sqlite3.Error as error:
        if "no such table" in str(error):  # nothing was ever registered here
            return []
        raise RegistryError(
            "MLflow's database cannot be read.",
            where=path,
            got=error,
            fix="make it readable, or correct ML_PLATFORM_MLFLOW; if it is damaged, move it away and run again",
        ) from error


def get(uri: str, what: str, **parameters: str) -> dict[str, Any] | None:
    """The server's answer; None where it says that there is no such thing.

    Raises:
        ForTheClientError
        RegistryError: it does not answer, or refuses.
    """
    url = f"{uri.rstrip('/')}/api/2.0/mlflow/{what}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            answer = json.load(response)
        if not isinstance(answer, dict):
            raise ValueError(f"not an answer of MLflow: {answer!r:.200}")
        return answer
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        if error.code in (401, 403):
            raise ForTheClientError from error
        # Of an alias that is not there MLflow says "invalid parameter", of a model "does not exist".
        if '"RESOURCE_DOES_NOT_EXIST"' in text or (what.endswith("alias") and '"INVALID_PARAMETER_VALUE"' in text):
            return None
        raise _away(uri, f"{error}: {text[:300]}") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise ForTheClientError from error
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


def tags_of(entity: dict[str, Any]) -> dict[str, str]:
    """The tags of a version, a model or an experiment that a server gave."""
    return {tag["key"]: tag.get("value", "") for tag in entity.get("tags", ())}

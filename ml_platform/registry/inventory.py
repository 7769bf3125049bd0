"""Everything that the registry holds: asked before anything is thrown away that a model may need.

Without MLflow's client where that can be (`direct.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.registry.connection import Connection
from ml_platform.registry.direct import LIVE, ask, get, query, tags_of

_PAGE = 1000
_VERSIONS = f"""select v.name, v.version, t.key, t.value from model_versions v
    left join model_version_tags t on t.name = v.name and t.version = v.version where {LIVE}"""
_MODELS = "select name from registered_models"


@dataclass(frozen=True)
class Inventory:
    """What the registry holds.

    Args:
        models: names of registered models, also of those without a version.
        versions: name and tags of every version that was not deleted, whether or not it is complete.
    """

    models: frozenset[str]
    versions: tuple[tuple[str, Mapping[str, str]], ...]


def inventory(tracking_uri: str) -> Inventory:
    """What the registry holds.

    Args:
        tracking_uri: as `Connection` takes it. A database file that is not there holds nothing.

    Raises:
        RegistryError: the registry cannot be asked.
    """
    return ask(tracking_uri, database=_in_database, server=_on_server, client=_by_client)


def _in_database(path: Path) -> Inventory:
    tags: dict[tuple[str, str], dict[str, str]] = {}
    for name, version, key, value in query(path, _VERSIONS, ()):
        tags.setdefault((name, str(version)), {}).update({key: value} if key else {})
    models = frozenset(str(name) for (name,) in query(path, _MODELS, ()))
    return Inventory(models, tuple((name, found) for (name, _), found in tags.items()))


def _on_server(uri: str) -> Inventory:
    models = _pages(uri, "registered-models/search", "registered_models")
    versions = _pages(uri, "model-versions/search", "model_versions")
    return Inventory(
        frozenset(model["name"] for model in models),
        tuple((version["name"], tags_of(version)) for version in versions),
    )


def _pages(uri: str, what: str, key: str) -> Iterator[dict[str, Any]]:
    token = ""
    while True:
        page = get(uri, what, max_results=str(_PAGE), **({"page_token": token} if token else {})) or {}
        yield from page.get(key, ())
        token = page.get("next_page_token", "")
        if not token:
            return


def _by_client(connection: Connection) -> Inventory:
    client = connection.client
    return Inventory(
        frozenset(model.name for model in _all(connection, client.search_registered_models)),
        tuple((version.name, version.tags) for version in _all(connection, client.search_model_versions)),
    )


def _all(connection: Connection, search: Callable[..., Any]) -> Iterator[Any]:
    token = None
    while True:
        page = connection.call("list what is registered", search, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return

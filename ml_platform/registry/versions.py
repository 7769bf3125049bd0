"""Every version of a registered model, with the aliases that name it."""

from __future__ import annotations

from ml_platform.registry.connection import Connection
from ml_platform.registry.models import RegisteredVersion, described_as

_PAGE = 1000


def versions_of(connection: Connection, name: str) -> list[RegisteredVersion]:
    """The versions of a model, the oldest first; none where there is no such model.

    Raises:
        RegistryError: the registry cannot be asked.
    """
    client = connection.client
    models = connection.call("look up the model", client.search_registered_models, f"name = '{name}'")
    if not models:
        return []
    aliases: dict[str, list[str]] = {}
    for alias, version in models[0].aliases.items():
        aliases.setdefault(str(version), []).append(alias)
    found, token = [], None
    while token != "":
        page = connection.call(
            f"list versions of {name!r}",
            client.search_model_versions,
            f"name = '{name}'",
            max_results=_PAGE,
            page_token=token,
        )
        found += list(page)
        token = page.token or ""
    ordered = sorted(found, key=lambda each: int(each.version))
    return [described_as(each, aliases.get(str(each.version), ())) for each in ordered]

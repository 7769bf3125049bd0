"""Which registry an MLflow is, by whatever name it is called: `http://localhost:5000` and `http://127.0.0.1:5000/` are
one server, a database file may have two paths.

The answer is kept in that MLflow itself, as a tag of an experiment that holds nothing else: names of experiments are
unique, so of two processes that make it at once one is first, and the other takes what the first has written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import RegistryError
from ml_platform.registry.connection import Connection
from ml_platform.registry.direct import ask, get, query, tags_of
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from collections.abc import Callable

EXPERIMENT = "ml_platform.registry"
"""Named with a dot, as no pipeline is."""
TAG = "ml_platform.registry"
_NOTE = "Says which registry this MLflow is, whatever it is called by. It holds no runs; keep it."

_IDENTITY = """select t.value from experiments e join experiment_tags t on t.experiment_id = e.experiment_id
    where e.name = ? and t.key = ?"""


def first_name(tracking_uri: str) -> str:
    """What a registry is known by until it says so itself: a hash of the name by which it is called."""
    return short_hash(tracking_uri)


def known(tracking_uri: str) -> str:
    """Which registry it is. Nothing is written, and MLflow's client is not imported where that can be.

    Returns:
        `first_name` where nobody has made an identity yet, and where the registry is away: most know it by one name.
    """
    try:
        return _found(tracking_uri) or first_name(tracking_uri)
    except RegistryError:
        return first_name(tracking_uri)


def ensured(connection: Connection, wanted: Callable[[], str]) -> str:
    """Which registry it is, by an identity that is made where there is none.

    Args:
        connection: to MLflow.
        wanted: asked for an identity where there is none yet.

    Raises:
        RegistryError: the registry cannot be asked.
    """
    client = connection.client

    def ensure() -> str:
        from mlflow.exceptions import MlflowException

        for _ in range(2):
            if (found := client.get_experiment_by_name(EXPERIMENT)) is not None:  # also one that was deleted
                return str(found.tags.get(TAG) or first_name(connection.tracking_uri))
            tags = {TAG: wanted(), "mlflow.note.content": _NOTE}
            try:
                client.create_experiment(EXPERIMENT, artifact_location=connection.artifact_location or None, tags=tags)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                    raise
        return str(client.get_experiment_by_name(EXPERIMENT).tags[TAG])

    return connection.call("find out which registry this is", ensure)


def _found(tracking_uri: str) -> str:
    def in_database(path: Path) -> str:
        rows = query(path, _IDENTITY, (EXPERIMENT, TAG))
        return str(rows[0][0]) if rows else ""

    def on_server(uri: str) -> str:
        answer = get(uri, "experiments/get-by-name", experiment_name=EXPERIMENT)
        return tags_of(answer["experiment"]).get(TAG, "") if answer else ""

    def by_client(connection: Connection) -> str:
        found = connection.call("find out which registry this is", connection.client.get_experiment_by_name, EXPERIMENT)
        return str(found.tags.get(TAG, "")) if found else ""

    return ask(tracking_uri, database=in_database, server=on_server, client=by_client)

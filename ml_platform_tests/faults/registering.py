"""A registration in a process of its own, to be killed at any instant; and what must hold of the registry after it.

The process is forked from one that has MLflow and torch loaded already: so the instants lie in the registration.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from ml_platform.registry import models
from ml_platform.registry.connection import SQLITE, Connection
from ml_platform.registry.promotion import Promotions, Ruling
from ml_platform.registry.tracking import MlflowResource
from ml_platform.store import Store
from ml_platform_tests.registry.conftest import context
from ml_platform_tests.registry.test_models import register_in
from ml_platform_tests.registry.trained import TOY, Trained

SEED = 20130209
INSTANTS = 20


@dataclass(frozen=True)
class Place:
    """A registry, a store and a trained model."""

    uri: str
    folder: Path
    model: Path

    @property
    def store(self) -> Store:
        """Opened anew."""
        return Store(self.folder / "store", cache=self.folder / "cache")

    def promotions(self) -> Promotions:
        """Who decides here."""
        return Promotions(Connection(self.uri), self.store, "toy")


def register(place: Place, data_version: str) -> Ruling:
    """Register the model under a data version, and let the policy decide, as the stage does."""
    mlflow = MlflowResource(tracking_uri=place.uri)
    with mlflow.tracked_run(context(), experiment="toy", fingerprint=data_version, run_name="toy") as run:
        register_in(run.connection, run.run_id, Trained(TOY, place.model), data_version, promote=None)
    ruling = place.promotions().by_policy(data_version, promote=True, person=False, reason="as declared", evidence={})
    assert ruling is not None
    return ruling


def _register(place: Place, data_version: str, ready: Pipe) -> None:
    import mlflow.pyfunc  # noqa: F401  # what a first upload would load

    ready.send("begins")
    register(place, data_version)


def start(place: Place, data_version: str) -> ForkServerProcess:
    """Start a registration in another process; returns when it begins."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([__name__, "mlflow.pyfunc", "torch", "ml_platform.training.scoring"])
    here, there = made.Pipe()
    process = made.Process(target=_register, args=(place, data_version, there))
    process.start()
    there.close()
    assert here.recv() == "begins"
    return process


def seconds_of_one(place: Place, data_version: str) -> float:
    """How long a registration takes that nobody disturbs."""
    process = start(place, data_version)
    began = time.monotonic()
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - began


def kill_after(place: Place, data_version: str, seconds: float) -> bool:
    """Kill a registration (SIGKILL) so long after it began. Returns whether it was still at work."""
    process = start(place, data_version)
    process.join(seconds)
    alive = process.is_alive()
    process.kill()
    process.join()
    return alive


def aliases(place: Place) -> dict[str, str]:
    """The model's data version by alias. Each names a complete version whose files are those that were sent."""
    connection = Connection(place.uri)
    found: dict[str, str] = {}
    for alias in (models.CHAMPION, models.CHALLENGER):
        standing = models.champion(connection, "toy", alias)
        if standing is None:
            continue
        version = connection.client.get_model_version("toy", standing.version)
        assert standing.complete, f"{alias} names version {standing.version}, which is not complete"
        assert models.verify(connection, version) == "", f"{alias} names version {standing.version}, which is damaged"
        found[alias] = standing.model
    return found


def versions(place: Place) -> list[str]:
    """The data version of every version that is not damaged, complete or not, in name order."""
    found = Connection(place.uri).client.search_model_versions("name = 'toy'")
    return sorted(v.tags.get("ml_platform.data_version", "?") for v in found if models.DAMAGED_TAG not in v.tags)


def weights(place: Place) -> list[Path]:
    """The weights of all uploads, the oldest first."""
    folder = Path(place.uri.removeprefix(SQLITE)).parent
    return sorted(folder.rglob("weights.safetensors"), key=lambda path: path.stat().st_mtime_ns)

"""Talks to MLflow: quietly, from any folder, and with patience where it is down, slow or answering 500."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from ml_platform.errors import RegistryError

_log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

SQLITE = "sqlite:///"
_PATIENCE = 60.0
_MET = re.compile(r"IntegrityError|UniqueViolation")
"""In what MLflow says when two insert one row at once, such as an alias; the second finds it when it tries again."""
_PASSING = frozenset({"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"})

# What MLflow reads from the environment, and nowhere else. A user who set a variable keeps what was set.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would report usage to a server abroad
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",  # it would take requirements from a lock file in whatever folder this runs
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # helps files on their way; `Connection.call` is what retries
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "GIT_PYTHON_REFRESH": "quiet",
}


def prepare() -> None:
    """Set MLflow up for this process, before its first import. Importing it costs 2 s and 200 MB: do it late."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # A new SQLite file otherwise prints some sixty migrations, and a saved model that its example was validated.
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.pyfunc"):
        logging.getLogger(name).setLevel(logging.WARNING)


class Connection:
    """An MLflow client whose calls are retried.

    Args:
        tracking_uri: `sqlite:////absolute/path.db`, or `http(s)://...`; also the registry's.
        patience: seconds for which a call is tried again before it is given up.
        artifact_location: folder or URL for artifacts of experiments made here. Default: the folder `artifacts`
            beside a SQLite file; a server's own otherwise.
    """

    def __init__(self, tracking_uri: str, *, patience: float = _PATIENCE, artifact_location: str = "") -> None:
        self.tracking_uri, self.patience = tracking_uri, patience
        prepare()
        if tracking_uri.startswith(SQLITE):
            database = Path(tracking_uri.removeprefix(SQLITE))
            artifact_location = artifact_location or str(database.parent / "artifacts")
            with _alone(database):
                if not database.exists():
                    self.call("make the tracking database", _make, database)
                self.client = self.call("open the tracking database", self._open)
        else:
            self.client = self.call("make a client", self._open)
        self.artifact_location = _as_uri(artifact_location)

    def _open(self) -> Any:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)
        if self.tracking_uri.startswith(SQLITE):
            # Both stores are made on first use.
            client.search_experiments(max_results=1)
            client.search_registered_models(max_results=1)
        return client

    def call(self, what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call until it succeeds, with growing waits (0.5 s to 10 s, jittered), for as long as `patience`.

        Only what may pass is tried again: 5xx, no connection, a time-out, a locked database. `function` must be one
        that may run twice.

        Raises:
            RegistryError: MLflow refused, or was away for longer than `patience`.
        """
        deadline = time.monotonic() + self.patience
        wait = 0.5
        while True:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                if not _known(error):
                    raise
                if not _may_pass(error):
                    raise RegistryError(
                        f"MLflow refused to {what}.",
                        where=self.tracking_uri,
                        got=_short(error),
                        fix="if it names a limit or a right, correct that; otherwise run the stage again",
                        passing=False,
                    ) from error
                pause = wait * random.uniform(0.7, 1.3)
                if time.monotonic() + pause > deadline:
                    raise RegistryError(
                        f"MLflow did not {what} within {self.patience:.0f} seconds.",
                        where=self.tracking_uri,
                        got=_short(error),
                        fix="start the MLflow server or correct ML_PLATFORM_MLFLOW, then run the stage again: "
                        "what is done stays done",
                        passing=True,
                    ) from error
                _log.warning("MLflow could not %s, trying again in %.1f s: %s", what, pause, _short(error))
                time.sleep(pause)
                wait = min(2 * wait, 10.0)

    def remove(self, what: str, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """`call` of something that removes: what is gone already, perhaps by a call whose answer was lost, is fine."""

        def unless_gone() -> None:
            from mlflow.exceptions import MlflowException

            try:
                function(*args, **kwargs)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise

        self.call(what, unless_gone)

    def experiment(self, name: str) -> str:
        """The id of the experiment of that name, made when there is none.

        Raises:
            RegistryError: it was deleted, which keeps its name taken.
        """

        def ensure() -> str:
            from mlflow.exceptions import MlflowException

            found = self.client.get_experiment_by_name(name)
            if found is None:
                try:
                    return str(self.client.create_experiment(name, artifact_location=self.artifact_location or None))
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                        raise
                    found = self.client.get_experiment_by_name(name)
            if found.lifecycle_stage == "deleted":
                raise RegistryError(
                    "The experiment was deleted in MLflow.",
                    where=self.tracking_uri,
                    got=name,
                    fix=f"restore it: mlflow experiments restore --experiment-id {found.experiment_id}",
                )
            return str(found.experiment_id)

        return self.call(f"find or make the experiment {name!r}", ensure)

    def run_url(self, experiment_id: str, run_id: str) -> str | None:
        """Where a browser shows the run; None for a database that no server shows."""
        if not self.tracking_uri.startswith("http"):
            return None
        return f"{self.tracking_uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


@contextlib.contextmanager
def _alone(database: Path) -> Iterator[None]:
    """Make the database's folder, and let one process at a time make its tables."""
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        lock_file = (database.parent / f".{database.name}.lock").open("w")
    except OSError as error:
        raise RegistryError(
            "There is no place for MLflow's database.",
            where=database,
            got=error,
            fix="make the folder writable, or name another with ML_PLATFORM_HOME or ML_PLATFORM_MLFLOW",
        ) from error
    with lock_file as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go when the file is closed, even by a kill
        yield


def _make(database: Path) -> None:
    """Make a database with all its tables, under another name until it is whole: MLflow needs some sixty migrations
    for that, and cannot go on with one that was killed in between."""
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine_with_retry

    for left in database.parent.glob(f".{database.name}.draft*"):  # of one that was killed: we are alone here
        left.unlink()
    draft = database.with_name(f".{database.name}.draft")
    engine = create_sqlalchemy_engine_with_retry(f"{SQLITE}{draft}")  # type: ignore[no-untyped-call]
    _initialize_tables(engine)  # type: ignore[no-untyped-call]
    engine.dispose()
    draft.replace(database)


def _as_uri(location: str) -> str:
    """A folder as a file URI (it may have a space in it); a URL as it is."""
    if not location or "://" in location:
        return location
    return Path(location).absolute().as_uri()


def _known(error: Exception) -> bool:
    """Whether it comes from MLflow, its database or the network, and so is no fault of ours."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, MlflowException | RequestException | SQLAlchemyError)


def _may_pass(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException
    from requests.exceptions import HTTPError
    from sqlalchemy.exc import OperationalError, SQLAlchemyError

    if isinstance(error, SQLAlchemyError):
        return isinstance(error, OperationalError)
    if isinstance(error, MlflowException):
        return error.error_code in _PASSING or _MET.search(str(error)) is not None
    if isinstance(error, HTTPError) and error.response is not None:
        return error.response.status_code >= 500 or error.response.status_code == 429
    return True


def _short(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else repr(error))[:500]

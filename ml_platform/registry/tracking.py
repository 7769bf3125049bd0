"""One MLflow run for each trained model, set up by dagster-mlflow and found again by the model's fingerprint.

Nothing heavy is imported here: dagster_mlflow imports MLflow (2 s, 200 MB), so it waits until a stage tracks something.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg

from ml_platform.errors import RegistryError
from ml_platform.registry.connection import Connection

FINGERPRINT_TAG = "ml_platform.fingerprint"
_LONGEST_KEY, _LONGEST_PARAM, _LONGEST_TAG = 250, 6000, 5000
_PARAMS_A_CALL, _METRICS_A_CALL = 100, 1000


class MlflowResource(dg.ConfigurableResource["MlflowResource"]):
    """MLflow's tracking server, and its tracked runs."""

    tracking_uri: str
    artifact_location: str = ""
    """Folder or URL for artifacts; empty: `artifacts` beside a SQLite file, or a server's own."""
    patience: float = 120.0
    """Seconds for which a call to MLflow is tried again: a server that is started anew may be away for a minute."""

    def connection(self) -> Connection:
        """A client. Imports MLflow."""
        return Connection(self.tracking_uri, patience=self.patience, artifact_location=self.artifact_location)

    @contextlib.contextmanager
    def tracked_run(
        self,
        context: Any,
        *,
        experiment: str,
        fingerprint: str,
        run_name: str,
        tags: Mapping[str, object] | None = None,
    ) -> Iterator[TrackedRun]:
        """Enter the MLflow run of a trained model, making it the first time.

        Every stage that concerns the model enters the same run, also in another Dagster run or after a crash. It ends
        FINISHED, FAILED when the block raises, or KILLED when it is interrupted; a process killed outright leaves it
        RUNNING until the next entry.

        Args:
            context: an op or asset execution context.
            experiment: MLflow's experiment, made when there is none.
            fingerprint: of the trained model.
            run_name: shown in MLflow.
            tags: further tags.

        Raises:
            RegistryError: MLflow refused, or was away for longer than `patience`.
        """
        connection = self.connection()
        experiment_id = connection.experiment(experiment)
        run_id = _find_or_create(connection, experiment_id, fingerprint, run_name)
        with _environment_restored():
            with _entering, _variables_restored():
                mlflow = connection.call(
                    f"enter the run {run_id}",
                    _enter,
                    connection,
                    context,
                    experiment=experiment,
                    run_id=run_id,
                    run_name=run_name,
                    tags={FINGERPRINT_TAG: fingerprint, **(tags or {})},
                )
            run = TrackedRun(
                connection=connection,
                run_id=run_id,
                experiment_id=experiment_id,
                url=connection.run_url(experiment_id, run_id),
                log=context.log,
            )
            try:
                yield run
            except BaseException as error:
                # dagster-mlflow would end it FINISHED: its resource sees no exception that a step raised.
                status = "FAILED" if isinstance(error, Exception) else "KILLED"
                try:
                    _end(connection, mlflow, run_id, status)
                except RegistryError as second:  # the first error is the one to show
                    context.log.warning(f"The MLflow run could not be ended as {status}.\n{second}")
                raise
            _end(connection, mlflow, run_id, "FINISHED")


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """An MLflow run that a stage logs into. Logging the same again changes nothing.

    Args:
        run_id, experiment_id: MLflow's.
        url: of its page, or None where no server shows it.
    """

    connection: Connection
    run_id: str
    experiment_id: str
    url: str | None
    log: Any

    def describe(self) -> str:
        """Where to see the run, in words: its page, or the command that shows it."""
        return self.url or f"mlflow ui --backend-store-uri '{self.connection.tracking_uri}'  (run {self.run_id})"

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters. MLflow keeps the first value of a name for good; a second one is warned of, and not kept.

        Values over 6,000 characters are cut, and end by saying so.
        """
        from mlflow.entities import Param

        known = self._run().data.params
        new: list[Any] = []
        for name, value in params.items():
            key, text = _cut(name, _LONGEST_KEY), _cut(str(value), _LONGEST_PARAM)
            if key not in known:
                new.append(Param(key, text))
            elif known[key] != text:
                self.log.warning(f"MLflow run {self.run_id} keeps {key}={known[key]!r}; this stage had {text!r}")
        for part in _chunks(new, _PARAMS_A_CALL):
            self._call("log parameters", self.connection.client.log_batch, self.run_id, params=part)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Log one value for each name. Not-a-number is kept as such."""
        self.log_series({name: {step: value} for name, value in metrics.items()})

    def log_series(self, series: Mapping[str, Mapping[int, float] | Sequence[float]]) -> None:
        """Log values by step for each name; a sequence counts its steps from 1. What is there is not doubled."""
        from mlflow.entities import Metric

        known = self._run().data.metrics
        now = int(time.time() * 1000)
        new: list[Any] = []
        for name, values in series.items():
            steps = values if isinstance(values, Mapping) else dict(enumerate(values, start=1))
            logged: dict[int, float] = {}
            if name in known:
                history = self._call("read metrics", self.connection.client.get_metric_history, self.run_id, name)
                logged = {point.step: point.value for point in sorted(history, key=lambda point: point.timestamp)}
            new += [Metric(name, v, now, s) for s, v in steps.items() if s not in logged or not _same(logged[s], v)]
        for part in _chunks(new, _METRICS_A_CALL):
            self._call("log metrics", self.connection.client.log_batch, self.run_id, metrics=part)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags; a later value replaces an earlier one."""
        from mlflow.entities import RunTag

        new = [RunTag(_cut(name, _LONGEST_KEY), _cut(str(value), _LONGEST_TAG)) for name, value in tags.items()]
        for part in _chunks(new, _PARAMS_A_CALL):
            self._call("set tags", self.connection.client.log_batch, self.run_id, tags=part)

    def log_artifacts(self, contents: Mapping[str, bytes | str]) -> None:
        """Upload small files by name (forward slashes make folders), such as plots. A name is replaced."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in contents.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            self._call("upload artifacts", self.connection.client.log_artifacts, self.run_id, folder)

    def _run(self) -> Any:
        return self._call("read the run", self.connection.client.get_run, self.run_id)

    def _call(self, what: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        return self.connection.call(f"{what} ({self.run_id})", function, *args, **kwargs)


def find_run(connection: Connection, experiment_id: str, fingerprint: str) -> str | None:
    """The id of the run tracked for a fingerprint: the oldest, should two processes have made one each."""
    runs = _runs(connection, experiment_id, fingerprint)
    return str(runs[0].info.run_id) if runs else None


def _runs(connection: Connection, experiment_id: str, fingerprint: str) -> list[Any]:
    found = connection.call(
        "search runs",
        connection.client.search_runs,
        [experiment_id],
        filter_string=f"tags.`{FINGERPRINT_TAG}` = '{fingerprint}'",
        order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
        max_results=100,
    )
    return list(found)


def _find_or_create(connection: Connection, experiment_id: str, fingerprint: str, run_name: str) -> str:
    """The run's id. Of two processes that make one at once, the later removes its own and takes the other's."""
    if found := find_run(connection, experiment_id, fingerprint):
        return found
    made = connection.call(
        "create a run",
        connection.client.create_run,
        experiment_id,
        run_name=run_name,
        tags={FINGERPRINT_TAG: fingerprint},
    )
    standing, *others = _runs(connection, experiment_id, fingerprint)
    for run in others:
        # Asked again after its answer got lost, MLflow makes two, which began in the same millisecond.
        if run.info.start_time == made.info.start_time:
            connection.remove("remove a doubled run", connection.client.delete_run, run.info.run_id)
    return str(standing.info.run_id)


def _enter(
    connection: Connection, context: Any, *, experiment: str, run_id: str, run_name: str, tags: Mapping[str, object]
) -> Any:
    """Let dagster-mlflow make `run_id` the active run and tag it with the Dagster run.

    Raises:
        RegistryError: another run is active in this thread. dagster-mlflow would log into that one without a word.
    """
    import mlflow

    with warnings.catch_warnings():  # that it is in beta
        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        from dagster_mlflow import resources
    set_up: Any = resources.MlFlow
    config = {
        "mlflow_tracking_uri": connection.tracking_uri,
        "experiment_name": experiment,
        "mlflow_run_id": run_id,
        "extra_tags": {name: _cut(str(value), _LONGEST_TAG) for name, value in tags.items()},
    }
    active = mlflow.active_run()
    if active and active.info.run_id != run_id:
        raise RegistryError(
            "Another MLflow run is active in this process.",
            where=run_name,
            got=active.info.run_id,
            fix="end it with mlflow.end_run() before the stage, or leave tracking to the platform",
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        # What it reads of a resource's context, under the name that the run has in MLflow: it renames the run.
        return set_up(
            SimpleNamespace(
                log=context.log,
                dagster_run=SimpleNamespace(job_name=run_name),
                run_id=context.run.run_id,
                resource_config=config,
            )
        )


def _end(connection: Connection, mlflow: Any, run_id: str, status: str) -> None:
    def end() -> None:
        # MLflow forgets its active run before it tells the server: when that failed, ending it again does nothing.
        if mlflow.active_run():
            mlflow.end_run(status=status)
        else:
            connection.client.set_terminated(run_id, status=status)

    connection.call(f"end the run {run_id} as {status}", end)


_entering = threading.RLock()
_inside = 0
_before = contextlib.ExitStack()


@contextlib.contextmanager
def _environment_restored() -> Iterator[None]:
    """Undo what entering a run leaves behind in the process: the tracking URI and the experiment. A team's own
    `mlflow.start_run()` must not end up in our experiment. Where several threads are in runs, which are then of one
    pipeline, the last one out undoes it."""
    global _inside
    with _entering:
        if not _inside:
            _before.enter_context(_remembered())
        _inside += 1
    try:
        yield
    finally:
        with _entering:
            _inside -= 1
            if not _inside:
                _before.close()


@contextlib.contextmanager
def _remembered() -> Iterator[None]:
    import mlflow as untyped
    from mlflow.tracking import fluent

    mlflow: Any = untyped
    experiment = fluent._active_experiment_id  # no public function reads or clears it
    uri = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else ""
    with _variables_restored():
        try:
            yield
        finally:
            mlflow.set_tracking_uri(uri)
            fluent._active_experiment_id = experiment


@contextlib.contextmanager
def _variables_restored() -> Iterator[None]:
    """Undo what is done to MLflow's environment variables inside. It sets MLFLOW_TRACKING_URI so that subprocesses
    follow; a training job that is started meanwhile must not start to talk to MLflow."""
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("MLFLOW_") and name not in before]:
            del os.environ[name]
        os.environ.update(before)


def _cut(text: str, length: int) -> str:
    """`text` if it is short enough; else its beginning and a note of how long it was."""
    if len(text) <= length:
        return text
    note = f" ... [cut: {len(text):,} characters]"
    return text[: length - len(note)] + note


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _chunks(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))

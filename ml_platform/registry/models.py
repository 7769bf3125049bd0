"""Registered models: one MLflow version per distinct model, whole and hash-true before an alias names it.

The order is what keeps it safe. Upload, read the upload back and compare hashes, create the version, mark it complete,
set the alias. A process killed in between leaves a version without the mark: no alias names it, and the next
registration of the same model completes or replaces it.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import RegistryError
from ml_platform.pipeline import Pipeline
from ml_platform.registry import hashes
from ml_platform.registry.connection import Connection
from ml_platform.registry.upload import (
    DATA_VERSION_TAG,
    FILES_TAG,
    PROGRAM_TAG,
    content_differs,
    difference,
    ensure_upload,
    fetch,
)

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)

_SOURCE = "models:/"
"""Before a logged model's id: where a version's files are."""
CHAMPION, CHALLENGER = "champion", "challenger"
FINGERPRINT_TAG = "ml_platform.fingerprint"
EVALUATION_TAG = "ml_platform.evaluation"
"""On a version: data version of the evaluation with which it was registered."""
PROVENANCE_TAG = "ml_platform.provenance"
"""On a version: SHA-256 of its provenance record."""
COMMIT_TAG = "ml_platform.git_commit"
"""On a version: the commit that it was trained from, with a plus where the work tree had changes."""
COMPLETE_TAG = "ml_platform.complete"
"""On a version whose files were read back and are right. Nothing without it may have an alias."""
DAMAGED_TAG = "ml_platform.damaged"
"""On a version whose files were changed after it was complete: what is wrong with them."""


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    """A complete version of a registered model.

    Args:
        name, version: MLflow's.
        uri: what `mlflow.pyfunc.load_model` takes.
        aliases: names that point at it now.
        created: whether this call made it.
        run_id: the MLflow run that trained it.
        tags: of the version.
        made: when it was created, UTC in ISO 8601.
    """

    name: str
    version: str
    uri: str
    aliases: tuple[str, ...]
    created: bool
    run_id: str
    tags: Mapping[str, str]
    made: str = ""

    @property
    def model(self) -> str:
        """Data version of the trained model that it is: what a decision is bound to; "" where nobody knows."""
        return self.tags.get(DATA_VERSION_TAG, "")

    @property
    def complete(self) -> bool:
        """Whether its files were read back and found right, and nobody has found them damaged since."""
        return self.tags.get(COMPLETE_TAG) == "true" and DAMAGED_TAG not in self.tags


def register(
    pipeline: Pipeline,
    model_folder: Path,
    *,
    connection: Connection,
    run_id: str,
    fingerprint: str,
    data_version: str,
    input_example: pa.Table,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, object] | None = None,
    carried: Mapping[str, Path] | None = None,
    program: bool = False,
    promote: bool | None = True,
) -> RegisteredVersion:
    """Register a model, unless it is registered already, and point an alias at it. May be called again at any time.

    Args:
        pipeline: its name is the registered model's.
        model_folder: what the training job left; see `ml_platform.training.model_folder`.
        connection: to MLflow.
        run_id: the tracked run of the model.
        fingerprint: of the trained model.
        data_version: of the trained model: the same for the same bytes, and what makes a model distinct.
        input_example: a few raw feature rows, with at least the feature columns.
        metrics: shown with the version.
        tags: further facts, such as data versions.
        carried: local files that a new version holds beside the model, such as its provenance, by their path in it.
        program: let a new version hold the model as an exported program too, where torch can export it. Takes seconds.
        promote: point `champion` at it; where False, `challenger`; where None, leave the aliases as they are
            (`promotion` moves them as was decided).

    Raises:
        RegistryError: MLflow refused or was away, or what it stored is not what was sent.
        TrainingError: `model_folder` is none.
    """
    described = {
        FINGERPRINT_TAG: fingerprint,
        **{name: str(value) for name, value in (tags or {}).items()},
        **{f"metric.{name}": f"{value:.6g}" for name, value in (metrics or {}).items()},
    }
    _ensure_model(connection, pipeline)
    version = _sound_version(connection, pipeline.name, data_version, model_folder)
    created = version is None
    if version is None:
        model_id = ensure_upload(
            connection, pipeline, model_folder, run_id, data_version, input_example, carried or {}, program
        )
        version, created = _ensure_version(connection, pipeline, run_id, model_id, data_version, described)
    _mark(connection, version, described)
    _remove_doubles(connection, version)
    if promote is not None:
        _point(connection, pipeline.name, str(version.version), promote)
    return _describe(connection, pipeline.name, str(version.version), created)


def champion(connection: Connection, name: str, alias: str = CHAMPION) -> RegisteredVersion | None:
    """The version that an alias of a model points at; None where there is no such model or alias."""
    version = _by_alias(connection, name, alias)
    return None if version is None else _describe(connection, name, version, created=False)


def verify(connection: Connection, version: Any) -> str:
    """Read a version's files back and compare their hashes: what differs, in words, or nothing."""
    return difference(
        connection, str(version.source).removeprefix(_SOURCE), hashes.from_tag(version.tags.get(FILES_TAG))
    )


def download(connection: Connection, name: str, version: str, into: Path) -> Path:
    """Fetch a version's model folder, and check that its files are those that were uploaded.

    Args:
        connection: to MLflow.
        name, version: MLflow's.
        into: an empty folder.

    Raises:
        RegistryError: MLflow is away, or the files are others.
    """
    found = connection.call("read the version", connection.client.get_model_version, name, version)
    expected = hashes.from_tag(found.tags.get(FILES_TAG))
    folder = fetch(connection, str(found.source).removeprefix(_SOURCE), into)
    if wrong := hashes.difference(expected, hashes.of_folder(into)):
        raise RegistryError(
            "A registered model is not what was uploaded.", where=f"{name} version {version}", got=wrong
        )
    return folder


def _ensure_model(connection: Connection, pipeline: Pipeline) -> None:
    def ensure() -> None:
        from mlflow.exceptions import MlflowException

        try:
            tags = {"ml_platform.pipeline": pipeline.name, "ml_platform.task": pipeline.task}
            connection.client.create_registered_model(pipeline.name, tags=tags, description=pipeline.description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    connection.call(f"make the registered model {pipeline.name!r}", ensure)


def _sound_version(connection: Connection, name: str, data_version: str, model_folder: Path) -> Any:
    """The oldest version of these very bytes whose files are right, or None.

    A version without its mark may belong to a process that is at work now; it is sound all the same, because a
    version is made after its upload was found right. One whose files were changed since is marked as damaged, and
    loses its aliases: they come back with the version that replaces it.

    Raises:
        RegistryError: a version has this data version, and holds another model.
    """
    for version in _versions(connection, name, data_version):
        if wrong := verify(connection, version):
            condemn(connection, name, version.version, wrong)
        elif other := content_differs(hashes.from_tag(version.tags.get(FILES_TAG)), model_folder):
            raise RegistryError(
                "Two different models claim to be one.",
                where=f"{name} version {version.version}, data version {data_version}",
                got=other,
                fix="materialize trained_model again; if it stays so, delete that version in MLflow",
            )
        else:
            return version
    return None


def condemn(connection: Connection, name: str, number: str, wrong: str) -> None:
    """Mark a version as damaged, and take its aliases away; `wrong` says how its files differ."""
    client = connection.client
    _log.warning("Version %s of %s is damaged and will be replaced: %s", number, name, wrong)
    for alias in connection.call("read the version", client.get_model_version, name, number).aliases:
        connection.remove("remove an alias", client.delete_registered_model_alias, name, alias)
    connection.call("mark a damaged version", client.set_model_version_tag, name, number, DAMAGED_TAG, wrong)


def _versions(connection: Connection, name: str, data_version: str) -> list[Any]:
    """Versions of a model data version that nobody has found damaged, oldest first."""
    found = connection.call(
        f"search versions of {name!r}",
        connection.client.search_model_versions,
        with_data(name, data_version),
        max_results=100,
    )
    sound = [version for version in found if DAMAGED_TAG not in version.tags]
    return sorted(sound, key=lambda version: int(version.version))


def _ensure_version(
    connection: Connection,
    pipeline: Pipeline,
    run_id: str,
    model_id: str,
    data_version: str,
    described: Mapping[str, str],
) -> tuple[Any, bool]:
    """The version of a sound upload, and whether it is new. Of two made at once the older stands."""
    client, name = connection.client, pipeline.name
    logged = connection.call("read the upload", client.get_logged_model, model_id)
    tags = {**described, DATA_VERSION_TAG: data_version, FILES_TAG: logged.tags[FILES_TAG]}
    tags |= {PROGRAM_TAG: logged.tags[PROGRAM_TAG]} if PROGRAM_TAG in logged.tags else {}

    source = _SOURCE + model_id

    def find_or_create() -> Any:  # may run twice: a server may answer 500 and have created it all the same
        if found := [v for v in client.search_model_versions(with_data(name, data_version)) if v.source == source]:
            return found[0]
        return client.create_model_version(name, source, run_id=run_id, tags=tags, model_id=model_id)

    made = connection.call("create a version", find_or_create)
    first = _versions(connection, name, data_version)[0]
    if first.version != made.version:
        connection.remove("remove a doubled version", client.delete_model_version, name, made.version)
    return first, first.source == source


def with_data(name: str, data_version: str) -> str:
    """The filter of MLflow's search for the versions of a model that were made of a trained model's data version."""
    return f"name = '{name}' and tags.`{DATA_VERSION_TAG}` = '{data_version}'"


def _mark(connection: Connection, version: Any, described: Mapping[str, str]) -> None:
    """Bring a sound version's tags up to date, the mark of completeness last."""
    if version.status != "READY":
        raise RegistryError(
            "MLflow has not finished the version.",
            where=f"{connection.tracking_uri}, {version.name} version {version.version}",
            got=f"{version.status} {version.status_message or ''}".strip(),
            fix="run the stage again; if it stays so, delete the version in MLflow first",
        )
    wanted = {**described, COMPLETE_TAG: "true"}
    if version.tags.get(COMPLETE_TAG) == "true":
        # The same bytes may come from another fingerprint; what they were first made from is what they are known by.
        for first in (FINGERPRINT_TAG, PROVENANCE_TAG, COMMIT_TAG):
            wanted.pop(first, None)
    for key, value in wanted.items():
        if version.tags.get(key) != value:
            connection.call(
                "tag the version", connection.client.set_model_version_tag, version.name, version.version, key, value
            )


def _remove_doubles(connection: Connection, version: Any) -> None:
    """Remove what a registration left that was killed between making a second version of a model and removing it."""
    for other in _versions(connection, version.name, version.tags[DATA_VERSION_TAG]):
        if int(other.version) > int(version.version) and COMPLETE_TAG not in other.tags:
            connection.remove(
                "remove a doubled version", connection.client.delete_model_version, other.name, other.version
            )


def _point(connection: Connection, name: str, version: str, promote: bool) -> None:
    """Let the right alias name a complete version."""
    client = connection.client
    standing = _by_alias(connection, name, CHAMPION)
    if promote:
        if standing != version:
            connection.call("set an alias", client.set_registered_model_alias, name, CHAMPION, version)
        if _by_alias(connection, name, CHALLENGER) == version:
            connection.remove("remove an alias", client.delete_registered_model_alias, name, CHALLENGER)
    elif standing != version:
        connection.call("set an alias", client.set_registered_model_alias, name, CHALLENGER, version)


def _by_alias(connection: Connection, name: str, alias: str) -> str | None:
    def find() -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            return str(connection.client.get_model_version_by_alias(name, alias).version)
        except MlflowException as error:
            # MLflow says "invalid parameter" of an alias that is not there, and "does not exist" of a model.
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    return connection.call(f"look up {name}@{alias}", find)


def _describe(connection: Connection, name: str, version: str, created: bool) -> RegisteredVersion:
    found = connection.call("read the version", connection.client.get_model_version, name, version)
    return described_as(found, found.aliases, created=created)


def described_as(found: Any, aliases: Iterable[str], *, created: bool = False) -> RegisteredVersion:
    """MLflow's own record of a version, as ours."""
    made = dt.datetime.fromtimestamp(found.creation_timestamp / 1000, dt.UTC) if found.creation_timestamp else None
    return RegisteredVersion(
        name=found.name,
        version=str(found.version),
        uri=f"models:/{found.name}/{found.version}",
        aliases=tuple(sorted(aliases)),
        created=created,
        run_id=found.run_id or "",
        tags=dict(found.tags),
        made=made.isoformat(timespec="seconds") if made else "",
    )

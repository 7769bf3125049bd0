"""Puts a model folder into MLflow's artifact store as a logged model, and reads it back to see that it arrived."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import RegistryError
from ml_platform.pipeline import Pipeline
from ml_platform.registry import hashes
from ml_platform.registry.connection import Connection
from ml_platform.training.result import CONTENT

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_platform.training.scoring import Scorer

_log = logging.getLogger(__name__)

DATA_VERSION_TAG = "ml_platform.data_version"
"""Of the trained model; on its upload and on its version."""
FILES_TAG = "ml_platform.files"
"""SHA-256 of every uploaded file; an upload has it once it was read back and found right."""
PROGRAM_TAG = "ml_platform.program"
"""On an upload and its version: the folder of the exported program in it, or why there is none."""
PROGRAM = "program"
_LOADER = "ml_platform.registry.scoring_model"
_FOLDER = "model"
_EXAMPLE_ROWS = 5


def ensure_upload(
    connection: Connection,
    pipeline: Pipeline,
    model_folder: Path,
    run_id: str,
    data_version: str,
    input_example: pa.Table,
    carried: Mapping[str, Path],
    program: bool,
) -> str:
    """The id of a logged model that holds these bytes: one that an earlier, killed call had finished, or a new one.

    `carried` are further files that a new one holds beside the model, by their path in it, and `program` says whether
    it holds the exported program too.
    """
    experiment_id = connection.call("read the run", connection.client.get_run, run_id).info.experiment_id
    earlier = connection.call(
        "search logged models",
        connection.client.search_logged_models,
        [experiment_id],
        filter_string=f"tags.`{DATA_VERSION_TAG}` = '{data_version}'",
        max_results=50,
    )
    for logged in earlier:
        expected = hashes.from_tag(logged.tags.get(FILES_TAG))
        if str(logged.status) != "READY" or content_differs(expected, model_folder):
            continue
        if not difference(connection, logged.model_id, expected):
            break
    else:
        logged = _upload(
            connection, pipeline, model_folder, run_id, experiment_id, data_version, input_example, carried, program
        )
    model_id = str(logged.model_id)
    connection.call("link the model to its run", _link, connection.client, logged.source_run_id, model_id)
    return model_id


def _upload(
    connection: Connection,
    pipeline: Pipeline,
    model_folder: Path,
    run_id: str,
    experiment_id: str,
    data_version: str,
    input_example: pa.Table,
    carried: Mapping[str, Path],
    program: bool,
) -> Any:
    """The logged model, once its files were read back."""
    client = connection.client
    logged = connection.call(
        "create a logged model",
        client.create_logged_model,
        experiment_id,
        name=pipeline.name,
        source_run_id=run_id,
        tags={DATA_VERSION_TAG: data_version},
        model_type=pipeline.task,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "upload")
        _save(pipeline, model_folder, folder, input_example, run_id=run_id, logged=logged)
        exported = {PROGRAM_TAG: _export(pipeline, model_folder, folder / PROGRAM)} if program else {}
        for name, path in carried.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        expected = hashes.of_folder(folder)
        connection.call("upload the model", client.log_model_artifacts, logged.model_id, str(folder))
    if wrong := difference(connection, logged.model_id, expected):
        connection.call("give up the upload", client.finalize_logged_model, logged.model_id, "FAILED")
        raise RegistryError(
            "MLflow's artifact store does not hold what was sent to it.",
            where=f"{connection.tracking_uri}, logged model {logged.model_id}",
            got=wrong,
            fix="check the artifact store, then run the stage again",
        )
    tags = {**exported, FILES_TAG: hashes.to_tag(expected)}
    connection.call("tag the upload", client.set_logged_model_tags, logged.model_id, tags)
    connection.call("finish the upload", client.finalize_logged_model, logged.model_id, "READY")
    return logged


def _save(
    pipeline: Pipeline, model_folder: Path, folder: Path, input_example: pa.Table, *, run_id: str, logged: Any
) -> None:
    """Write the MLflow model: the model folder's content, a signature, an example, and pinned requirements."""
    import mlflow.pyfunc
    from mlflow.models import Model

    from ml_platform.registry.requirements import pinned
    from ml_platform.registry.scoring_model import signature
    from ml_platform.training.scoring import Scorer

    scorer = Scorer.load(model_folder)
    example = _written(input_example.select(list(scorer.columns)).slice(0, _EXAMPLE_ROWS), scorer)
    content = folder.parent / _FOLDER
    content.mkdir()
    for name in CONTENT:  # what the same job always writes the same; timings stay in the store
        shutil.copyfile(model_folder / name, content / name)
    mlflow.pyfunc.save_model(
        path=str(folder),
        loader_module=_LOADER,
        data_path=str(content),
        signature=signature(scorer),
        input_example=example.to_pandas(),
        pip_requirements=pinned([recipe.model for recipe in pipeline.recipes.values()]),
        mlflow_model=Model(
            artifact_path=logged.artifact_location,
            model_uuid=logged.model_id,
            run_id=run_id,
            model_id=logged.model_id,
        ),
    )


def _export(pipeline: Pipeline, model_folder: Path, folder: Path) -> str:
    """Write the model as a program that needs none of this code; a version without it is as good. Returns the tag."""
    from ml_platform.training import ensemble
    from ml_platform.training.program import CannotExportError, export

    try:
        export(ensemble.load(model_folder), folder)
    except CannotExportError as error:
        _log.warning("Registered without an exported program, %s: %s", pipeline.name, error)
        return f"none: {error.got}"
    return PROGRAM


def _written(table: pa.Table, scorer: Scorer) -> pa.Table:
    """Rows in the types of the signature, as the feature job writes them; dictionary-encoded columns as what they
    encode, since MLflow refuses the categories that pandas would make of them."""
    import pyarrow as pa

    types = dict.fromkeys(scorer.numeric, pa.float64())
    types |= {name: pa.string() for name, text in scorer.categorical.items() if text}
    fields = [
        pa.field(field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
        for field in table.schema
    ]
    return table.cast(pa.schema([pa.field(f.name, types.get(f.name, f.type)) for f in fields]))


def _link(client: Any, run_id: str, model_id: str) -> None:
    """Show the model as its run's output. MLflow refuses to be told twice, as happens when its answer got lost."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    def linked() -> bool:
        outputs = client.get_run(run_id).outputs
        return model_id in [output.model_id for output in (outputs.model_outputs if outputs else [])]

    if linked():
        return
    try:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    except MlflowException:
        if not linked():
            raise


def content_differs(expected: Mapping[str, str], model_folder: Path) -> str:
    """Whether an upload was made of another model folder than this one, in words."""
    own = hashes.of_folder(model_folder)
    return hashes.difference(
        {f"data/{_FOLDER}/{name}": own.get(name, "") for name in CONTENT},
        {name: value for name, value in expected.items() if name.startswith("data/")},
    )


def difference(connection: Connection, model_id: str, expected: dict[str, str]) -> str:
    """Download an upload to a fresh folder and say how its files differ from `expected`; nothing when they do not.

    Raises:
        RegistryError: the store is away or refuses, which says nothing of the files.
    """
    with tempfile.TemporaryDirectory() as folder:
        fetch(connection, model_id, Path(folder))
        return hashes.difference(expected, hashes.of_folder(Path(folder)))


def fetch(connection: Connection, model_id: str, into: Path) -> Path:
    """Download an upload to a folder, and return the model folder in it.

    Raises:
        RegistryError: the store is away or refuses.
    """
    logged = connection.call("read the logged model", connection.client.get_logged_model, model_id)
    connection.call("read the upload back", _download, connection, logged.artifact_location, str(into))
    return into / "data" / _FOLDER


def fetch_file(connection: Connection, source: str, name: str, into: Path) -> Path:
    """Download one file of an upload, such as what went beside the model, to a folder.

    Args:
        connection: to MLflow.
        source: of the version: "models:/" and the upload's id.
        name: of the file in the upload.
        into: a folder.

    Raises:
        RegistryError: it is not there, or the store is away or refuses.
    """
    model_id = source.removeprefix("models:/")
    logged = connection.call("read the logged model", connection.client.get_logged_model, model_id)
    connection.call(f"read {name}", _download, connection, logged.artifact_location, str(into), name)
    return into / name


def _download(connection: Connection, location: str, folder: str, name: str = "") -> None:
    """Whatever is there, from where it really is: by its `models:/` name MLflow adds a file of its own to a download,
    and refuses one of which nothing is left."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository: Any = get_artifact_repository(location, tracking_uri=connection.tracking_uri)
    repository.download_artifacts(name, dst_path=folder)

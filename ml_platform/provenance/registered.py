"""The record of a registered version, as it was uploaded with it; and its card as the version's description."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import RefusedError, RegistryError
from ml_platform.provenance.card import description
from ml_platform.provenance.record import RECORD_FILE, Record, collect, from_json
from ml_platform.registry import hashes
from ml_platform.registry.models import EVALUATION_TAG, FINGERPRINT_TAG
from ml_platform.registry.upload import FILES_TAG, fetch_file
from ml_platform.registry.versions import versions_of

if TYPE_CHECKING:
    from ml_platform.registry.connection import Connection
    from ml_platform.registry.models import RegisteredVersion
    from ml_platform.stages.chain import Chain

TRAINED = "trained_model"


def split_name(text: str) -> tuple[str, str]:
    """The model and the version or alias that NAME@VERSION names; the champion where there is no `@`.

    Raises:
        RefusedError: it has no name.
    """
    name, _, which = text.partition("@")
    if not name:
        raise RefusedError("A model has a name.", got=repr(text), fix=f"write PIPELINE@{which or 'champion'}")
    return name, which or "champion"


def version_named(connection: Connection, text: str) -> RegisteredVersion:
    """The version that NAME@VERSION or NAME@ALIAS means.

    Raises:
        RefusedError: there is none.
        RegistryError: the registry cannot be asked.
    """
    name, which = split_name(text)
    versions = versions_of(connection, name)
    for version in versions:
        if which == version.version or which in version.aliases:
            return version
    aliases = sorted({alias for version in versions for alias in version.aliases})
    there = ", ".join([*aliases, *(version.version for version in versions[-10:])])
    raise RefusedError(
        "There is no such version.",
        where=f"registered model {name!r} in {connection.tracking_uri}",
        got=which,
        fix=f"one of {there}" if there else f"nothing is registered yet: `ml-platform run {name}`",
    )


def record_of(connection: Connection, version: RegisteredVersion, chain: Chain) -> dict[str, Any]:
    """The provenance record of a version. See `uploaded_record`.

    One that was registered by an earlier version of the platform has none: then what the store says of it.

    Args:
        connection: to the registry.
        version: which.
        chain: the pipeline as it stands, for its store.

    Raises:
        RegistryError: the file is gone or is another one.
        RefusedError: there is no record, and the model's artifacts are gone.
    """
    return uploaded_record(connection, version) or _collected(chain, version)


def uploaded_record(connection: Connection, version: RegisteredVersion) -> dict[str, Any] | None:
    """The record that was uploaded with a version, checked against its hash; None where none was.

    Raises:
        RegistryError: the file is gone or is another one.
    """
    promised = hashes.from_tag(version.tags.get(FILES_TAG)).get(RECORD_FILE)
    if promised is None:
        return None
    source = connection.call("read the version", connection.client.get_model_version, version.name, version.version)
    with tempfile.TemporaryDirectory() as folder:
        path = fetch_file(connection, str(source.source), RECORD_FILE, Path(folder))
        data = path.read_bytes()
    where = f"{version.name} version {version.version}, {RECORD_FILE}"
    if (found := hashlib.sha256(data).hexdigest()) != promised:
        raise RegistryError(
            "The provenance record is not what was uploaded.",
            where=where,
            got=f"SHA-256 {found}, not {promised}",
            fix="the artifact of registered_model in the store has it too; "
            f"`ml-platform run {version.name} --select registered_model --force` makes a version of today's model anew",
        )
    return from_json(data, where)


def _collected(chain: Chain, version: RegisteredVersion) -> dict[str, Any]:
    fingerprint = version.tags.get(FINGERPRINT_TAG, "")
    trained = chain.store.find(chain.pipeline.name, TRAINED, fingerprint) if fingerprint else None
    if trained is None:
        raise RefusedError(
            "Nothing is known of where this version came from.",
            where=f"{version.name} version {version.version}",
            got="it holds no provenance record, and its trained model is not in the store",
        )
    inputs = {TRAINED: trained.data_version}
    evaluation = chain.of_version("evaluation", version.tags.get(EVALUATION_TAG, ""), **inputs)
    training_set = chain.of_version("training_set", trained.inputs["training_set"])
    return collect(chain.store, chain.pipeline, trained=trained, evaluation=evaluation, training_set=training_set)


def describe(connection: Connection, name: str, version: str, record: Record, decisions: Sequence[str] = ()) -> None:
    """Show the model card as a version's description; with what people have decided about it, a sentence each.

    Raises:
        RegistryError: the registry cannot be asked.
    """
    text = description(record, approvals=decisions, title=f"version {version}")
    client = connection.client
    there = connection.call("read the version", client.get_model_version, name, version)
    if there.description != text:
        connection.call("describe the version", client.update_model_version, name, version, text)

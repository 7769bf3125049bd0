"""What a batch has reached: every artifact that was made of it, every model, every alias. Asked when it was found bad.

An artifact says what it was made of, so what was made of the batch is found by going through all artifacts once, in the
order of the stages. History counts: a model that was trained last year is found as well as the champion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_platform.errors import RefusedError
from ml_platform.stages.chain import RAW_BATCH
from ml_platform.stages.stage import UNPARTITIONED
from ml_platform.store.manifest import Manifest

if TYPE_CHECKING:
    from ml_platform.registry.models import RegisteredVersion
    from ml_platform.stages.chain import Chain

TRAINED = "trained_model"
PARENT = "champion"
"""Name of the input of a trained model that is the model it was trained on from."""
SCHEMA = 1
"""Of the JSON that `ml-platform impact --json` prints."""


@dataclass(frozen=True, kw_only=True)
class Reached:
    """One artifact that was made of the batch. `published`: it is what its asset shows now."""

    manifest: Manifest
    published: bool


@dataclass(frozen=True, kw_only=True)
class Impact:
    """What was made of a batch.

    Args:
        pipeline, batch: whose.
        artifacts: by stage, in the order of the chain, the oldest first.
        versions: of the registered model, the oldest first.
    """

    pipeline: str
    batch: str
    artifacts: Mapping[str, Sequence[Reached]]
    versions: Sequence[RegisteredVersion]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        artifacts = {
            stage: [
                {
                    "batch": each.manifest.batch,
                    "fingerprint": each.manifest.fingerprint,
                    "data_version": each.manifest.data_version,
                    "verdict": each.manifest.verdict,
                    "created": each.manifest.created,
                    "published": each.published,
                }
                for each in reached
            ]
            for stage, reached in self.artifacts.items()
        }
        versions = [{"name": v.name, "version": v.version, "aliases": list(v.aliases)} for v in self.versions]
        return {
            "schema": SCHEMA,
            "pipeline": self.pipeline,
            "batch": self.batch,
            "artifacts": artifacts,
            "versions": versions,
        }


def impact_of(chain: Chain, batch: str) -> Impact:
    """Everything that was made of a batch, in whatever version of its data.

    Args:
        chain: the pipeline as it stands.
        batch: its name.

    Raises:
        RefusedError: it was never taken.
        RegistryError: the registry cannot be asked.
    """
    reached: dict[str, list[Reached]] = {}
    known: set[tuple[str, str]] = set()
    for stage in chain.stages:
        for manifest in chain.store.artifacts(chain.pipeline.name, stage):
            begins = stage == RAW_BATCH and manifest.batch == batch
            if begins or any((_meant(name), version) in known for name, version in manifest.inputs.items()):
                known.add((_name(manifest), manifest.data_version))
                shown = chain.published.versions(stage).get(manifest.batch) == manifest.data_version
                reached.setdefault(stage, []).append(Reached(manifest=manifest, published=shown))
    if RAW_BATCH not in reached:
        raise RefusedError(
            "The batch was never taken, so nothing was made of it.",
            where=f"pipeline {chain.pipeline.name!r}",
            got=batch,
            fix="`ml-platform list` shows which batches there are",
        )
    models = {each.manifest.data_version for each in reached.get(TRAINED, ())}
    return Impact(
        pipeline=chain.pipeline.name,
        batch=batch,
        artifacts=reached,
        versions=_versions(chain, models) if models else (),
    )


def _versions(chain: Chain, models: set[str]) -> list[RegisteredVersion]:
    from ml_platform.registry.connection import Connection
    from ml_platform.registry.upload import DATA_VERSION_TAG
    from ml_platform.registry.versions import versions_of

    found = versions_of(Connection(chain.settings.mlflow), chain.pipeline.name)
    return [version for version in found if version.tags.get(DATA_VERSION_TAG) in models]


def _name(manifest: Manifest) -> str:
    """What later artifacts call it among their inputs."""
    return manifest.stage if manifest.batch == UNPARTITIONED else f"{manifest.stage}/{manifest.batch}"


def _meant(name: str) -> str:
    """The artifact that an input's name means."""
    return TRAINED if name == PARENT else name

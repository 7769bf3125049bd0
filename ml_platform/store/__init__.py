"""Artifacts and their manifests: content-addressed, immutable, committed last."""

from ml_platform.store.manifest import ArtifactFile, Manifest
from ml_platform.store.store import Store

__all__ = ["ArtifactFile", "Manifest", "Store"]

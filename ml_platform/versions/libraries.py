"""Versions of installed distributions, read without importing anything."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping

_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
    "PIL": "pillow",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
}


@functools.cache
def version_of(distribution: str) -> str | None:
    """Its installed version; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def owner_of(package: str) -> tuple[str, str]:
    """The distribution that an imported package belongs to, and its version."""
    name = _DISTRIBUTIONS.get(package, package)
    if (version := version_of(name)) is not None:
        return normal(name), version
    owners = sorted(set(_owners().get(package, ())))
    if not owners:
        return normal(package), "not installed"
    return normal(owners[0]), ", ".join(version_of(owner) or "" for owner in owners)


@functools.cache
def _owners() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()  # reads every installed distribution: a last resort


def normal(distribution: str) -> str:
    """Its name as package indexes normalise it."""
    return distribution.lower().replace("_", "-").replace(".", "-")

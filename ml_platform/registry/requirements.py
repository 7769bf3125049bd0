"""Pinned requirements of a model, from what is installed; nothing is asked of the network."""

from __future__ import annotations

import importlib.metadata as metadata
from collections.abc import Sequence

SCORING = ("mlflow", "torch", "safetensors", "numpy", "pandas", "pyarrow")
"""What `ml_platform.training.scoring` and MLflow's loader import."""


def pinned(modules: Sequence[str] = ()) -> list[str]:
    """`name==version` of the libraries that scoring imports, of ml_platform, and of what holds `modules`.

    A build's local label ("+cpu") is left out: it says where a wheel came from, and would keep others from installing.

    Args:
        modules: names of modules whose distribution belongs to the model, such as the one that defines its network.
    """
    owners = metadata.packages_distributions()
    names = {*SCORING, "ml-platform"}
    for module in modules:
        names.update(owners.get(module.partition(".")[0], []))
    found = {}
    for name in names:
        try:
            found[name.lower().replace("_", "-")] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:  # run from a source tree; the code then travels some other way
            continue
    return [f"{name}=={version}" for name, version in sorted(found.items())]

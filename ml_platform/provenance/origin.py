"""What of this process is kept with each artifact that it builds: commit, Python, image. No part of its name."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ml_platform.versions.checkout import checkout_of

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings

BUILT_FROM = "built_from"
"""The fact of every artifact that this is."""
PLATFORM = "ml_platform.definitions"


def origin(pipeline: Pipeline, settings: Settings) -> Mapping[str, Any]:
    """What an artifact that is built now is built from, as JSON. Looked up once a process.

    `git` is the repository of the pipeline's feature function, `platform_git` the platform's, where that is another.
    """
    return _origin(pipeline.features.function.partition(":")[0], settings.image_digest)


@functools.cache
def _origin(module: str, image: str) -> Mapping[str, Any]:
    own, platforms = checkout_of(module), checkout_of(PLATFORM)
    return {
        "git": asdict(own),
        **({"platform_git": asdict(platforms)} if platforms.commit != own.commit else {}),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "image": image,
    }

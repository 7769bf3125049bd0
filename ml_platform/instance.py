"""Dagster's instance folder under the platform's home: one `dagster.yaml`, kept equal to the one of this release."""

from __future__ import annotations

import logging
import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import SetupError
from ml_platform.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

_log = logging.getLogger(__name__)


def instance_config() -> str:
    """The text of this release's dagster.yaml: package data of the wheel, or the project's own in a checkout.

    Raises:
        SetupError: neither is there.
    """
    packaged = resources.files("ml_platform").joinpath("dagster.yaml")
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    checkout = Path(__file__).resolve().parent.parent / "dagster.yaml"
    if not checkout.is_file():
        raise SetupError("The platform's dagster.yaml is missing.", where=checkout, fix="reinstall ml-platform")
    return checkout.read_text(encoding="utf-8")


def prepare_folder(settings: Settings) -> Path:
    """Make DAGSTER_HOME and put this release's dagster.yaml there; say so where it replaces another. Safe to repeat.

    Raises:
        SetupError: the folder cannot be written.
    """
    home = settings.dagster_home
    target = home / "dagster.yaml"
    text = instance_config()
    try:
        home.mkdir(parents=True, exist_ok=True)
        current = target.read_text(encoding="utf-8") if target.exists() else None
        if current == text:
            return home
        if current is not None:
            _log.warning("%s differed from this release's: refreshed, with the old text beside it as .previous", target)
            target.with_suffix(".yaml.previous").write_text(current, encoding="utf-8")
        # A daemon may read the file at any time: it must never see half of it.
        handle, name = tempfile.mkstemp(dir=home, prefix=".dagster.yaml.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(target)
    except OSError as error:
        raise SetupError(
            "Dagster's folder cannot be written.",
            where=home,
            got=error,
            fix="set ML_PLATFORM_HOME to a folder of yours",
        ) from error
    return home


def prepare_instance(settings: Settings) -> DagsterInstance:
    """The Dagster instance of this home, its folder made ready. Dispose of it, or use it in a `with`.

    Raises:
        SetupError: the folder cannot be written.
    """
    home = prepare_folder(settings)
    from dagster import DagsterInstance

    return DagsterInstance.from_config(str(home))

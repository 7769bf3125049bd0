"""Dagster's instance folder under the platform's home, its settings kept equal to those of this release."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import SetupError
from ml_platform.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

_log = logging.getLogger(__name__)


CONFIG_FILES = ("dagster.yaml", "workspace.yaml")
"""What the folder holds of this release: the instance's settings, and which code Dagster loads."""
LOCK_FILE = ".lock"
"""Held in that folder by who opens the instance."""


def release_text(name: str) -> str:
    """The text of this release's `name`: package data of the wheel, or the project's own in a checkout.

    Raises:
        SetupError: neither is there.
    """
    packaged = resources.files("ml_platform").joinpath(name)
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    checkout = Path(__file__).resolve().parent.parent / name
    if not checkout.is_file():
        raise SetupError(f"The platform's {name} is missing.", where=checkout, fix="reinstall ml-platform")
    return checkout.read_text(encoding="utf-8")


def prepare_folder(settings: Settings) -> Path:
    """Make DAGSTER_HOME and put this release's files there; say so where one replaces another. Safe to repeat.

    Raises:
        SetupError: the folder cannot be written.
    """
    home = settings.dagster_home
    try:
        home.mkdir(parents=True, exist_ok=True)
        for name in CONFIG_FILES:
            _refresh(home / name, release_text(name) + (_event_log(home) if name == "dagster.yaml" else ""))
    except OSError as error:
        raise SetupError(
            "Dagster's folder cannot be written.",
            where=home,
            got=error,
            fix="set ML_PLATFORM_HOME to a folder that you can write to",
        ) from error
    return home


def _event_log(home: Path) -> str:
    """The block of dagster.yaml that names our event log. Dagster wants an absolute folder: its own default one."""
    return f"""
# The same files as those of Dagster's own event log, written several times as fast: see ml_platform/event_log.py.
event_log_storage:
  module: ml_platform.event_log
  class: EventLog
  config:
    base_dir: {json.dumps(str(runs_folder(home)))}
"""


def runs_folder(home: Path) -> Path:
    """Where the event log keeps its files: Dagster's own default place."""
    return home / "history" / "runs"


def _refresh(target: Path, text: str) -> None:
    current = target.read_text(encoding="utf-8") if target.exists() else None
    if current == text:
        return
    if current is not None:
        _log.warning("%s differed from this release's: refreshed, with the old text beside it as .previous", target)
        target.with_name(f"{target.name}.previous").write_text(current, encoding="utf-8")
    # A daemon may read the file at any time: it must never see half of it.
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(temporary).replace(target)


def prepare_instance(settings: Settings) -> DagsterInstance:
    """The Dagster instance of this home, its folder made ready. Dispose of it, or use it in a `with`.

    Raises:
        SetupError: the folder cannot be written.
    """
    home = prepare_folder(settings)
    from dagster import DagsterInstance

    with _alone(home):
        instance = DagsterInstance.from_config(str(home))
        # The storages make their tables where they are opened or first asked, and two processes must not both do it.
        instance.get_runs_count()
        instance.get_asset_keys(limit=1)
        instance.all_instigator_state()
    return instance


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One at a time, across processes and threads. Let go when the file is closed, even by a kill."""
    with ExitStack() as held:
        try:
            lock = held.enter_context((home / LOCK_FILE).open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise SetupError(
                "Dagster's folder cannot be locked.",
                where=home,
                got=error,
                fix="set ML_PLATFORM_HOME to a folder on a disk of this machine that you can write to",
            ) from error
        yield

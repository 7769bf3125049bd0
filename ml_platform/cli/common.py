"""What several commands need: the settings with their errors in words, the consoles, the landing place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_platform.errors import SetupError

if TYPE_CHECKING:
    from rich.console import Console

    from ml_platform.landing import Landing
    from ml_platform.settings import Settings


def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        SetupError: a variable has a value that is not allowed; the message names each of them.
    """
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from ml_platform.settings import settings

    try:
        return settings()
    except ValidationError as error:
        wrong = [
            f"ML_PLATFORM_{str(problem['loc'][0]).upper()}={problem['input']!r}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise SetupError("A setting is not allowed.", got="; ".join(wrong), fix="correct or unset it") from error
    except SettingsError as error:
        raise SetupError(
            "A setting cannot be read.",
            got=error,
            fix="ML_PLATFORM_STORAGE_OPTIONS and ML_PLATFORM_KUBERNETES are JSON objects; the README and "
            "docs/kubernetes.md show them",
        ) from error


def user() -> str:
    """Who is logged in here; "" where the system has no name, as in some containers: then --by must be given."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def output() -> Console:
    """Where results go: standard output."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def notices() -> Console:
    """Where progress and remarks go: standard error, so that results can be piped."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def open_landing(settings: Settings) -> Landing:
    """The place where data lands, to list it and to write to it: nothing here has to wait until a file keeps still."""
    from ml_platform.landing import Landing

    return Landing(settings.landing, storage_options=settings.storage_options, settle_seconds=0.0)

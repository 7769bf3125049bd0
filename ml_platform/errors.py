"""Every error of the platform says what happened, where, what was given, and what to do."""

from __future__ import annotations


class PlatformError(Exception):
    """Base of all errors that the platform raises on purpose.

    Args:
        what: what went wrong, in one sentence.
        where: the file, batch, stage or declaration it concerns.
        got: the offending value.
        fix: what the reader can do about it.
        passing: whether it may go away by itself, so that trying again later makes sense. None leaves that to what
            caused it (`failures`).
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        got: object = None,
        fix: str | None = None,
        passing: bool | None = None,
    ) -> None:
        self.what, self.where, self.got, self.fix, self.passing = what, where, got, fix, passing
        lines = [what]
        if where is not None:
            lines.append(f"  where: {where}")
        if got is not None:
            lines.append(f"  got:   {got}")
        if fix is not None:
            lines.append(f"  fix:   {fix}")
        super().__init__("\n".join(lines))


class DeclarationError(PlatformError, ValueError):
    """A pipeline is declared wrongly. Raised when it is defined, before anything runs."""


class LandingError(PlatformError):
    """A landed file cannot be taken: missing, incomplete, still growing, or named wrongly."""


class StoreError(PlatformError):
    """The store cannot do what was asked: unreachable, full, or a manifest contradicts another."""


class DamagedArtifactError(StoreError):
    """A file's bytes are not those that its manifest promises."""


class RefusedError(PlatformError):
    """A stage will not read its input: rejected by a gate, not yet checked, or absent."""


class FeatureError(PlatformError):
    """A feature function returned something that the pipeline does not declare."""


class TrainingError(PlatformError):
    """A training job ended without a model."""


class RegistryError(PlatformError):
    """The model registry refused, or its answer contradicts the store."""


class SetupError(PlatformError):
    """The machine lacks something that the platform needs."""

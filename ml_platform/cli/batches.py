"""Reads `--batches`: a range A..B over what has landed or was taken before, or names with commas between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ml_platform.errors import LandingError
from ml_platform.pipeline import Pipeline

if TYPE_CHECKING:
    from ml_platform.settings import Settings


def selected(
    texts: Iterable[str], pipeline: Pipeline, known: Callable[[], Iterable[str]], option: str = "--batches"
) -> set[str] | None:
    """The batches that the texts name together; None, which means all, where there are no texts.

    Args:
        texts: each is "A..B" (both included, in name order, either may be left out) or "A,B,C".
        pipeline: whose batches they are.
        known: gives the names of the batches that there are; asked only where there is a range.
        option: by which they were given.

    Raises:
        LandingError: a name that the pipeline does not accept, a range the wrong way round, or one with nothing in it.
    """
    names: set[str] = set()
    texts = [text for text in texts if text.strip()]
    for text in texts:
        for part in (part.strip() for part in text.split(",")):
            if ".." in part:
                names |= _range(part, pipeline, known, option)
            elif part:
                names.add(_checked(part, pipeline))
    return names if texts else None


def known_batches(pipeline: Pipeline, settings: Settings) -> tuple[str, ...]:
    """The batches for which any of the pipeline's sources has landed, or that were taken before."""
    from ml_platform.stages import stages_of
    from ml_platform.stages.opening import chain_of

    return chain_of(stages_of(pipeline), settings).batches()


def _range(text: str, pipeline: Pipeline, known: Callable[[], Iterable[str]], option: str) -> set[str]:
    first, _, last = text.partition("..")
    for name in filter(None, (first, last)):
        _checked(name, pipeline)
    if first and last and last < first:
        raise LandingError("The range's last batch is before its first.", where=option, got=text)
    found = {name for name in known() if first <= name and (not last or name <= last)}
    if not found:
        raise LandingError(
            "No batch in the range has landed.",
            where=f"pipeline {pipeline.name!r}, {option}",
            got=text,
            fix=f"`ml-platform list` shows what has; sample data comes with `ml-platform land {pipeline.name}`",
        )
    return found


def _checked(name: str, pipeline: Pipeline) -> str:
    if not pipeline.batches.accepts(name):
        raise LandingError(
            "The pipeline has no batch of that name.",
            where=f"pipeline {pipeline.name!r}",
            got=name,
            fix=f"a batch is {pipeline.batches.describe()}",
        )
    return name

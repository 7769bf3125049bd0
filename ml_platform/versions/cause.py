"""Why something is stale: one reason, as a line for people and in fields for programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["code", "version", "parameter", "library", "data", "artifact"]


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One reason.

    Args:
        kind: "code" (a module, or a part of one), "version" (one that is set by hand, or the way versions are made),
            "parameter", "library", "data" (an input), or "artifact" (there is none, or it is damaged).
        text: the reason in a line.
        name: the file, parameter, library or stage that it is about.
        part: of a file, such as "function build"; of a stage, the batch.
        before, now: values of a parameter, a library's or a hand-set version; None where there was or is none.
    """

    kind: Kind
    text: str
    name: str = ""
    part: str = ""
    before: Any = field(default=None, compare=False)
    now: Any = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.text

"""Why something is stale: one reason, as a line for people and in fields for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["code", "version", "parameter", "library", "data", "waiver", "artifact"]


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One reason.

    Args:
        kind: "code" (a module, or a part of one), "version" (one that is set by hand, or the way versions are made),
            "parameter", "library", "data" (an input), "waiver", or "artifact" (there is none, or it is damaged).
        text: the reason in a line.
        name: the file, parameter, library or stage that it is about.
        part: of a file, such as "function build".
        before, now: values of a parameter, a library's or a hand-set version; None where there was or is none.
        batches: of the input, where it is one: all of them, though the text names few.
        count: how many artifacts are stale by it.
        stage: whose artifacts they are; "" where that is said elsewhere.
    """

    kind: Kind
    text: str
    name: str = ""
    part: str = ""
    before: Any = field(default=None, compare=False)
    now: Any = field(default=None, compare=False)
    batches: tuple[str, ...] = ()
    count: int = field(default=1, compare=False)
    stage: str = ""

    def __str__(self) -> str:
        return f"{self.stage}: {self.text}" if self.stage else self.text

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

"""What a team writes to have every batch scored by the registered champion."""

from __future__ import annotations

from dataclasses import dataclass

from ml_platform import declared


@dataclass(frozen=True, kw_only=True)
class BatchScoring:
    """Scores each accepted batch, labels or not, with the champion of the moment in which it is scored.

    Args:
        rescore: score a batch again when there is another champion. By default what was once said of a batch stands,
            as a record of what was known then: only new batches, and those whose features changed, are scored.
    """

    rescore: bool = False

    def __post_init__(self) -> None:
        declared.instance("BatchScoring", "rescore", self.rescore, bool)

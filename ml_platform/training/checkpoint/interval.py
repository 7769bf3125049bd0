"""How often a checkpoint is taken: every sqrt(2 * cost * mean time between failures) seconds, where lost work and the
cost of checkpoints are least together (J. W. Young, "A first order approximation to the optimum checkpoint interval",
CACM 17, 1974; J. T. Daly, "A higher order estimate of the optimum checkpoint interval", FGCS 22, 2006).

The cost is what was measured last; the time between failures is what this job has seen, beside one failure a day until
it knows better.
"""

from __future__ import annotations

import math

FAILURE_FREE = 24 * 3600.0
"""Seconds for which a job is thought to train between two failures before it has seen any."""


def interval(cost: float, *, trained: float, failures: int, most: float, share: float) -> float:
    """Seconds of training from one checkpoint to the next, by Young's formula.

    Args:
        cost: seconds that a checkpoint takes.
        trained: seconds for which the job has trained, in all its attempts.
        failures: how often it was ended from outside.
        most: seconds of training that may be lost at most.
        share: seconds that one, copying and the processor's work of writing, may take for each second of training
            between two; it wins over `most`.
    """
    between = (FAILURE_FREE + trained) / (1 + failures)
    return max(cost / share, min(most, math.sqrt(2 * cost * between)))

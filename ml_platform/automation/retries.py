"""When a run is asked for that repairs what is stale: at once, later, or not until something else is to be done."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ml_platform.automation.declaration import Reconcile

Ending = Literal["success", "passing", "permanent", "stopped", "experiment"]
"""How a run ended: well; for a reason that passes; because of its data or code; stopped by a person; or well, with
values that a person had replaced for that run."""

_WHY = {
    "success": "a run has succeeded since, and did not change that",
    "permanent": "the last run failed because of its data or code: see its log; it is tried again when either changes",
    "stopped": "a person stopped the last run",
    "experiment": "a person's last run had other values than are declared",
}


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """What is kept between two looks.

    Args:
        key: names what was to be done when it was last looked.
        failed: how often in a row a run with that to do has failed for a reason that passes.
        not_before: no run before then, in seconds since 1970.
        given_up: why no run is asked for as long as the key is the same; "" when one will be.
        counted: the run that was counted last: each counts once.
    """

    key: str = ""
    failed: int = 0
    not_before: float = 0.0
    given_up: str = ""
    counted: str = ""

    def to_json(self) -> str:
        """As a sensor's cursor."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None) -> Attempts:
        """Read what `to_json` wrote. A sensor without a cursor has counted nothing."""
        return cls(**json.loads(text)) if text else cls()


@dataclass(frozen=True, kw_only=True)
class LastRun:
    """The last run that has ended.

    Args:
        run_id: which.
        ending: how it ended.
        tried: whether it was to do all that is to be done now: else its end says nothing about that.
    """

    run_id: str
    ending: Ending
    tried: bool


def consider(attempts: Attempts, key: str, last: LastRun | None, now: float, declared: Reconcile) -> Attempts:
    """Take note of what is to be done, and of how the last run ended.

    Args:
        attempts: as they were noted at the look before.
        key: names what is to be done now.
        last: the last run that has ended, whoever started it.
        now: in seconds since 1970.
        declared: the pipeline's.

    Returns:
        As they stand now: a run is due when `given_up` is empty and `not_before` has come.
    """
    if last is not None and last.run_id != attempts.counted:
        attempts = replace(attempts, counted=last.run_id)
        if last.tried and last.ending == "passing":
            failed = attempts.failed + 1 if key == attempts.key else 1
            given_up = f"it has failed {failed} times in a row" if failed > declared.retries else ""
            return replace(
                attempts, key=key, failed=failed, not_before=now + _pause(failed, declared), given_up=given_up
            )
        if last.tried:
            return replace(attempts, key=key, failed=0, not_before=0.0, given_up=_WHY[last.ending])
    if key != attempts.key:
        return replace(attempts, key=key, failed=0, not_before=now + 0.9 * declared.every_seconds, given_up="")
    return attempts


def _pause(failed: int, declared: Reconcile) -> float:
    """Seconds to wait after so many failures in a row."""
    wait = min(declared.retry_seconds * 2.0 ** (failed - 1), float(declared.longest_wait_seconds))
    return wait * random.uniform(0.75, 1.25)

"""Accepting what a gate rejected, and taking that back: what the command line and the UI share.

Only what the gate has rejected can be waived, and only while nothing else has landed since: the next run then takes the
batch in, and everything below is stale by itself, as it is again when the waiver is revoked or expires.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_platform.errors import RefusedError
from ml_platform.gates.report import WAIVABLE
from ml_platform.gates.waivers import INPUT as WAIVER
from ml_platform.gates.waivers import Waiver, expiry, iso, looked_at
from ml_platform.stages.chain import RAW_BATCH, State, Status
from ml_platform.stages.stage import UNPARTITIONED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_platform.gates.decisions import Entry
    from ml_platform.stages.chain import Chain
    from ml_platform.store.manifest import Manifest

VALIDATED = "validated_batch"
RUN_FIRST = "run the pipeline first, so that the gate looks at it"


def waive(
    chain: Chain, batch: str, *, by: str, reason: str, expires: str | None = None, stage: str = VALIDATED
) -> Waiver:
    """Accept a rejected batch as it is, for exactly the data that the gate looked at.

    Args:
        chain: the pipeline as it stands.
        batch: which; "" for a reference.
        by: who says so.
        reason: why it is good enough.
        expires: until when, as `expiry` reads it; None for good.
        stage: whose gate it was: validated_batch, or a reference.

    Raises:
        RefusedError: it is not rejected, is unknown, is waived already, has landed again since, or cannot be waived.
    """
    where = _checked(chain, batch, stage, by, reason)
    status = _status(chain, batch, stage, where)
    manifest = status.manifest
    if manifest is not None and manifest.verdict == "waived":
        waiver = manifest.facts[WAIVER]
        raise RefusedError(
            "It is waived already.",
            where=where,
            got=f"by {waiver['by']} on {waiver['when']}: {waiver['reason']}",
            fix="revoke that waiver first (--revoke), to give another",
        )
    if status.work is not None and WAIVER in status.work.inputs and status.state is State.STALE:
        raise RefusedError("It is waived already, and not taken in yet.", where=where, fix="run the pipeline")
    if status.state is State.STALE:
        raise RefusedError("The gate has not looked at this data.", where=where, fix=RUN_FIRST)
    if status.state is State.BLOCKED:
        raise RefusedError("There is nothing to waive.", where=where, got=status.reason, fix=RUN_FIRST)
    if status.state is not State.REJECTED:
        raise RefusedError("It is not rejected: there is nothing to waive.", where=where, got="accepted by its gate")
    assert status.work is not None
    assert manifest is not None
    _refuse_unreadable(manifest, where)
    waiver = Waiver(
        pipeline=chain.pipeline.name,
        stage=stage,
        batch=batch,
        data_version=looked_at(status.work.inputs),
        by=by.strip(),
        reason=reason.strip(),
        when=iso(chain.waivers.now),
        expires=expiry(expires, chain.waivers.now),
        said=status.reason,
        rejected=manifest.fingerprint,
    )
    chain.waivers.add(waiver)
    return waiver


def revoke(chain: Chain, batch: str, *, by: str, reason: str, stage: str = VALIDATED) -> list[Waiver]:
    """Take back every waiver of a batch that still holds. Returns them.

    Raises:
        RefusedError: there is none.
    """
    where = _checked(chain, batch, stage, by, reason)
    given = [e for e in chain.waivers.entries() if (e.decision.stage, e.decision.batch) == (stage, batch)]
    holding = [entry.decision for entry in given if entry.holds(chain.waivers.now)]
    if not holding:
        got = f"the last one: {state(chain, given[-1])}" if given else "none was ever given"
        raise RefusedError("There is no waiver to revoke.", where=where, got=got)
    for waiver in holding:
        chain.waivers.revoke(waiver, by=by.strip(), reason=reason.strip())
    return holding


def state(chain: Chain, entry: Entry[Waiver]) -> str:
    """Where a waiver stands, in a few words."""
    if entry.revocation is not None:
        return f"revoked by {entry.revocation.by}: {entry.revocation.reason}"
    if entry.decision.expired(chain.waivers.now):
        return "expired"
    if entry.decision.stage == VALIDATED:
        taken: Mapping[str, str] = chain.published.versions(RAW_BATCH)
        if taken.get(entry.decision.batch) != entry.decision.data_version:
            return "not used: other data is there"
    return "holds"


def _checked(chain: Chain, batch: str, stage: str, by: str, reason: str) -> str:
    """Where it is, in words. Raises RefusedError where a word is missing or names nothing."""
    waivable = [name for name, each in chain.stages.items() if each.waivable]
    where = f"{chain.pipeline.name}/{stage} {batch}".rstrip()
    if stage not in waivable:
        raise RefusedError("No waiver opens this stage.", where=where, got=stage, fix=f"one of {', '.join(waivable)}")
    if chain.stages[stage].partitioned != (batch != UNPARTITIONED):
        fix = "name the batch" if batch == UNPARTITIONED else "leave the batch out: it is one table for all of them"
        raise RefusedError("A batch is missing, or one too many.", where=where, got=repr(batch), fix=fix)
    for name, text in (("by", by), ("reason", reason)):
        if not text.strip():
            raise RefusedError(
                f"A waiver says {'who gives it' if name == 'by' else 'why'}.", where=where, fix=f"--{name}"
            )
    return where


def _status(chain: Chain, batch: str, stage: str, where: str) -> Status:
    """How it stands, with the data that has landed by now."""
    if batch and batch not in chain.batches():
        raise RefusedError(
            "There is no such batch.", where=where, got=batch, fix="`ml-platform list` shows what has landed"
        )
    if batch:
        raw = chain.statuses(RAW_BATCH, [batch])[batch]
        if raw.state in (State.STALE, State.KNOWN):
            raise RefusedError(
                "The batch has landed, or landed again, since the gate last looked at it.", where=where, fix=RUN_FIRST
            )
    return chain.statuses(stage, [batch])[batch]


def _refuse_unreadable(manifest: Manifest, where: str) -> None:
    failed = [check for check in manifest.facts["checks"] if not check["passed"] and check["name"] not in WAIVABLE]
    if failed:
        raise RefusedError(
            "This cannot be waived: there are no rows of the declared columns and types to take in.",
            where=where,
            got="; ".join(f"{check['name']}: {check['description']}" for check in failed),
            fix="land the batch again as its schema declares it, or correct the schema",
        )

"""Taking a batch out of training on purpose, and putting it back.

Landed files that go away take nothing out: the archive keeps what was taken. A withdrawal does, whatever the data. The
next run then freezes a training set without the batch, and everything below is stale by itself.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from ml_platform.errors import RefusedError
from ml_platform.gates.waivers import iso, shown_time
from ml_platform.gates.withdrawals import Withdrawal

if TYPE_CHECKING:
    from ml_platform.gates.decisions import Entry
    from ml_platform.stages.chain import Chain


def withdraw(chain: Chain, batch: str, *, by: str, reason: str) -> Withdrawal:
    """Take a batch out of training until that is revoked.

    Raises:
        RefusedError: there is no such batch, it is withdrawn already, or a word is missing.
    """
    where = _checked(chain, batch, by, reason)
    if batch not in chain.batches():
        raise RefusedError(
            "There is no such batch.", where=where, got=batch, fix="`ml-platform list` shows what has landed"
        )
    if batch in chain.withdrawals.holding():
        raise RefusedError("It is withdrawn already.", where=where, got=chain.withdrawals.holding()[batch].describe())
    withdrawal = Withdrawal(
        pipeline=chain.pipeline.name,
        batch=batch,
        by=by.strip(),
        reason=reason.strip(),
        when=iso(dt.datetime.now(dt.UTC)),
    )
    chain.withdrawals.add(withdrawal)
    return withdrawal


def restore(chain: Chain, batch: str, *, by: str, reason: str) -> list[Withdrawal]:
    """Put a batch back. Returns the withdrawals that are revoked with that.

    Raises:
        RefusedError: it is not withdrawn, or the record of that is damaged.
    """
    where = _checked(chain, batch, by, reason)
    given = [entry for entry in chain.withdrawals.entries() if entry.decision.batch == batch]
    holding = [entry.decision for entry in given if entry.revocation is None]
    if not holding:
        got = state(given[-1]) if given else "it never was"
        raise RefusedError("The batch is not withdrawn.", where=where, got=got)
    if damaged := [withdrawal for withdrawal in holding if not withdrawal.when]:
        raise RefusedError(
            "The record of the withdrawal is damaged, so nothing can be added to it.",
            where=where,
            got=damaged[0].reason,
            fix="remove the damaged file from the store; what the others in its folder say then holds",
        )
    for withdrawal in holding:
        chain.withdrawals.revoke(withdrawal, by=by.strip(), reason=reason.strip(), when=iso(dt.datetime.now(dt.UTC)))
    return holding


def state(entry: Entry[Withdrawal]) -> str:
    """Where a withdrawal stands, in a few words."""
    if entry.revocation is None:
        return "holds"
    return f"revoked by {entry.revocation.by} on {shown_time(entry.revocation.when)}: {entry.revocation.reason}"


def _checked(chain: Chain, batch: str, by: str, reason: str) -> str:
    """Where it is, in words. Raises RefusedError where a word is missing."""
    where = f"{chain.pipeline.name} {batch}"
    for name, text in (("by", by), ("reason", reason)):
        if not text.strip():
            raise RefusedError(
                f"A withdrawal says {'who decides it' if name == 'by' else 'why'}.", where=where, fix=f"--{name}"
            )
    return where

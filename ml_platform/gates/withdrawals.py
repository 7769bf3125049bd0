"""Withdrawals: a person takes a batch out of training, whatever its data, and puts it back.

While a batch is withdrawn its snapshots are still archived, but nothing is made of them: no run validates it or
computes its features, and no training set holds it. What was built of it before stays in history. A batch is also left
out where the record of its withdrawal is damaged: the door stays shut in doubt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ml_platform.gates.decisions import Decision, Entry, Records, Revocation
from ml_platform.store import layout


@dataclass(frozen=True, kw_only=True)
class Withdrawal(Decision):
    """One withdrawal. `when` is "" where its record is damaged."""

    kind: ClassVar[str] = "withdrawal"

    def describe(self) -> str:
        """What is withdrawn, by whom and why, in one line."""
        return f"batch {self.batch} is withdrawn by {self.by}: {self.reason}"


class Withdrawals:
    """The withdrawals of a pipeline, among its records."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._holding: dict[str, Withdrawal] | None = None

    def holding(self) -> Mapping[str, Withdrawal]:
        """What is withdrawn now, by batch. Read once in the life of this object."""
        if self._holding is None:
            standing = [entry.decision for entry in self.entries() if entry.revocation is None]
            self._holding = {withdrawal.batch: withdrawal for withdrawal in reversed(standing)}
        return self._holding

    def entries(self) -> list[Entry[Withdrawal]]:
        """Every withdrawal that there ever was, oldest first."""
        root = layout.withdrawals(self._records.pipeline)
        folders = [folder for folder in self._records.folders() if folder.startswith(root)]
        found = [entry for folder in folders for entry in self._in(folder)]
        return sorted(found, key=lambda entry: (entry.decision.when, entry.decision.id))

    def add(self, withdrawal: Withdrawal) -> None:
        """Keep a withdrawal for good."""
        self._records.add(layout.withdrawal(withdrawal.pipeline, withdrawal.batch), withdrawal)
        self._holding = None

    def revoke(self, withdrawal: Withdrawal, *, by: str, reason: str, when: str) -> Revocation:
        """Put a batch back from now on; `when` is UTC in ISO 8601."""
        folder = layout.withdrawal(withdrawal.pipeline, withdrawal.batch)
        self._holding = None
        return self._records.revoke(folder, withdrawal, by=by, reason=reason, when=when)

    def _in(self, folder: str) -> list[Entry[Withdrawal]]:
        """The withdrawals of one batch."""
        found = self._records.entries(folder, Withdrawal)
        if found is not None:
            return found
        doubtful = Withdrawal(
            pipeline=self._records.pipeline,
            batch=folder.rpartition("/")[2],
            by="somebody",
            reason=f"a record of it in the store's {folder} is damaged",
            when="",
        )
        return [Entry(decision=doubtful)]

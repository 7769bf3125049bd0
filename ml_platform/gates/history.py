"""What a batch is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from ml_platform.gates.profile import Profile


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """One accepted batch of one source.

    Args:
        batch: its name.
        content: data version of its valid rows.
        profile: theirs too.
    """

    batch: str
    content: str
    profile: Profile

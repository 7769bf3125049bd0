"""The accepted batches of a pipeline, as the gate compares later ones with them.

What was accepted and published is the history, by whichever code: of a batch that was rejected since, or is withdrawn,
nothing counts. Each profile is read once in the life of this object.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ml_platform.stages.published import FINGERPRINT_TAG
from ml_platform.store.manifest import Manifest

if TYPE_CHECKING:
    from ml_platform.gates.history import Accepted
    from ml_platform.stages.chain import Chain

STAGE = "validated_batch"
CONTENTS = "contents"
"""Fact of a validated batch: the data version of each source's valid rows."""


class AcceptedBatches:
    """Accepted batches by source, read from the store as they are asked for.

    Args:
        chain: where they are.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._withdrawn = chain.withdrawals.holding().keys()
        self._names: list[str] = []
        self._versions: dict[str, str] = {}
        self._by_version: dict[str, set[str]] = {}
        for name, version in sorted(chain.published.versions(STAGE).items()):
            self._place(name, version)
        self._manifests: dict[str, Manifest] = {}
        self._found: dict[str, Mapping[str, Accepted]] = {}
        self._unread: set[str] = set()

    def judged(self, batch: str, version: str, accepted: Mapping[str, Accepted]) -> None:
        """Take note of a batch that this process has accepted, with the data version of its rows, by source."""
        self._place(batch, version)
        self._found[batch] = accepted
        self._unread.discard(batch)

    def published(self, manifest: Manifest) -> None:
        """Take note of a validated batch that this process has published."""
        if self._versions.get(manifest.batch) != manifest.data_version or not self._found.get(manifest.batch):
            self._place(manifest.batch, manifest.data_version)
            self._manifests[manifest.batch] = manifest
            self._found.pop(manifest.batch, None)

    def before(self, batch: str, count: int) -> list[tuple[str, Mapping[str, Accepted]]]:
        """The last `count` accepted batches before this one in name order, oldest first, each by source.

        Those that were rejected are passed over: as many more are looked at.
        """
        end = bisect_left(self._names, batch)
        taken: list[tuple[str, Mapping[str, Accepted]]] = []
        while end > 0 and len(taken) < count:
            some = self._names[max(0, end - (count - len(taken))) : end]
            self._read(some)
            taken += [(name, self._found[name]) for name in reversed(some) if self._found[name]]
            end -= len(some)
        return taken[::-1]

    def unread(self, batch: str) -> str:
        """An accepted batch before this one that cannot be compared with, since another version of the platform has
        profiled it, or none; "" where there is none among those that `before` has looked at."""
        return next((name for name in self._names[: bisect_left(self._names, batch)] if name in self._unread), "")

    def same(self, batch: str, version: str) -> str:
        """Another accepted batch with the very same rows of all sources, whatever its name; "" where there is none."""
        return min((name for name in self._by_version.get(version, ()) if name != batch), default="")

    def _place(self, batch: str, version: str) -> None:
        if batch in self._withdrawn or self._versions.get(batch) == version:
            return
        if batch in self._versions:
            self._by_version[self._versions[batch]].discard(batch)
        else:
            insort(self._names, batch)
        self._versions[batch] = version
        self._by_version.setdefault(version, set()).add(batch)

    def _read(self, names: Sequence[str]) -> None:
        missing = [name for name in names if name not in self._found]
        if unknown := [name for name in missing if name not in self._manifests]:
            tags = self._chain.published.tags(STAGE, unknown)
            prints = {name: its[FINGERPRINT_TAG] for name, its in tags.items() if FINGERPRINT_TAG in its}
            manifests = self._chain.lookup(STAGE, prints.values())
            self._manifests |= {name: manifests[print_] for name, print_ in prints.items() if print_ in manifests}
        for name in missing:
            self._found[name] = self._accepted(self._manifests[name]) if name in self._manifests else {}

    def _accepted(self, manifest: Manifest) -> Mapping[str, Accepted]:
        from ml_platform.gates.history import Accepted
        from ml_platform.gates.profile import OtherFormatError, Profile

        if manifest.verdict not in ("accepted", "waived") or not self._chain.waivers.admit(manifest):
            return {}
        files = {file.name: file for file in manifest.files}
        found: dict[str, Accepted] = {}
        try:
            for source, version in manifest.facts[CONTENTS].items() if CONTENTS in manifest.facts else ():
                if profile_file(source) in files:  # an optional source that did not land has none
                    profile = Profile.from_json(self._chain.store.read_bytes(files[profile_file(source)]))
                    found[source] = Accepted(batch=manifest.batch, content=version, profile=profile)
        except OtherFormatError:
            found = {}
        if not found:
            self._unread.add(manifest.batch)
        return found


def profile_file(source: str) -> str:
    """The name of a source's profile inside a validated batch."""
    return f"profile.{source}.json"

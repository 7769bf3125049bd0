"""What Dagster has published of a pipeline: its event log is the one record, read here in bulk.

`get_latest_tags_by_partition` and `get_latest_storage_id_by_partition` are internal to Dagster, which has no public
way to read many partitions' data versions at once (10,000 take 26 ms this way, minutes the public way). Dagster is
pinned, and only this module and `event_index.py` read its internals.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from ml_platform.stages.stage import UNPARTITIONED

if TYPE_CHECKING:
    from dagster import AssetKey, DagsterInstance

DATA_VERSION_TAG = "dagster/data_version"
CODE_VERSION_TAG = "dagster/code_version"
USER_PROVIDED_TAG = "dagster/data_version_is_user_provided"
INPUT_VERSION_PREFIX = "dagster/input_data_version/"
INPUT_POINTER_PREFIX = "dagster/input_event_pointer/"
FINGERPRINT_TAG = "ml_platform/fingerprint"

MATERIALIZATION = "ASSET_MATERIALIZATION"
OBSERVATION = "ASSET_OBSERVATION"


class Events(Protocol):
    """Where the latest events of assets are read."""

    def latest_tag(self, key: Sequence[str], event_type: str, tag: str) -> Mapping[str, str]:
        """An indexed tag's value in the latest event of that type, by partition."""

    def latest_tags(self, key: Sequence[str]) -> Mapping[str, str]:
        """All tags of the asset's latest materialization, of whatever partition."""

    def latest_ids(self, key: Sequence[str], event_type: str) -> Mapping[str, int]:
        """Id of the latest event of that type, by partition ("" for none); a later event has a greater id."""

    def tags_of(self, key: Sequence[str], event_type: str, ids: Collection[int]) -> Mapping[int, Mapping[str, str]]:
        """All tags of some events of that type, by id. Reads each event: for what somebody asks about, not for all."""


class InstanceEvents:
    """Asks Dagster."""

    def __init__(self, instance: DagsterInstance) -> None:
        self.instance = instance

    def latest_tag(self, key: Sequence[str], event_type: str, tag: str) -> Mapping[str, str]:
        """See `Events`."""
        from dagster import AssetKey, DagsterEventType

        found = self.instance.event_log_storage.get_latest_tags_by_partition(
            AssetKey(key), DagsterEventType(event_type), [tag]
        )
        return {partition: tags[tag] for partition, tags in found.items()}

    def latest_tags(self, key: Sequence[str]) -> Mapping[str, str]:
        """See `Events`."""
        from dagster import AssetKey

        event = self.instance.get_latest_materialization_event(AssetKey(key))
        return (event.asset_materialization.tags or {}) if event and event.asset_materialization else {}

    def latest_ids(self, key: Sequence[str], event_type: str) -> Mapping[str, int]:
        """See `Events`."""
        from dagster import AssetKey, DagsterEventType, EventRecordsFilter

        storage, kind = self.instance.event_log_storage, DagsterEventType(event_type)
        if ids := storage.get_latest_storage_id_by_partition(AssetKey(key), kind):
            return ids
        filter_ = EventRecordsFilter(event_type=kind, asset_key=AssetKey(key))
        records = storage.get_event_records(filter_, limit=1)
        return {UNPARTITIONED: records[0].storage_id} if records else {}

    def tags_of(self, key: Sequence[str], event_type: str, ids: Collection[int]) -> Mapping[int, Mapping[str, str]]:
        """See `Events`."""
        from dagster import AssetKey, DagsterEventType, EventRecordsFilter

        filter_ = EventRecordsFilter(DagsterEventType(event_type), asset_key=AssetKey(key), storage_ids=list(ids))
        found: dict[int, Mapping[str, str]] = {}
        for record in self.instance.event_log_storage.get_event_records(filter_) if ids else ():
            entry = record.event_log_entry
            event = entry.asset_materialization or entry.asset_observation
            found[record.storage_id] = (event.tags or {}) if event else {}
        return found


class Published:
    """Data versions, fingerprints and event ids of a pipeline's latest materializations in one Dagster instance."""

    def __init__(self, events: Events, prefix: str) -> None:
        self._events, self._prefix = events, prefix
        self._versions: dict[str, dict[str, str]] = {}
        self._rejections: dict[str, dict[str, str]] = {}

    def key(self, stage: str) -> AssetKey:
        """The stage's asset key."""
        from dagster import AssetKey

        return AssetKey(self._path(stage))

    def versions(self, stage: str) -> Mapping[str, str]:
        """Published data version by batch (key "" for an unpartitioned asset). Read once, then kept up by `record`."""
        if stage not in self._versions:
            self._versions[stage] = self._read(stage)
        return self._versions[stage]

    def _read(self, stage: str) -> dict[str, str]:
        versions = dict(self._events.latest_tag(self._path(stage), MATERIALIZATION, DATA_VERSION_TAG))
        if not versions and (whole := self._events.latest_tags(self._path(stage)).get(DATA_VERSION_TAG)):
            versions[UNPARTITIONED] = whole
        return versions

    def rejections(self, stage: str) -> Mapping[str, str]:
        """Data version of the latest rejected artifact by batch: an observation, since nothing is materialized.

        Where something was materialized since, as a waived batch is, the rejection is news again.
        """
        if stage not in self._rejections:
            path = self._path(stage)
            told = dict(self._events.latest_tag(path, OBSERVATION, DATA_VERSION_TAG))
            when, since = (self._events.latest_ids(path, kind) for kind in (OBSERVATION, MATERIALIZATION))
            if not told and UNPARTITIONED in when:
                tags = self._events.tags_of(path, OBSERVATION, [when[UNPARTITIONED]]).get(when[UNPARTITIONED], {})
                told = {UNPARTITIONED: tags[DATA_VERSION_TAG]} if DATA_VERSION_TAG in tags else {}
            later = {batch: version for batch, version in told.items() if when[batch] > since.get(batch, 0)}
            self._rejections[stage] = later
        return self._rejections[stage]

    def tags(self, stage: str, batches: Iterable[str]) -> dict[str, Mapping[str, str]]:
        """All tags of what was last said of some batches ("" for an unpartitioned asset): published, or rejected since.

        Those of which nothing was ever said are left out.
        """
        path, wanted = self._path(stage), set(batches)
        found: dict[str, Mapping[str, str]] = {}
        for kind in (MATERIALIZATION, OBSERVATION):
            ids = {batch: id_ for batch, id_ in self._events.latest_ids(path, kind).items() if batch in wanted}
            if kind == OBSERVATION:
                ids = {batch: id_ for batch, id_ in ids.items() if batch in self.rejections(stage)}
            tags = self._events.tags_of(path, kind, ids.values())
            found |= {batch: tags[id_] for batch, id_ in ids.items() if id_ in tags}
        return found

    def fingerprint(self, stage: str) -> str | None:
        """The fingerprint that an unpartitioned asset was last published under."""
        return self._events.latest_tags(self._path(stage)).get(FINGERPRINT_TAG)

    def _path(self, stage: str) -> list[str]:
        return [self._prefix, stage]

    def pointers(self, stage: str) -> Mapping[str, int]:
        """Storage id of the latest materialization by batch."""
        return self._events.latest_ids(self._path(stage), MATERIALIZATION)

    def forget(self, stage: str) -> None:
        """Read what was said of a stage again when it is next asked for."""
        self._versions.pop(stage, None)
        self._rejections.pop(stage, None)

    def record(self, stage: str, batch: str, data_version: str) -> None:
        """Take note of what this process has just published."""
        self.versions(stage)
        self._versions[stage][batch] = data_version
        self._rejections.get(stage, {}).pop(batch, None)

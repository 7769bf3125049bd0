"""What Dagster has published of a pipeline: its event log is the one record, read here in bulk.

`get_latest_tags_by_partition` and `get_latest_storage_id_by_partition` are internal to Dagster, which has no public
way to read many partitions' data versions at once (10,000 take 26 ms this way, minutes the public way). Dagster is
pinned, and nothing else in the platform reads its internals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dagster import AssetKey, DagsterEventType

from ml_platform.stages.stage import UNPARTITIONED

if TYPE_CHECKING:
    from dagster import DagsterInstance

DATA_VERSION_TAG = "dagster/data_version"
CODE_VERSION_TAG = "dagster/code_version"
USER_PROVIDED_TAG = "dagster/data_version_is_user_provided"
INPUT_VERSION_PREFIX = "dagster/input_data_version/"
INPUT_POINTER_PREFIX = "dagster/input_event_pointer/"
FINGERPRINT_TAG = "ml_platform/fingerprint"


class Published:
    """Data versions, fingerprints and event ids of a pipeline's latest materializations in one Dagster instance."""

    def __init__(self, instance: DagsterInstance, prefix: str) -> None:
        self._instance, self._prefix = instance, prefix
        self._versions: dict[str, dict[str, str]] = {}
        self._rejections: dict[str, dict[str, str]] = {}

    def key(self, stage: str) -> AssetKey:
        """The stage's asset key."""
        return AssetKey([self._prefix, stage])

    def versions(self, stage: str) -> Mapping[str, str]:
        """Published data version by batch (key "" for an unpartitioned asset). Read once, then kept up by `record`."""
        if stage not in self._versions:
            self._versions[stage] = self._read(stage)
        return self._versions[stage]

    def _read(self, stage: str) -> dict[str, str]:
        storage = self._instance.event_log_storage
        tags = storage.get_latest_tags_by_partition(
            self.key(stage), DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
        )
        versions = {batch: found[DATA_VERSION_TAG] for batch, found in tags.items() if batch}
        if not versions and (whole := self._latest_tags(stage).get(DATA_VERSION_TAG)):
            versions[UNPARTITIONED] = whole
        return versions

    def rejections(self, stage: str) -> Mapping[str, str]:
        """Data version of the latest rejected artifact by batch: an observation, since nothing is materialized."""
        if stage not in self._rejections:
            tags = self._instance.event_log_storage.get_latest_tags_by_partition(
                self.key(stage), DagsterEventType.ASSET_OBSERVATION, [DATA_VERSION_TAG]
            )
            self._rejections[stage] = {batch: found[DATA_VERSION_TAG] for batch, found in tags.items()}
        return self._rejections[stage]

    def _latest_tags(self, stage: str) -> Mapping[str, str]:
        event = self._instance.get_latest_materialization_event(self.key(stage))
        return (event.asset_materialization.tags or {}) if event and event.asset_materialization else {}

    def fingerprint(self, stage: str) -> str | None:
        """The fingerprint that an unpartitioned asset was last published under."""
        return self._latest_tags(stage).get(FINGERPRINT_TAG)

    def pointers(self, stage: str) -> Mapping[str, int]:
        """Storage id of the latest materialization by batch."""
        storage = self._instance.event_log_storage
        ids = storage.get_latest_storage_id_by_partition(self.key(stage), DagsterEventType.ASSET_MATERIALIZATION)
        if ids:
            return {batch or UNPARTITIONED: id_ for batch, id_ in ids.items()}
        records = self._instance.fetch_materializations(self.key(stage), limit=1).records
        return {UNPARTITIONED: records[0].storage_id} if records else {}

    def record(self, stage: str, batch: str, data_version: str) -> None:
        """Take note of what this process has just published."""
        self.versions(stage)
        self._versions[stage][batch] = data_version

"""Artifacts as Dagster's events: materializations with versions and provenance, asset checks, metadata for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from ml_platform.stages.execute import Did, Result
from ml_platform.stages.published import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    FINGERPRINT_TAG,
    INPUT_POINTER_PREFIX,
    INPUT_VERSION_PREFIX,
    USER_PROVIDED_TAG,
)
from ml_platform.stages.stage import UNPARTITIONED, Stage

if TYPE_CHECKING:
    from ml_platform.stages.chain import Chain
    from ml_platform.store.manifest import Manifest

PUBLISHES = (Did.BUILT, Did.CACHED)


class Publisher:
    """Publishes one stage's artifacts, as events of the run whose context it is given.

    Args:
        stage: whose artifacts.
        chain: where they stand.
        context: of the op or asset that runs.
        again: publish fresh artifacts too: a person who clicks Materialize expects a materialization.
    """

    def __init__(
        self, stage: Stage, chain: Chain, context: dg.OpExecutionContext | dg.AssetExecutionContext, *, again: bool
    ) -> None:
        self._stage, self._chain, self._context, self._again = stage, chain, context, again
        self._key = chain.published.key(stage.name)
        self._pointers: dict[str, Mapping[str, int]] = {}

    def is_published(self, result: Result) -> bool:
        """Whether this result becomes a materialization."""
        return result.did in PUBLISHES or (self._again and result.did is Did.FRESH)

    def _announces(self, result: Result) -> bool:
        """Whether this rejection is news to this Dagster instance, or asked for again."""
        assert result.manifest is not None
        known = self._chain.published.rejections(self._stage.name).get(result.batch)
        return self._again or known != result.manifest.data_version

    def log(self, result: Result) -> None:
        """Publish by logging: any number of batches in one step, each with its own versions and checks."""
        manifest = result.manifest
        partition = result.batch or None
        if manifest is None:
            return
        if self.is_published(result):
            self._context.log_event(
                dg.AssetMaterialization(
                    asset_key=self._key,
                    partition=partition,
                    metadata=self.metadata(result),
                    tags={**self._version_tags(manifest), **self._provenance_tags(manifest)},
                )
            )
        if result.did is Did.REJECTED and not self._announces(result):
            return
        if result.did is Did.REJECTED:
            self._context.log_event(
                dg.AssetObservation(
                    asset_key=self._key,
                    partition=partition,
                    description=result.reason,
                    tags={DATA_VERSION_TAG: manifest.data_version, FINGERPRINT_TAG: manifest.fingerprint},
                    metadata={"verdict": "rejected", "reason": result.reason, "built_by_run": manifest.run_id},
                )
            )
        if result.did is Did.REJECTED or self.is_published(result):
            for check in self._stage.answers(self._chain, manifest):
                self._context.log_event(  # it takes evaluations too, whatever its signature says
                    dg.AssetCheckEvaluation(  # type: ignore[arg-type]
                        asset_key=self._key,
                        check_name=check["name"],
                        passed=check["passed"],
                        partition=partition,
                        severity=_severity(check),
                        description=check["description"] or None,
                        metadata=_check_metadata(check),
                    )
                )
        self.published(result)

    def results(self, result: Result) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        """Publish by yielding, for a step that treats one artifact: Dagster adds the provenance itself."""
        manifest = result.manifest
        if manifest is None:
            return
        checks = [
            dg.AssetCheckResult(
                asset_key=self._key,
                check_name=check["name"],
                passed=check["passed"],
                severity=_severity(check),
                description=check["description"] or None,
                metadata=_check_metadata(check),
            )
            for check in self._stage.answers(self._chain, manifest)
        ]
        if self.is_published(result):
            yield dg.MaterializeResult(
                asset_key=self._key,
                metadata=self.metadata(result),
                data_version=dg.DataVersion(manifest.data_version),
                tags={FINGERPRINT_TAG: manifest.fingerprint},
                check_results=checks,
            )
            self.published(result)
        elif result.did is Did.REJECTED:
            yield from checks

    def published(self, result: Result) -> None:
        """Take note, so that later stages of this run see it."""
        if self.is_published(result) and result.manifest is not None:
            self._chain.publish(result.manifest)

    def metadata(self, result: Result) -> dict[str, Any]:
        """What a person sees of the artifact."""
        manifest = result.manifest
        assert manifest is not None
        shown: dict[str, Any] = dict(self._stage.metadata(self._chain, manifest))
        shown |= {
            "fingerprint": manifest.fingerprint,
            "cached": result.did is not Did.BUILT,
            "seconds": manifest.seconds,
            "bytes": manifest.bytes,
        }
        if result.did is not Did.BUILT:
            shown["built_by_run"] = manifest.run_id
            shown["built_at"] = manifest.created
        return shown

    def _version_tags(self, manifest: Manifest) -> dict[str, str]:
        return {
            DATA_VERSION_TAG: manifest.data_version,
            CODE_VERSION_TAG: manifest.code_version,
            USER_PROVIDED_TAG: "true",
            FINGERPRINT_TAG: manifest.fingerprint,
        }

    def _provenance_tags(self, manifest: Manifest) -> dict[str, str]:
        """What Dagster compares to tell stale from fresh: the version and the event of each direct input."""
        tags: dict[str, str] = {}
        for name in manifest.inputs:
            upstream, _, batch = name.partition("/")
            if upstream not in self._chain.stages or batch not in (UNPARTITIONED, manifest.batch):
                continue
            if upstream not in self._pointers:
                self._pointers[upstream] = self._chain.published.pointers(upstream)
            key = self._chain.published.key(upstream).to_user_string()
            tags[f"{INPUT_VERSION_PREFIX}{key}"] = manifest.inputs[name]
            if (pointer := self._pointers[upstream].get(batch)) is not None:
                tags[f"{INPUT_POINTER_PREFIX}{key}"] = str(pointer)
        return self._beside(manifest) | tags

    def _beside(self, manifest: Manifest) -> dict[str, str]:
        """The same of an unpartitioned stage above that an artifact does not name: it read what stood there then."""
        tags: dict[str, str] = {}
        for upstream in self._stage.upstream:
            version = self._chain.published.versions(upstream).get(UNPARTITIONED)
            if upstream not in manifest.inputs and version is not None:
                tags[f"{INPUT_VERSION_PREFIX}{self._chain.published.key(upstream).to_user_string()}"] = version
        return tags


def _severity(check: Mapping[str, Any]) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.WARN if check["warn"] else dg.AssetCheckSeverity.ERROR


def _check_metadata(check: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a check; a list of flat records is shown as a table."""
    shown: dict[str, Any] = {}
    for name, value in check["metadata"].items():
        is_table = isinstance(value, list) and value and all(isinstance(row, dict) for row in value)
        shown[name] = table(value) if is_table else value
    return shown


def table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    """Rows as a table that Dagster shows: cells of any other type become text."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    records = [{n: _cell(row.get(n)) for n in columns} for row in rows]
    schema = dg.TableSchema(columns=[dg.TableColumn(name=n, type=_column_type(records, n)) for n in columns])
    return dg.MetadataValue.table([dg.TableRecord(r) for r in records], schema=schema)


def _cell(value: Any) -> str | int | float | bool | None:
    if isinstance(value, float) and value != value:
        return "NaN"
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _column_type(records: list[dict[str, Any]], name: str) -> str:
    kinds = {type(record[name]) for record in records if record[name] is not None}
    names = {bool: "bool", int: "int", float: "float"}
    return names.get(kinds.pop(), "string") if len(kinds) == 1 else "string"

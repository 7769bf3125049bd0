"""A home after its first run, long ago: garbage goes; the registry, Dagster, jobs and the plan keep the rest."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.automation import needed
from ml_platform.dead_runs import PROCESS_TAG
from ml_platform.errors import PlatformError, RegistryError, SetupError
from ml_platform.instance import prepare_instance
from ml_platform.pipeline import Pipeline
from ml_platform.processes import this_process
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.opening import chain_of, store_of
from ml_platform.stages.plan import make_plan
from ml_platform.stages.summary import RunSummary
from ml_platform.store import Manifest
from ml_platform.store.garbage import Collected, Needed, collect
from ml_platform_tests.conftest import fresh_settings

TINY = "ml_platform_tests.tiny_pipeline"
BATCHES = ("raw_batch", "validated_batch", "features")


@pytest.fixture
def old(home: Settings, cold: RunSummary, tmp_path: Path) -> Settings:
    """A copy of the home in which everything was done forty days ago, with one artifact that nothing needs."""
    assert cold.ok
    shutil.copytree(home.home, tmp_path / "home", symlinks=True)
    settings = fresh_settings(tmp_path / "home", pipelines=TINY)
    _age(settings)
    gc(settings)  # what other tests have left there
    store = store_of(settings)
    spare = store.artifacts("tiny", "features")[0]
    (tmp_path / "x").write_bytes(b"of another code")
    store.commit(replace(spare, fingerprint="spare", data_version="spare", files=(), facts={}), {"x": tmp_path / "x"})
    _age(settings)
    return settings


def _age(settings: Settings) -> None:
    then = time.time() - 40 * 86_400
    for path in (settings.home / "store").rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def gc(settings: Settings) -> Collected:
    store = store_of(settings)

    def look(manifests: Collection[Manifest]) -> Needed:
        return needed.needed(settings, store, manifests)

    return collect(store, look, keep_seconds=30 * 86_400)


def artifacts(settings: Settings) -> dict[str, int]:
    store = store_of(settings)
    return {
        stage.name: len(store.artifacts("tiny", stage.name))
        for stage in (store.cache.parent / "store" / "manifests" / "tiny").iterdir()
    }


def removed(done: Collected) -> dict[str, int]:
    return {found.what: found.count for found in done.garbage if found.kind == "artifacts"}


def elsewhere(settings: Settings, **changes: object) -> Settings:
    """The same home and store, as somebody has them to whom the tiny pipeline is not declared."""
    return fresh_settings(settings.home, **changes)


def test_afterwards_there_is_nothing_to_do(old: Settings, home: Settings, tiny: Pipeline) -> None:
    old = elsewhere(old, mlflow=home.mlflow, pipelines=TINY)  # the copy of the registry is another one to the plan

    def plan() -> list[object]:
        chain = chain_of(stages_of(tiny), old)
        chain.planning = True
        return list(make_plan(chain))

    before, counts = plan(), artifacts(old)
    assert removed(gc(old)) == {"tiny/features": 1}
    assert plan() == before
    assert not any(stage.to_do for stage in before)  # type: ignore[attr-defined]
    assert artifacts(old) == {**counts, "features": counts["features"] - 1}
    store = store_of(old)
    for stage in counts:
        for manifest in store.artifacts("tiny", stage):
            assert all(store.read_bytes(file) is not None for file in manifest.files)


@pytest.mark.parametrize("knows", ["dagster", "registry", "nobody but the store"])
def test_each_of_those_who_know_is_enough(old: Settings, tmp_path: Path, knows: str) -> None:
    """What is published without being registered stays, and what is registered without being published."""
    counts = artifacts(old)
    nowhere = {"dagster_home": tmp_path / "empty"}
    if knows == "dagster":
        _delete_versions(old)
        nowhere = {}
    elif knows == "nobody but the store":
        nowhere["mlflow"] = f"sqlite:///{tmp_path}/never.db"
    gc(elsewhere(old, **nowhere))
    left = artifacts(old)
    assert left["raw_batch"] == counts["raw_batch"]
    assert left["features"] == counts["features"] - 1
    assert left["trained_model"] == 1


def _delete_versions(settings: Settings) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(settings.mlflow)
    for version in client.search_model_versions("name = 'tiny'"):
        client.delete_model_version("tiny", version.version)


def test_what_nobody_needs_any_more_goes_whole(old: Settings, tmp_path: Path) -> None:
    _delete_versions(old)
    gone = elsewhere(old, dagster_home=tmp_path / "empty")
    counts = artifacts(old)
    done = gc(gone)
    assert removed(done) == {f"tiny/{stage}": count for stage, count in counts.items()}
    assert [path for path in Path(old.store, "blobs").rglob("*") if path.is_file()] == []


def test_in_a_store_that_others_share_what_landed_stays(old: Settings, tmp_path: Path) -> None:
    _delete_versions(old)
    counts = artifacts(old)
    theirs = fresh_settings(tmp_path / "their home", store=old.store, mlflow=old.mlflow)
    assert "tiny/raw_batch" not in removed(gc(theirs))
    left = artifacts(old)
    assert left["raw_batch"] == counts["raw_batch"]
    assert left["trained_model"] == 1, "another registry may have it: its artifact says that it was registered"


def test_a_registry_or_dagster_that_cannot_be_asked(old: Settings, tmp_path: Path) -> None:
    counts = artifacts(old)

    def refused(settings: Settings, error: type[PlatformError]) -> None:
        with pytest.raises(error, match="fix:"):
            gc(settings)
        assert artifacts(old) == counts

    refused(elsewhere(old, mlflow="http://127.0.0.1:9"), RegistryError)
    (tmp_path / "broken.db").write_bytes(b"no database" * 1000)
    refused(elsewhere(old, mlflow=f"sqlite:///{tmp_path}/broken.db"), RegistryError)
    index = old.dagster_home / "history" / "runs" / "index.db"
    for path in index.parent.glob("index.db*"):
        path.unlink()
    index.write_bytes(b"no database" * 1000)
    refused(old, SetupError)


def test_nothing_of_a_pipeline_goes_while_it_runs(old: Settings, tmp_path: Path) -> None:
    _delete_versions(old)
    gone = elsewhere(old, dagster_home=tmp_path / "empty")
    counts = artifacts(old)
    with prepare_instance(gone) as instance:

        def run(process: str) -> str:
            return instance.create_run_for_job(
                _job(), tags={PROCESS_TAG: process}, status=dg.DagsterRunStatus.STARTED
            ).run_id

        run_id = run(this_process().to_text())
        done = gc(gone)
        assert removed(done) == {}
        assert any(f"tiny is busy: run {run_id[:8]} since" in remark for remark in done.remarks), done.remarks
        instance.delete_run(run_id)
        with store_of(gone).claims.holding("tiny", "features", ["something"]):
            assert removed(gc(gone)) == {}
        run(replace(this_process(), started="1").to_text())  # its process is gone
        assert removed(gc(gone)) == {f"tiny/{stage}": count for stage, count in counts.items()}


def _job() -> dg.JobDefinition:
    @dg.op
    def nothing() -> None: ...

    @dg.job(name="tiny_chain")
    def tiny_chain() -> None:
        nothing()

    return tiny_chain


def test_what_a_training_job_reads_stays_and_its_folder_goes_when_its_model_is_there(
    old: Settings, tmp_path: Path
) -> None:
    _delete_versions(old)
    gone = elsewhere(old, dagster_home=tmp_path / "empty")
    store = store_of(old)
    (model,) = store.artifacts("tiny", "trained_model")
    read = store.artifacts("tiny", "features")[0].files[0]
    for name in ("unfinished", model.fingerprint):
        folder = needed.jobs_folder(old) / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text(json.dumps({"files": [str(store.path(read))]}))
    found = needed.remove_finished_jobs(old, [model], dry_run=False)
    assert [garbage.count for garbage in found] == [1]
    assert not (needed.jobs_folder(old) / model.fingerprint).exists()
    assert (needed.jobs_folder(old) / "unfinished").exists()
    gc(gone)
    assert store.path(read).is_file()
    (needed.jobs_folder(old) / "unfinished" / "spec.json").write_text("{")
    with pytest.raises(SetupError, match="remove the job's folder"):
        gc(gone)

"""Where a model came from: every hash of its record is one of the store's, and it goes with the version."""

from __future__ import annotations

import hashlib
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

import pytest

from ml_platform.errors import RefusedError, RegistryError
from ml_platform.pipeline import Pipeline
from ml_platform.provenance.card import LONGEST, card, description
from ml_platform.provenance.declared import commits
from ml_platform.provenance.graph import graph, mermaid, page
from ml_platform.provenance.record import RECORD_FILE, digest, from_json, landed_files, to_json, version_of
from ml_platform.provenance.registered import record_of, version_named
from ml_platform.registry.connection import Connection
from ml_platform.registry.models import COMMIT_TAG, PROVENANCE_TAG
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.chain import Chain
from ml_platform.stages.opening import chain_of
from ml_platform.stages.summary import RunSummary
from ml_platform.versions.checkout import checkout_of
from ml_platform_tests.stages.conftest import LOTS

UP_TO_THE_MODEL = ["raw_batch", "validated_batch", "features", "training_set", "trained_model", "evaluation"]


@pytest.fixture(scope="module")
def chain(tiny: Pipeline, home: Settings, cold: RunSummary) -> Chain:
    assert cold.ok
    return chain_of(stages_of(tiny), home)


@pytest.fixture(scope="module")
def record(chain: Chain) -> Mapping[str, Any]:
    connection = Connection(chain.settings.mlflow)
    return record_of(connection, version_named(connection, "tiny@champion"), chain)


def entries(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [entry for some in record["artifacts"].values() for entry in some]


def test_the_record_names_every_artifact_and_every_hash_is_the_stores(chain: Chain, record: Mapping[str, Any]) -> None:
    assert [stage for stage in record["artifacts"] if stage != "baseline"] == UP_TO_THE_MODEL
    assert [entry["batch"] for entry in record["artifacts"]["raw_batch"]] == LOTS
    assert record["missing"] == []
    for entry in entries(record):
        manifest = chain.store.find("tiny", entry["stage"], entry["fingerprint"])
        assert manifest is not None, "found, and its bytes hash to what it says"
        assert version_of(entry) == manifest.data_version
        assert entry["inputs"] == manifest.inputs
        assert entry["verdict"] == manifest.verdict
        assert entry["run"]["runId"] == manifest.run_id == record["runs"][0]
        assert entry["files"] == {file.name: {"sha256": file.sha256, "size": file.size} for file in manifest.files}


def test_it_goes_down_to_the_bytes_that_landed(chain: Chain, record: Mapping[str, Any]) -> None:
    landed = chain.landing_files("readings", "csv")
    for entry in record["artifacts"]["raw_batch"]:
        with open(landed[entry["batch"]].url, "rb") as file:
            there = hashlib.sha256(file.read()).hexdigest()
        assert landed_files(entry)["readings"]["sha256"] == there
        assert entry["facets"]["dataSource"] == [{"name": "readings", "uri": landed[entry["batch"]].url}]


def test_it_says_with_what_code_on_what_machine_and_with_what_parameters(
    tiny: Pipeline, chain: Chain, record: Mapping[str, Any]
) -> None:
    here = checkout_of("ml_platform_tests.tiny_pipeline.features")
    place = record["job"]["facets"]["sourceCodeLocation"]
    assert (place["version"], place["dirty"]) == (here.commit, here.dirty)
    assert record["parameters"]["recipe"] == tiny.recipe.identity()
    assert record["parameters"]["seeds"] == [tiny.recipe.seed]
    assert record["parameters"]["stages"]["training_set"]["split"]["holdout_batches"] == tiny.split.holdout_batches
    assert record["topology"]["processes"] == tiny.recipe.processes
    assert {"torch", "pyspark", "pandera"} <= record["environment"]["libraries"].keys()
    assert record["environment"]["python"]
    assert record["environment"]["java"]
    for stage, known in record["stages"].items():
        (code,) = known["code"]
        assert code["value"] == chain.stages[stage].version.value
    assert record["evaluation"]["metrics"].keys() >= {"accuracy", "log_loss"}


def test_it_goes_with_the_version_and_into_the_run_and_the_store(chain: Chain, record: Mapping[str, Any]) -> None:
    connection = Connection(chain.settings.mlflow)
    version = version_named(connection, "tiny")
    assert version.tags[PROVENANCE_TAG] == digest(to_json(record))
    commit = record["job"]["facets"]["sourceCodeLocation"]["version"]
    assert version.tags[COMMIT_TAG].rstrip("+") == commit
    manifest = chain.published_artifact("registered_model")
    assert manifest is not None
    assert from_json(chain.store.read_bytes(manifest.file(RECORD_FILE)), "the store") == record
    logged = {file.path for file in connection.client.list_artifacts(version.run_id)}
    assert {RECORD_FILE, "model_card.md"} <= logged
    shown = connection.client.get_model_version("tiny", version.version).description
    assert shown.startswith("# tiny version 1\n")
    assert record["model"]["weights"] in shown
    assert "- version 1 promoted by" in shown, "who decided"


def test_a_record_that_was_changed_is_not_believed(chain: Chain, record: Mapping[str, Any]) -> None:
    connection = Connection(chain.settings.mlflow)
    version = version_named(connection, "tiny@1")
    source = connection.client.get_model_version("tiny", "1").source.removeprefix("models:/")
    place = urllib.parse.urlsplit(connection.client.get_logged_model(source).artifact_location).path
    path = f"{urllib.request.url2pathname(place)}/{RECORD_FILE}"
    with open(path) as file:
        before = file.read()
    try:
        with open(path, "w") as file:
            file.write(before.replace("accepted", "rejected", 1))
        with pytest.raises(RegistryError, match="not what was uploaded"):
            record_of(connection, version, chain)
    finally:
        with open(path, "w") as file:
            file.write(before)


def test_a_version_that_is_not_there_is_refused_with_those_that_are(chain: Chain) -> None:
    with pytest.raises(RefusedError, match=r"(?s)no such version.*champion, 1"):
        version_named(Connection(chain.settings.mlflow), "tiny@7")
    with pytest.raises(RefusedError, match="write PIPELINE@1"):
        version_named(Connection(chain.settings.mlflow), "@1")


def test_the_card_tells_metrics_with_intervals_data_and_who_decided(record: Mapping[str, Any]) -> None:
    page = card(record, approvals=["approved by Ada: good enough"], title="version 1")
    accuracy, (low, high) = record["evaluation"]["metrics"]["accuracy"], record["evaluation"]["intervals"]["accuracy"]
    assert f"| accuracy | {accuracy:.4f} | {low:.4f} to {high:.4f} |" in page
    assert "Learned from 4 batches, lot-01 to lot-04" in page
    assert "- approved by Ada: good enough" in page
    assert record["model"]["weights"] in page
    part = {
        "column": "x" * 3000,
        "value": "y",
        "rows": 9,
        "figure": 0.5,
        "low": 0.4,
        "high": 0.6,
        "baseline": 0.5,
        "bad": "",
    }
    long = {**record, "evaluation": {**record["evaluation"], "slices": [part, part]}}
    assert len(description(long)) <= LONGEST < len(card(long))
    assert record["model"]["weights"] in description(long)


def test_a_pipeline_in_a_package_of_its_own_has_the_platforms_commit_beside_its_own(record: Mapping[str, Any]) -> None:
    platforms = {"git": {"commit": "", "dirty": False}, "platform_git": {"commit": "f" * 40, "dirty": True}}
    apart = {**record, "builds": [{**build, **platforms} for build in record["builds"]]}
    assert commits(apart) == f"{'f' * 40} of the platform with changes that are in no commit"
    assert f"The platform's code: commit `{'f' * 40}` with changes" in card(apart)


def test_the_graph_goes_from_what_landed_to_the_alias_as_text_and_as_a_page_of_its_own(
    chain: Chain, record: Mapping[str, Any]
) -> None:
    drawn = graph(record, version_named(Connection(chain.settings.mlflow), "tiny@champion"))
    titles = {node.name: node.title for node in drawn.nodes}
    edges = {(titles[source], titles[target]) for source, target in drawn.edges}
    assert {
        ("readings", "raw_batch"),
        ("raw_batch", "validated_batch"),
        ("validated_batch", "features"),
        ("features", "training_set"),
        ("training_set", "trained_model"),
        ("trained_model", "evaluation"),
        ("evaluation", "tiny version 1"),
        ("tiny version 1", "@champion"),
    } <= edges
    text = mermaid(drawn).splitlines()
    assert text[3] == "flowchart LR"
    assert sum(" --> " in line for line in text) == len(drawn.edges)
    assert len([line for line in text if re.match(r'  n\d+[\[(]{1,2}"[^"]*"[\])]{1,2}$', line)]) == len(drawn.nodes)

    html = page(drawn)
    assert record["model"]["weights"] in html
    assert all(version_of(entry) in html for entry in entries(record))
    assert not re.search(r"<script|<link|<img|https?://", html)

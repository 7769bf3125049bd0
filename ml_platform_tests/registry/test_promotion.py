"""Who is the champion follows from a trail of decisions, each bound to one model; aliases name whole versions only."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ml_platform.errors import RefusedError, RegistryError
from ml_platform.registry import glance, identity, models
from ml_platform.registry.connection import SQLITE, Connection
from ml_platform.registry.desk import CARRIED_OUT_TAG
from ml_platform.registry.listing import listed
from ml_platform.registry.promotion import Promotions, Ruling
from ml_platform.registry.tracking import MlflowResource
from ml_platform.registry.trail import Mark, decisions_of
from ml_platform.store import Store
from ml_platform_tests.registry.test_models import register
from ml_platform_tests.registry.trained import Trained

EVIDENCE = {"evaluation": "e1", "metric": "roc_auc", "metrics": {"roc_auc": 0.75}, "gain": {"gain": 0.01, "low": 0.0}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", cache=tmp_path / "cache")


@pytest.fixture
def promotions(mlflow: MlflowResource, store: Store) -> Promotions:
    return Promotions(mlflow.connection(), store, "toy")


def ruled(promotions: Promotions, model: str, *, promote: bool = True, person: bool = False, **more: Any) -> Ruling:
    ruling = promotions.by_policy(
        model, promote=promote, person=person, reason="as tests say", evidence=EVIDENCE, **more
    )
    assert ruling is not None
    return ruling


@pytest.fixture
def made(mlflow: MlflowResource, trained: Trained, promotions: Promotions) -> Callable[..., Ruling]:
    """`made("a")` registers a model of that data version, and lets the policy decide."""

    def make(model: str, **more: Any) -> Ruling:
        register(mlflow, trained, model, promote=None)
        return ruled(promotions, model, **more)

    return make


def aliases(promotions: Promotions) -> dict[str, str]:
    """The version that each alias names; every one of them is complete, and its files are those that were sent."""
    connection = promotions._connection
    found = connection.client.get_registered_model("toy").aliases
    for number in found.values():
        version = connection.client.get_model_version("toy", number)
        assert version.tags[models.COMPLETE_TAG] == "true"
        assert models.verify(connection, version) == ""
    return {alias: str(number) for alias, number in found.items()}


def actions(promotions: Promotions) -> list[str]:
    return [each.action for each in promotions.trail.read().decisions]


def test_each_outcome_is_written_down_with_its_evidence(promotions, store, made):
    assert made("a").outcome == "champion"
    waiting = made("b", promote=False)
    assert (waiting.outcome, waiting.version.aliases) == ("challenger", ("challenger",))
    promotions.refused("c", reason="roc_auc >= 0.9 missed", evidence=EVIDENCE)
    promotions.refused("c", reason="roc_auc >= 0.9 missed", evidence=EVIDENCE)
    assert aliases(promotions) == {"champion": "1", "challenger": "2"}
    assert actions(promotions) == ["promoted", "waiting", "refused"]
    first, *_ = decisions_of(store, "toy", promotions._connection.tracking_uri, "a")
    assert (first.by, first.reason, first.version, first.before) == ("the policy", "as tests say", "1", "")
    assert first.evidence == EVIDENCE
    rows = listed(promotions._connection, store, "toy", "roc_auc")
    assert [(row.version, row.state, row.value) for row in rows] == [("2", "waiting", 0.75), ("1", "champion", 0.75)]
    assert ruled(promotions, "a").new is None, "again changes nothing"
    assert ruled(promotions, "b", promote=False).new is None
    assert len(actions(promotions)) == 3


def test_a_person_approves_the_challenger_and_rolls_back(promotions, made):
    assert made("a", person=True).outcome == "challenger"
    assert aliases(promotions) == {"challenger": "1"}, "nobody is the champion before a person says so"
    approved = promotions.approve("1", by="Ada", reason="looks right")
    assert (approved.action, approved.model, approved.evidence) == ("approved", "a", EVIDENCE)
    assert aliases(promotions) == {"champion": "1"}
    made("b", person=True)
    promotions.approve("2", by="Ada", reason="better")
    made("c", person=True)
    promotions.approve("3", by="Ada", reason="better still")
    assert aliases(promotions) == {"champion": "3"}
    back = promotions.roll_back(by="Bob", reason="complaints")
    assert (back.version, back.before, back.before_model) == ("2", "3", "c")
    assert promotions.roll_back(by="Bob", reason="more complaints").version == "1"
    with pytest.raises(RefusedError, match="no champion to go back to"):
        promotions.roll_back(by="Bob", reason="still more")
    assert promotions.roll_back("3", by="Bob", reason="it was not the model").version == "3"
    assert aliases(promotions) == {"champion": "3"}


def test_what_a_person_rejected_or_rolled_back_from_no_policy_promotes(promotions, made):
    made("a")
    made("b", promote=False)
    promotions.reject("2", by="Ada", reason="unfair")
    assert aliases(promotions) == {"champion": "1"}
    assert ruled(promotions, "b").outcome == "barred"
    made("c")
    promotions.roll_back(by="Ada", reason="slow")
    barred = ruled(promotions, "c")
    assert barred.outcome == "barred"
    assert "slow" in barred.said
    assert aliases(promotions) == {"champion": "1"}
    # But for a person, who says so.
    promotions.promote("3", by="Ada", reason="it was the network")
    assert ruled(promotions, "c").outcome == "champion"
    assert aliases(promotions) == {"champion": "3"}


def test_a_rejection_outlives_the_trail(promotions, made, mlflow, tmp_path):
    """As where a home has moved: MLflow's own record of the version says so too."""
    made("a")
    made("b", promote=False)
    promotions.reject("2", by="Ada", reason="unfair")
    elsewhere = Promotions(mlflow.connection(), Store(tmp_path / "other", cache=tmp_path / "cache"), "toy")
    assert ruled(elsewhere, "b").outcome == "barred"


def test_a_person_s_choice_is_not_undone_by_going_back(promotions, made):
    made("a")
    made("b")
    assert ruled(promotions, "a").outcome == "champion", "the code has gone back, and with it the model"
    promotions.promote("2", by="Ada", reason="I prefer it")
    assert ruled(promotions, "a").outcome == "challenger"
    assert aliases(promotions) == {"champion": "2", "challenger": "1"}


def test_an_alias_that_somebody_moves_in_mlflow_is_noted_and_stands(promotions, made):
    made("a")
    made("b")
    promotions._connection.client.set_registered_model_alias("toy", "champion", "1")
    assert ruled(promotions, "b").outcome == "challenger"
    assert actions(promotions) == ["promoted", "promoted", "moved_in_mlflow", "waiting"]
    moved = promotions.trail.read().decisions[2]
    assert (moved.version, moved.before, moved.by) == ("1", "2", "somebody")
    assert aliases(promotions) == {"champion": "1", "challenger": "2"}


def test_what_cannot_be_decided_is_said(promotions, made):
    made("a")
    made("b", promote=False)
    for wrong, what in [
        (lambda: promotions.approve("1", by="Ada", reason="x"), "does not wait"),
        (lambda: promotions.approve("7", by="Ada", reason="x"), "no such version"),
        (lambda: promotions.approve("2", by="Ada", reason=" "), "says why"),
        (lambda: promotions.promote("2", by="", reason="x"), "says who"),
        (lambda: promotions.promote("1", by="Ada", reason="x"), "champion already"),
        (lambda: promotions.reject("1", by="Ada", reason="x"), "champion cannot be rejected"),
        (lambda: promotions.roll_back("2", by="Ada", reason="x"), "never the champion"),
        (lambda: promotions.roll_back(by="Ada", reason="x"), "no champion to go back to"),
    ]:
        with pytest.raises(RefusedError, match=what):
            wrong()
    assert actions(promotions) == ["promoted", "waiting"]


def test_two_approvals_at_once_are_one(mlflow, store, made, promotions):
    made("a", person=True)
    others = [Promotions(mlflow.connection(), Store(store.url, cache=store.cache), "toy") for _ in range(3)]

    def approve(each: Promotions) -> bool:
        try:
            each.approve("1", by="Ada", reason="now")
        except (RefusedError, RegistryError):
            return False
        return True

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(approve, others)) == [False, False, True]
    assert actions(promotions) == ["waiting", "approved"]
    assert aliases(promotions) == {"champion": "1"}


class Dying(Connection):
    """Dies at the n-th call, after MLflow has done what it was asked."""

    left = 1000

    def call(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        answer = super().call(what, function, *args, **kwargs)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return answer


@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_decision_that_was_cut_off_is_carried_out_by_the_next_one(uri, store, made, promotions, stride):
    """At each `stride`-th step: the aliases name whole versions, and what was written down is done, once."""
    made("a")
    made("b", promote=False)
    step = 1 - stride
    while True:
        step += stride
        assert step < 60
        dying = Dying(uri)
        dying.left = step
        try:
            Promotions(dying, store, "toy").promote("2", by="Ada", reason="now")
            break
        except KeyboardInterrupt:
            pass
        aliases(promotions)
        promotions.catch_up()
        decided = promotions.trail.read().champion
        assert decided is not None
        assert aliases(promotions)["champion"] == decided.version
        if decided.version == "2":
            promotions.roll_back(by="Ada", reason="once more")
    assert step > 8
    assert aliases(promotions) == {"champion": "2"}


def weights(uri: str, name: str = "weights.safetensors") -> list[Path]:
    return sorted(Path(uri.removeprefix(SQLITE)).parent.rglob(name), key=lambda path: path.stat().st_mtime_ns)


def test_an_alias_never_names_a_version_that_was_tampered_with(mlflow, uri, trained, made, promotions):
    made("a")
    made("b", promote=False)
    first, second = weights(uri)
    second.write_bytes(second.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RefusedError, match="not whole"):
        promotions.approve("2", by="Ada", reason="now")
    assert aliases(promotions) == {"champion": "1"}
    first.write_bytes(first.read_bytes()[:-1] + b"\x01")
    promotions.catch_up()
    assert aliases(promotions) == {}, "none is better than a wrong one"
    assert promotions.homeless().model == "a"
    register(mlflow, trained, "a", promote=None)
    promotions.catch_up()
    assert aliases(promotions) == {"champion": "3"}, "the same model, whole again: nobody need decide anew"
    assert actions(promotions) == ["promoted", "waiting"]


def test_a_damaged_trail_promotes_nobody(store, tmp_path, made, promotions):
    made("a")
    made("b", promote=False)
    promotions.reject("2", by="Ada", reason="unfair")
    record = sorted((tmp_path / "store" / "trail").rglob("*.json"))[-1]
    said = json.loads(record.read_text())
    record.write_text(json.dumps({**said, "action": "approved"}))
    assert promotions.trail.read().damaged
    ruling = made("c")
    assert ruling.outcome == "challenger"
    assert "damaged" in ruling.said
    with pytest.raises(RefusedError, match="damaged"):
        promotions.roll_back(by="Ada", reason="x")
    assert promotions.promote("3", by="Ada", reason="I have looked").version == "3"
    assert aliases(promotions)["champion"] == "3"


def test_another_champion_meanwhile_asks_for_another_comparison(mlflow, trained, promotions, made):
    made("a")
    made("b")
    register(mlflow, trained, "c", promote=None)
    how: dict[str, Any] = {"promote": True, "person": False, "reason": "better than a", "evidence": EVIDENCE}
    assert promotions.by_policy("c", against="a", **how) is None
    assert aliases(promotions) == {"champion": "2"}
    assert promotions.by_policy("c", against="b", **how).outcome == "champion"
    with pytest.raises(RegistryError, match="not registered"):
        ruled(promotions, "d")


@pytest.mark.parametrize("how", ["removed", "cut off"])
def test_a_lost_end_of_the_trail_is_noticed_and_never_written_over(store, tmp_path, uri, made, promotions, how):
    """The last decision made version 2 the champion; then its record is gone, or half of it."""
    made("a")
    made("b", promote=False)
    promotions.approve("2", by="Ada", reason="better")
    third = tmp_path / "store" / "trail" / "toy" / promotions.trail.registry / "00000003.json"
    data = third.read_bytes()
    third.unlink()
    if how == "cut off":
        third.write_bytes(data[: len(data) // 2])
    mark = Mark.parse(glance.model_tag(uri, "toy", CARRIED_OUT_TAG))
    standing = promotions.trail.read(mark)
    assert (standing.damaged.rpartition("/")[2], standing.lost) == ("00000003.json", 3)
    ruling = made("c")
    assert (ruling.outcome, "damaged" in ruling.said) == ("challenger", True)
    assert aliases(promotions) == {"champion": "2", "challenger": "3"}, "what Ada decided stands"
    numbers = [(each.number, each.action) for each in promotions.trail.read().decisions]
    assert numbers == [(1, "promoted"), (2, "waiting"), (4, "moved_in_mlflow"), (5, "waiting")]
    assert promotions.trail.read().decisions[2].reason == "the decision is lost from the trail"
    assert promotions.trail.read().damaged.endswith("00000003.json"), "it is told for good"
    assert third.exists() == (how == "cut off")
    promotions.promote("3", by="Ada", reason="I have looked")
    assert aliases(promotions) == {"champion": "3"}


def test_a_lost_rejection_is_told_as_long_as_nothing_else_is_decided(tmp_path, uri, made, promotions):
    """No alias shows it: only the mark does."""
    made("a")
    made("b", promote=False)
    promotions.reject("2", by="Ada", reason="unfair")
    (tmp_path / "store" / "trail" / "toy" / promotions.trail.registry / "00000003.json").unlink()
    for _ in range(2):
        promotions.catch_up()
        assert promotions.trail.read(Mark.parse(glance.model_tag(uri, "toy", CARRIED_OUT_TAG))).lost == 3
    assert ruled(promotions, "b").outcome == "barred", "MLflow's own record of the version says so"
    assert actions(promotions) == ["promoted", "waiting"]


def test_one_registry_by_two_names_has_one_trail(mlflow, uri, store, made, promotions):
    made("a")
    made("b", promote=False)
    folder, _, file = uri.rpartition("/")
    other = f"{folder}/../{folder.rpartition('/')[2]}/{file}"
    Promotions(Connection(other), store, "toy").reject("2", by="Ada", reason="unfair")
    assert actions(promotions) == ["promoted", "waiting", "rejected"]
    assert [each.action for each in decisions_of(store, "toy", other)] == ["promoted", "waiting", "rejected"]


def test_a_trail_from_before_registries_had_an_identity_is_found_by_any_name(uri, store, made, promotions):
    made("a")
    client = promotions._connection.client
    (identified,) = [each for each in client.search_experiments() if each.name == identity.EXPERIMENT]
    with sqlite3.connect(uri.removeprefix(SQLITE)) as database:
        for table in ("experiment_tags", "experiments"):
            database.execute(f"delete from {table} where experiment_id = ?", (identified.experiment_id,))
    mark = client.get_registered_model("toy").tags[CARRIED_OUT_TAG]
    client.set_registered_model_tag("toy", CARRIED_OUT_TAG, mark.split(" ")[0])  # as it was made then
    folder, _, file = uri.rpartition("/")
    other = Promotions(Connection(f"{folder}/./{file}"), store, "toy")
    assert other.trail.registry == identity.first_name(uri)
    assert [each.action for each in other.trail.read().decisions] == ["promoted"]


def test_of_two_who_name_a_registry_at_once_one_is_first(uri, store):
    names = [f"{uri.rpartition('/')[0]}/{'./' * n}mlflow.db" for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda name: Promotions(Connection(name), store, "toy").trail.registry, names))
    assert len(found) == 1
    assert found == {identity.known(name) for name in names}

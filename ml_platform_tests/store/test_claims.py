"""Two runs that share a store do not build the same artifact twice, and nobody waits for the dead."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ml_platform.processes import this_process
from ml_platform.store import Store, claims, layout
from ml_platform_tests.store.conftest import Place

PRINTS = [f"{number:032x}" for number in range(40)]
STAGE = ("flights", "features")


@pytest.fixture
def other(place: Place, tmp_path: Path) -> Iterator[Store]:
    """Another run's store."""
    store = place.store(tmp_path / "other cache")
    yield store
    store.claims.close()


@pytest.fixture(autouse=True)
def closed(store: Store) -> Iterator[None]:
    yield
    store.claims.close()


def claimed(place: Place) -> list[str]:
    return [name for name in place.names() if name.startswith("claims/flights")]


def test_one_builds_and_the_other_knows_who(store: Store, other: Store, place: Place) -> None:
    assert store.claims.take(*STAGE, PRINTS[:3]) == {*PRINTS[:3]}
    assert other.claims.take(*STAGE, PRINTS[1:5]) == {*PRINTS[3:5]}, "what nobody holds"
    held = other.claims.held(*STAGE, PRINTS)
    assert {*held} == {*PRINTS[:3]}
    assert str(held[PRINTS[0]]).startswith(f"pid {os.getpid()} on {this_process().host} since ")
    assert {*store.claims.held(*STAGE, PRINTS)} == {*PRINTS[3:5]}
    assert other.claims.take("flights", "training_set", PRINTS[:1]) == {PRINTS[0]}, "another stage's"
    assert store.claims.take(*STAGE, PRINTS[:4]) == {*PRINTS[:3]}, "what is one's own stays so"
    store.claims.release(*STAGE, PRINTS)
    assert other.claims.held(*STAGE, PRINTS) == {}
    assert other.claims.take(*STAGE, PRINTS[:1]) == {PRINTS[0]}
    other.claims.close()
    store.claims.close()
    assert [name for name in place.names() if name.startswith("claims")] == []


def test_what_is_held_is_given_back_whatever_happens(store: Store, other: Store, place: Place) -> None:
    def fail() -> None:
        with store.claims.holding(*STAGE, PRINTS[:2]) as mine:
            assert mine == {*PRINTS[:2]}
            with other.claims.holding(*STAGE, PRINTS[:3]) as rest:
                assert rest == {PRINTS[2]}
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert [name for name in place.names() if name.startswith("claims")] == []


def test_of_many_at_once_each_artifact_has_one_builder(place: Place, tmp_path: Path) -> None:
    barrier = threading.Barrier(6)
    taken: list[set[str]] = []

    def take(number: int) -> None:
        mine = place.store(tmp_path / f"cache{number}")
        barrier.wait()
        taken.append(mine.claims.take(*STAGE, PRINTS))
        barrier.wait()
        mine.claims.close()

    threads = [threading.Thread(target=take, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(print_ for mine in taken for print_ in mine) == PRINTS


HOLDER = """
import sys
from pathlib import Path
from ml_platform.store import Store
store = Store(sys.argv[1], cache=Path(sys.argv[2]), storage_options=eval(sys.argv[3]))
print(len(store.claims.take("flights", "features", sys.argv[4:])), flush=True)
sys.stdin.readline()
"""


def holder(place: Place, cache: Path, *prints: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, place.url, str(cache), repr(place.options), *prints],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"{len(prints)}\n"
    return process


def test_what_a_dead_process_held_is_taken_over_by_one(
    store: Store, other: Store, place: Place, tmp_path: Path
) -> None:
    for _ in range(2):  # the dead may lie upon the dead
        process = holder(place, tmp_path / "holder", *PRINTS[:3])
        assert store.claims.take(*STAGE, PRINTS[:3]) == set()
        assert store.claims.held(*STAGE, PRINTS)[PRINTS[0]].process.pid == process.pid
        process.kill()
        process.wait()
        assert store.claims.held(*STAGE, PRINTS) == {}
    assert len(claimed(place)) == 6, "taken over from the first by the second, and never removed before"
    assert store.claims.take(*STAGE, PRINTS[:2]) == {*PRINTS[:2]}
    assert other.claims.take(*STAGE, PRINTS[:3]) == {PRINTS[2]}
    store.claims.release(*STAGE, PRINTS)
    other.claims.release(*STAGE, PRINTS)
    assert claimed(place) == []


def elsewhere(place: Place, token: str, **changes: str) -> None:
    """Claim the first artifact as a process of another machine."""
    owner = replace(this_process(), pid=1, **changes)
    place.write(layout.owner(token), json.dumps(owner.to_dict()).encode())
    place.write(layout.claim(*STAGE, PRINTS[0], 1), json.dumps({"owner": token, "since": "2026-01-01"}).encode())


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"boot": "another/1"}])
def test_another_machine_lives_while_it_renews_its_record(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch, change: dict[str, str]
) -> None:
    elsewhere(place, "abc", **change)
    assert store.claims.take(*STAGE, PRINTS[:1]) == set()
    assert store.claims.dead() == []
    monkeypatch.setattr(claims, "DEAD_AFTER", -1.0)
    assert store.claims.held(*STAGE, PRINTS) == {}
    assert {*store.claims.dead()} == {layout.owner("abc"), layout.claim(*STAGE, PRINTS[0], 1)}
    assert store.claims.take(*STAGE, PRINTS[:1]) == {PRINTS[0]}


def test_a_record_is_renewed_while_anything_is_held(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "RENEWED_EVERY", 0.1)
    store.claims.take(*STAGE, PRINTS[:1])

    def renewed() -> float:
        (record,) = other._backend.scan(layout.OWNERS).values()
        return record.modified

    before = renewed()
    time.sleep(1.5)  # S3 tells whole seconds
    assert renewed() > before
    assert other.claims.take(*STAGE, PRINTS[:1]) == set()
    monkeypatch.setattr(claims, "FROZEN_AFTER", -1.0)
    assert other.claims.take(*STAGE, PRINTS[:1]) == {PRINTS[0]}, "frozen, or cut off: nobody waits for ever"


def test_nonsense_among_claims_holds_nothing(store: Store, place: Place) -> None:
    place.write(layout.claim(*STAGE, PRINTS[0], 1), b"")
    place.write(layout.claim(*STAGE, PRINTS[1], 7), b'{"owner": "nobody", "since": ""}')
    place.write(layout.claim(*STAGE, PRINTS[2], 1), b'{"owner": "../x", "since": ""}')
    place.write(f"{layout.claims(*STAGE)}/what is this", b"?")
    place.write(layout.owner("nobody"), b"{}")
    assert store.claims.held(*STAGE, PRINTS) == {}
    assert store.claims.take(*STAGE, PRINTS[:3]) == {*PRINTS[:3]}


def test_claims_stay_with_their_process(store: Store, other: Store) -> None:
    store.claims.take(*STAGE, PRINTS[:1])
    assert pickle.loads(pickle.dumps(store)).claims.take(*STAGE, PRINTS[:1]) == set()
    child = os.fork()
    if not child:
        gone = store.claims.take(*STAGE, PRINTS[:1])
        store.claims.close()
        os._exit(len(gone))
    assert os.waitpid(child, 0)[1] == 0, "a forked process is another"
    assert {*other.claims.held(*STAGE, PRINTS)} == {PRINTS[0]}

"""Whatever happens to a registration: aliases name complete, hash-true versions, none is lost and none is doubled."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

from ml_platform_tests.faults.registering import (
    INSTANTS,
    SEED,
    Place,
    aliases,
    kill_after,
    register,
    seconds_of_one,
    start,
    versions,
    weights,
)
from ml_platform_tests.registry.conftest import empty_database, server, trained  # noqa: F401
from ml_platform_tests.registry.test_server import Outage, unreliable
from ml_platform_tests.registry.trained import Trained

QUICK = 2
"""Of the instants, those that are tried in every test run."""


@pytest.fixture
def place(empty_database: Path, trained: Trained, tmp_path: Path) -> Place:  # noqa: F811
    """A registry whose champion is model `a`."""
    (tmp_path / "mlflow").mkdir()
    shutil.copyfile(empty_database, tmp_path / "mlflow" / "mlflow.db")
    made = Place(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}", tmp_path, trained.folder)
    assert register(made, "a").outcome == "champion"
    return made


def instants(count: int) -> list[float]:
    """Shares of a registration's time, the same in every run."""
    return [random.Random(f"{SEED} {number}").random() for number in range(count)]


@pytest.mark.parametrize("count", [QUICK, pytest.param(INSTANTS, marks=pytest.mark.slow)])
def test_a_killed_registration_is_completed_by_the_next(place: Place, count: int) -> None:
    seconds = seconds_of_one(place, "b")
    champion = "b"
    for number, share in enumerate(instants(count)):
        new = f"c{number:02d}"
        kill_after(place, new, share * seconds)
        assert aliases(place)["champion"] in (champion, new), share
        register(place, new)
        champion = new
        assert aliases(place) == {"champion": new}, share
    assert versions(place) == ["a", "b", *(f"c{number:02d}" for number in range(count))]
    standing = place.promotions().trail.read()
    assert not standing.damaged
    assert [each.model for each in standing.decisions] == versions(place), "each decided once, in their order"


@pytest.mark.parametrize("second", [pytest.param("b", marks=pytest.mark.slow), "c"])
def test_two_registrations_at_once(place: Place, second: str) -> None:
    """Of one model, and of two."""
    both = [start(place, "b"), start(place, second)]
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert versions(place) == sorted({"a", "b", second})
    standing = place.promotions().trail.read()
    assert [each.action for each in standing.decisions] == ["promoted"] * len({"a", "b", second})
    assert standing.champion is not None
    assert aliases(place) == {"champion": standing.champion.model}


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_a_server_that_answers_503_for_a_while(server: str, trained: Trained, tmp_path: Path, seconds: int) -> None:  # noqa: F811
    outage = Outage()
    with unreliable(server, outage) as url:
        through = Place(url, tmp_path, trained.folder)
        outage.down_until = time.monotonic() + seconds
        ruling = register(through, f"away-{seconds}")
        assert outage.refused
        assert ruling.outcome == "champion"
        outage.every = 3  # every third answer is lost, though it was done
        ruling = register(through, f"lost-{seconds}")
        outage.every = 0
        assert ruling.outcome == "champion"
        assert aliases(through) == {"champion": f"lost-{seconds}"}
        own = (f"away-{seconds}", f"lost-{seconds}")  # the server is shared: it may have another test's champion
        assert tuple(d.model for d in through.promotions().trail.read().decisions if d.model in own) == own


def test_a_champion_that_was_tampered_with_comes_back_whole(place: Place) -> None:
    (first,) = weights(place)
    first.write_bytes(first.read_bytes()[:-1] + b"\x01")
    place.promotions().catch_up()
    assert aliases(place) == {}
    assert register(place, "a").outcome == "champion"
    assert aliases(place) == {"champion": "a"}
    assert versions(place) == ["a"]
    assert len(place.promotions().trail.read().decisions) == 1, "nobody had to decide anew"

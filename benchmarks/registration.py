"""Registrations killed (SIGKILL) at random instants: what each left behind, and whether the next one completed it.

A toy model on a SQLite registry. Each instant has a model of its own, which is registered while another is the
champion; its process is killed so long after it began; then it is registered once more, undisturbed. After every step
the aliases must name complete versions whose files hash to what was sent; at the end there must be one version and one
decision for each model. The instants are shares of what an undisturbed registration takes, the same in every run.

    python -m benchmarks.registration [--instants N]
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from benchmarks import common
from ml_platform.registry.connection import Connection
from ml_platform.registry.models import COMPLETE_TAG
from ml_platform.registry.upload import DATA_VERSION_TAG
from ml_platform_tests.faults.registering import (
    INSTANTS,
    SEED,
    Place,
    aliases,
    kill_after,
    register,
    seconds_of_one,
    versions,
)
from ml_platform_tests.registry.trained import toy


def left(place: Place, model: str) -> str:
    """What there is of a model, in words."""
    found = Connection(place.uri).client.search_model_versions("name = 'toy'")
    mine = [version for version in found if version.tags.get(DATA_VERSION_TAG) == model]
    if not mine:
        return "no version"
    whole = "complete" if mine[0].tags.get(COMPLETE_TAG) == "true" else "incomplete"
    decided = "decided" if place.promotions().trail.read().about(model) else "not decided"
    return f"{whole}, {decided}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instants", type=int, default=INSTANTS)
    instants = parser.parse_args().instants
    print(common.header("Registrations killed at random instants"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        place = Place(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}", folder, toy(folder / "toy").folder)
        register(place, "a")
        seconds = seconds_of_one(place, "b")
        champion = "b"
        print(f"undisturbed: {seconds:.2f} s\n")
        print("| instant, s | killed | left behind | champion whole | then registered, s | one version, decided once |")
        print("|---:|---|---|---|---:|---|")
        for number in range(instants):
            model = f"c{number:02d}"
            share = random.Random(f"{SEED} {number}").random()
            killed = kill_after(place, model, share * seconds)
            before = left(place, model)
            sound = aliases(place)["champion"] in (champion, model)
            began = time.monotonic()
            register(place, model)
            took = time.monotonic() - began
            champion = model
            sound &= aliases(place) == {"champion": model}
            once = versions(place).count(model) == 1
            once &= [each.model for each in place.promotions().trail.read().decisions].count(model) == 1
            said = ["yes" if each else "NO" for each in (sound, once)]
            at_work = "yes" if killed else "it was done"
            cells = (f"{share * seconds:.2f}", at_work, before, said[0], f"{took:.2f}", said[1])
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

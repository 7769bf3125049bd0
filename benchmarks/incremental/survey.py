"""Takes part in a survey of orchestrators that is kept elsewhere: adds this platform to the peers of its `bench.py`.

    python -m benchmarks.incremental.survey BENCH.py ROOT --scenario six|chain --peers ml_platform,... [--reps N]

Its other arguments are that harness's own. Each sample is a whole process: `six` is `ml-platform run` on the package
`made`, whose feature code and helper the harness edits; `chain` is a row of trivial stages.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from benchmarks.incremental import made
from benchmarks.incremental.processes import ROOT
from ml_platform.instance import prepare_instance
from ml_platform.settings import Settings

NAME = "ml_platform"
BATCHES = 6
HERE = "benchmarks.incremental"
PREPARE = "--prepare"
BODIES = 'NF == 7 && $1 != "Batches" && $2 ~ /^[0-9]+$/ { print $1 }'
"""Of the rows that `ml-platform run` prints: the stages of which bodies ran."""


def prepare(folder: Path) -> None:
    """Make the package and a home in a work directory. The texts are as the harness edits them."""
    made.write(folder)
    features = folder / made.NAME / "features.py"
    text = features.read_text().replace("made.helper", "helper")
    text = text.replace('doubled = F.col("number") * 2 +', 'r = F.col("number")\n    doubled = r * 2 +')
    features.write_text(text)
    made.land(folder / "home" / "landing", made.days(BATCHES))
    prepare_instance(Settings(home=folder / "home")).dispose()


def peer(base: type) -> Any:
    """This platform as one of the harness's peers.

    Args:
        base: its class `Peer`.
    """

    class Ours(base):  # type: ignore[misc]
        venv = "bare"
        code_file = f"{made.NAME}/features.py"
        chain = f"{sys.executable} -m {HERE}.trivial chain . home $CHAIN_N"

        def env(self, work: str) -> dict[str, str]:
            return made.environment(Path(work), Path(work, "home")) | {"PYTHONPATH": f"{work}:{ROOT}"}

        def init(self, work: str) -> str:
            return f"{sys.executable} -m {HERE}.survey {PREPARE} {work}"

        def run(self, epochs: int) -> str:
            declared = f"sed -i 's/epochs=[0-9]*/epochs={epochs}/' {made.NAME}/pipeline.py"
            ran = f"{sys.executable} -m ml_platform.cli run {made.NAME} > ran.txt"
            built = f"""awk '{BODIES}' ran.txt >> $BENCH_LOG"""
            return f"{declared} && {ran} && {built}"

    return Ours(NAME)


def main() -> None:
    """The command line."""
    if sys.argv[1] == PREPARE:
        prepare(Path(sys.argv[2]))
        return
    path = Path(sys.argv.pop(1)).resolve()
    spec = importlib.util.spec_from_file_location("bench", path)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    bench.PEERS.append(peer(bench.Peer))
    bench.main()


if __name__ == "__main__":
    main()

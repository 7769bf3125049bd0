"""Loading a code location of many pipelines, beside plain Dagster with as many bare assets.

Whole processes, from start to the resolved repository: import, definitions, jobs. Ours holds the flights' pipeline
under other names: every stage with its code version, checks, descriptions and a job. Plain Dagster's has as many
assets, in as many chains with a job each, and nothing else. Wanted: at most 2 times plain Dagster.

    python -m benchmarks.location [--pipelines N] [--rounds N]
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks import common

OURS = """
from dataclasses import replace
from ml_platform.definitions import build_definitions
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE
from ml_platform.settings import Settings
defs = build_definitions([replace(PIPELINE, name=f"p{i}") for i in range(PIPELINES)], Settings())
"""

PLAIN = """
import dagster as dg
def chain(p):
    assets = []
    for s in range(STAGES):
        @dg.asset(name=f"s{s}", key_prefix=[f"p{p}"], group_name=f"p{p}", deps=[[f"p{p}", f"s{s - 1}"]] if s else [])
        def stage(): ...
        assets.append(stage)
    return assets
chains = [chain(p) for p in range(PIPELINES)]
jobs = [dg.define_asset_job(f"job{p}", dg.AssetSelection.groups(f"p{p}")) for p in range(PIPELINES)]
defs = dg.Definitions(assets=[asset for assets in chains for asset in assets], jobs=jobs)
"""

RESOLVE = """
repository = defs.get_repository_def()
assert len(list(repository.get_all_jobs())) >= PIPELINES
assert len(repository.asset_graph.get_all_asset_keys()) == PIPELINES * STAGES
"""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE
    from ml_platform.stages import stages_of

    stages = stages_of(PIPELINE)
    checks = sum(len(stage.checks()) for stage in stages.values())
    print(common.header("Loading a code location", libraries=("dagster",)))
    print(f"{options.pipelines} pipelines x {len(stages)} assets; ours with {checks} asset checks each\n")
    numbers = f"PIPELINES, STAGES = {options.pipelines}, {len(stages)}\n"
    variants = {
        "plain Dagster": lambda: _process(numbers + PLAIN + RESOLVE),
        "ml_platform": lambda: _process(numbers + OURS + RESOLVE),
        "import dagster": lambda: _process("import dagster"),
    }
    found = common.alternate(variants, rounds=options.rounds)
    table = common.ratios(found, unit="s", against="plain Dagster")
    print(table)
    medians = {name: sorted(values)[len(values) // 2] for name, values in found.items()}
    print(f"\nratio {common.Wish(medians['ml_platform'] / medians['plain Dagster'], at_most=2)}")


def _process(code: str) -> float:
    return common.seconds(lambda: subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True))


if __name__ == "__main__":
    main()

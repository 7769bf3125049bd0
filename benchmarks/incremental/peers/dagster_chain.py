"""Plain Dagster in process: COUNT trivial assets in a row, with its own filesystem IO manager and a quiet console."""

import os
import sys

import dagster as dg


def link(number):
    @dg.asset(name=f"s{number}", ins={"before": dg.AssetIn(f"s{number - 1}")} if number else None)
    def stage(**given):
        return given.get("before", 0) + 1

    return stage


QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

if __name__ == "__main__":
    links = [link(number) for number in range(int(os.environ["COUNT"]))]
    with dg.DagsterInstance.get() as instance:
        sys.exit(0 if dg.materialize(links, instance=instance, run_config=QUIET).success else 1)

"""Dagster's daemon evaluates every sensor of the home once; it may be killed at a point of the tick of one of them.

python -m ml_platform_tests.automation.one_tick [POINT]
"""

from __future__ import annotations

import logging
import signal
import sys

from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.sensor import execute_sensor_iteration

from ml_platform.instance import prepare_instance
from ml_platform.settings import settings


def main(points: list[str]) -> None:
    flags = {"tiny_new_data": dict.fromkeys(points, int(signal.SIGKILL))}
    target = ModuleTarget(
        module_name="ml_platform.definitions", attribute=None, working_directory=None, location_name="ml_platform"
    )
    with (
        prepare_instance(settings()) as instance,
        create_test_daemon_workspace_context(target, instance) as workspace,
    ):
        for error in execute_sensor_iteration(
            workspace, logging.getLogger("one_tick"), None, None, debug_crash_flags=flags
        ):
            if error is not None:
                raise SystemExit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])

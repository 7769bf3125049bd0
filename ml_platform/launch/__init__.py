"""How a training job is started, followed and ended: one small protocol, one module a backend."""

from ml_platform.launch.protocol import Launcher, Run, State, Status, run

__all__ = ["Launcher", "Run", "State", "Status", "run"]

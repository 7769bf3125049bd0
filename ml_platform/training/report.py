"""Progress of a job: a line on standard output, and through Dagster Pipes where Dagster has started the job."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


class Reporter:
    """Tells people how training goes. Only rank 0 has one."""

    def __init__(self, pipes: Any | None) -> None:
        self._pipes = pipes

    def line(self, text: str) -> None:
        """One line for people."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        if self._pipes is not None:
            self._pipes.log.info(text)

    def progress(self, values: dict[str, Any]) -> None:
        """Values for machines (see `loop.train`), and a line made of them."""
        place = f"epoch {values['epoch']}"
        place += f", step {values['step']}/{values['steps']}" if "step" in values else f"/{values['epochs']}"
        self.line(
            f"{place}: loss {values['train_loss']:.5f}, rate {values['learning_rate']:.2e}, "
            f"{values['samples_per_second']:,.0f} rows/s"
        )
        if self._pipes is not None:
            self._pipes.report_custom_message(values)


@contextlib.contextmanager
def reporter() -> Iterator[Reporter]:
    """A reporter, through Dagster Pipes where its environment is present."""
    try:
        import dagster_pipes as pipes
    except ModuleNotFoundError:  # an image for training alone need not have it
        yield Reporter(None)
        return
    environment = pipes.PipesEnvVarParamsLoader()  # type: ignore[no-untyped-call]
    if not environment.is_dagster_pipes_process():
        yield Reporter(None)
        return
    # Closed only when all is well: a job that is started again writes into the same channel, and nobody reads on behind
    # a closing. What went wrong is told by the launcher, from the rank that was first.
    context = pipes.open_dagster_pipes()
    yield Reporter(context)
    context.close()

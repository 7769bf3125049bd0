"""One rank in a pod, started by torchrun: `training.job`, on from the checkpoints that the store holds.

They are fetched when all pods have met: then none of an earlier attempt lives that could still be adding some, so every
rank finds the same.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # as in `training.job`, which enables it

import json
import os
import sys
import traceback
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from ml_platform.errors import StoreError
from ml_platform.failures import classify
from ml_platform.launch.kubernetes.pod import MARK, checkpoints
from ml_platform.launch.staging import Staging
from ml_platform.launch.training_files import finder
from ml_platform.settings import settings
from ml_platform.stages.opening import store_of
from ml_platform.training import job
from ml_platform.training.ending import leave_after
from ml_platform.training.preemption import PREEMPTED


@record
def _fetch(folder: str, work: Path) -> None:
    names = Staging(store_of(settings()), folder).fetch_checkpoints(checkpoints(work))
    first = os.environ.get("RANK", "0") == "0"
    (work / MARK).write_text(json.dumps({"names": sorted(names), "first": first}))


def main() -> None:
    """The command line: the job's folder in the store, then what `training.job` takes."""
    folder = sys.argv.pop(1)
    work = Path(sys.argv[1]).parent
    try:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            _fetch(folder, work)
        job.main(finder(store_of(settings()), work))
    except StoreError as error:
        if classify(error) != "passing":
            raise
        traceback.print_exc()
        sys.exit(PREEMPTED)


if __name__ == "__main__":
    leave_after(main)

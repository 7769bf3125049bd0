"""How a process that has torch in it ends: at once.

To take torch apart costs Python a second of the processor, and for just so long whoever waits for the process does not
know that it is over: a job that was lost begins again the later, and one that is done is done the later. Python also
waits for threads first, of which one may be waiting for another rank, while all others wait for this one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from ml_platform.training import said


def leave_after(main: Callable[[], int | None]) -> NoReturn:
    """Run a program, tell of its exception if it ends by one, and end this process, running nothing of what is
    registered for its end. What the program has opened it has closed.

    Args:
        main: returns an exit code, or raises SystemExit with one; None is 0.
    """
    try:
        code = main() or 0
    except SystemExit as end:
        if end.code and not isinstance(end.code, int):
            sys.stderr.write(f"{end.code}\n")
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except Exception:
        sys.excepthook(*sys.exc_info())
        code = 1
    said.end()
    os._exit(code)

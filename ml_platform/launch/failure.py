"""From what a failed job left behind to an error that a person can act on."""

from __future__ import annotations

import itertools
import json
import re
import signal
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_platform.errors import TrainingError
from ml_platform.training.preemption import PREEMPTED
from ml_platform.training.said import MARK

_MEANINGS = {
    signal.SIGKILL: "killed from outside, most often by the kernel because memory ran out",
    signal.SIGTERM: "asked to end from outside: preempted, or the machine is going down",
    signal.SIGSEGV: "crashed in native code",
    signal.SIGBUS: "crashed in native code, perhaps because shared memory or the disk is full",
    signal.SIGABRT: "aborted in native code",
    signal.SIGILL: "used an instruction that this processor does not have",
    signal.SIGINT: "interrupted",
}
_MORE_MEMORY = "lower Recipe.batch_size or memory_mib, let fewer processes train, or add memory"
_FIXES = {signal.SIGKILL: _MORE_MEMORY}
_NO_MEMORY = re.compile(r"can't allocate memory|out of memory|^MemoryError|Unable to allocate")
_ENDED_ITSELF = "what the model's code calls ended the process (os._exit, or a native library): see its last lines"
_PASSING = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGBUS, signal.SIGINT})
"""Signals that come from outside the job, or from a machine that ran out of something."""
_TRACEBACK = "Traceback (most recent call last):"
_WRAPPER = re.compile(r' *File ".*/elastic/multiprocessing/errors/__init__.py", line \d+, in wrapper\n(?: {4}.*\n)*')
"""torch's own frame around a rank, above all others."""
TAIL = 20
"""Lines of the log that an error shows, of each rank; fewer where there are many ranks."""
_TAILS = 100
"""Lines that it shows of all ranks together."""


def explain(pipeline: str, failures: Path, log: Path, exit_code: int) -> TrainingError:
    """The error of a job whose agent ended with `exit_code`; `passing` where the job was ended from outside.

    Args:
        pipeline: whose job it was.
        failures: what the agent wrote of its ranks; may be absent.
        log: the job's log.
    """
    where = f"{pipeline}, log {log}"
    found = _read(failures)
    return told(where, found, _tail(log, found[0].get("traceback", "") if found else ""), exit_code)


def told(where: str, found: list[dict[str, Any]], tail: Sequence[str], exit_code: int) -> TrainingError:
    """The error of a job: what its ranks said, the first cause on top, and the last lines of its log.

    Args:
        where: whose job it was, and where there is more of its log.
        found: as `torchrun.Ended` has them, the first cause first; nothing where the launcher itself was killed.
        tail: lines of the log.
        exit_code: of the launcher.
    """
    lost = is_lost(found, exit_code)
    got = "the last lines of the ranks:" + "".join(f"\n    {line}" for line in tail)
    if not found:
        what = f"The training job ended without a model; its launcher {meaning(exit_code)}."
        return TrainingError(what, where=where, got=got, fix=_fix(exit_code), passing=lost)
    first = found[0]
    code = int(first["exit_code"])
    headline, *details = str(first["message"]).splitlines() or [""]
    if not lost and all(each["consequence"] for each in found):
        what = f"Training failed: a rank ended before it was done and gave no reason; rank {first['rank']} missed it."
        return TrainingError(what, where=where, got=got, fix=_ENDED_ITSELF, passing=False)
    who = f"Training failed in rank {first['rank']}, which {meaning(code)}"
    what = who if first["rank"] is not None else "The training job could not be carried out"
    fix = _MORE_MEMORY if _NO_MEMORY.search(headline) else _fix(code)
    if headline:
        # Of an error of ours also where, what was given, and what to do: a page shows but the first lines.
        what += "\n".join([f": {headline}", *itertools.takewhile(lambda line: line.startswith("  "), details)])
    elif not lost and fix is None:
        what, fix = f"{what}, without a traceback", _ENDED_ITSELF
    if trace := first.get("traceback") or "":
        what += "\n" + _WRAPPER.sub("", trace.rstrip())
    return TrainingError(what, where=where, got=got, fix=fix, passing=lost)


def meaning(exit_code: int) -> str:
    """What an exit code means, as a clause: "ended with exit code -9 (SIGKILL: ...)"."""
    number = -exit_code if exit_code < 0 else exit_code - 128
    if exit_code == PREEMPTED:
        return f"ended with exit code {exit_code} (asked to end from outside, after a checkpoint)"
    try:
        name = signal.Signals(number)
    except ValueError:
        return f"ended with exit code {exit_code}" + (" (an exception)" if exit_code == 1 else "")
    return f"ended with exit code {exit_code} ({name.name}: {_MEANINGS.get(name, 'ended by a signal')})"


def _passes(exit_code: int) -> bool:
    """Whether a process was ended from outside, so that it may well succeed when it is run again as it is."""
    return exit_code == PREEMPTED or any(exit_code in (-number, 128 + number) for number in _PASSING)


def _fix(exit_code: int) -> str | None:
    return next((fix for number, fix in _FIXES.items() if exit_code in (-number, 128 + number)), None)


def is_lost(found: list[dict[str, Any]], exit_code: int) -> bool:
    """Whether the launcher or a rank was ended from outside, and no rank failed by itself: others only missed it."""
    if not found:
        return _passes(exit_code)
    ended = [_passes(int(each["exit_code"])) for each in found]
    return any(ended) and all(of or each["consequence"] for of, each in zip(ended, found, strict=True))


def _read(failures: Path) -> list[dict[str, Any]]:
    """What the agent wrote, the first cause first; nothing where it was killed before it could say."""
    try:
        found: list[dict[str, Any]] = json.loads(failures.read_text())
    except (OSError, ValueError):
        return []
    return found


def _tail(log: Path, traceback: str) -> list[str]:
    """The last lines of each rank, without that traceback. What has no mark is of the first rank, or of none."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return [f"(no log: {error})"]
    by_rank: dict[int, list[str]] = defaultdict(list)
    for line in lines:
        marked = MARK.match(line)
        by_rank[int(marked[1]) if marked else 0].append(line)
    each = max(1, min(TAIL, _TAILS // max(1, len(by_rank))))
    return [line for rank in sorted(by_rank) for line in _without(by_rank[rank], traceback)[-each:]]


def _without(lines: list[str], traceback: str) -> list[str]:
    """What a rank has said, but for the traceback with that end."""
    bare = [MARK.sub("", line, count=1) for line in lines]
    end = traceback.rstrip().rpartition("\n")[2]
    if not end or end not in bare or _TRACEBACK not in bare:
        return lines
    return lines[: bare.index(_TRACEBACK)] + lines[bare.index(end) + 1 :]

"""A process that ends at once still says how it ended, and all that it had to say."""

import subprocess
import sys

import pytest

_PROGRAM = """
import atexit, sys
from ml_platform.training import said
from ml_platform.training.ending import leave_after
atexit.register(print, "taken apart")
def main():
    {marked}
    sys.stdout.write("said, in part")
    {body}
leave_after(main)
"""


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ("return None", 0, ""),
        ("return 128 + 15", 143, ""),
        ("sys.exit(75)", 75, ""),
        ("sys.exit('why')", 1, "why"),
        ("raise ValueError('no such layer')", 1, "ValueError: no such layer"),
    ],
)
def test_a_program_ends_with_its_code_and_its_words(body: str, code: int, told: str) -> None:
    ended = run(body=body, marked="")
    assert (ended.returncode, ended.stdout) == (code, "said, in part")
    assert ended.stderr.rstrip().endswith(told)


def test_a_line_that_a_rank_has_begun_is_not_lost() -> None:
    assert run(body="return 0", marked="said.mark(1)").stdout == "[rank 1] said, in part\n"


def run(**parts: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _PROGRAM.format(**parts)], capture_output=True, text=True)

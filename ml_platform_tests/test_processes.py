"""Whether a process lives is told rightly: also of zombies, of recycled pids, and of other machines."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

from ml_platform.processes import ProcessId, is_alive, this_process

NAME = "from ml_platform.processes import this_process; print(this_process().to_text(), flush=True); input()"


def test_a_process_lives_until_it_ends() -> None:
    child = subprocess.Popen([sys.executable, "-c", NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    process = ProcessId.from_text(child.stdout.readline().rstrip("\n"))
    assert process.pid == child.pid
    assert is_alive(process) is True
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet buried: a zombie
    assert is_alive(process) is False
    child.communicate()
    assert is_alive(process) is False


def test_a_recycled_pid_is_another_process() -> None:
    me = this_process()
    assert is_alive(me) is True
    assert is_alive(replace(me, started="1")) is False


def test_a_restarted_machine_or_container_has_none_of_its_old_processes() -> None:
    me = this_process()
    assert is_alive(replace(me, boot="another/1/1")) is False
    assert is_alive(replace(me, boot=f"{me.boot.partition('/')[0]}/1/1")) is False


def test_what_cannot_be_seen_from_here_is_not_judged() -> None:
    me = this_process()
    assert is_alive(replace(me, host="elsewhere")) is None
    assert is_alive(replace(me, boot=me.boot + "0")) is None, "another container"


def test_it_can_be_written_down() -> None:
    me = this_process()
    assert ProcessId.from_text(me.to_text()) == me
    assert ProcessId(**me.to_dict()) == me


def test_a_forked_process_is_itself() -> None:
    me = this_process()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, this_process().to_text().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert ProcessId.from_text(os.read(reader, 1000).decode()).pid == child != me.pid

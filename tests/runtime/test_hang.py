"""Which ranks are blamed for a hang. Stacks are those of real processes, as faulthandler writes them."""

import os
import signal
import sys
import time

import pytest

from realrl.launch.local import LocalLauncher
from realrl.runtime.watch import stacks
from realrl.runtime.watch.hang import find_culprit
from realrl.runtime.watch.stacks import Dump

WORKER = """
import faulthandler, importlib.util, os, signal, sys, threading, time
faulthandler.register(signal.SIGUSR1, all_threads=True)
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
path = sys.argv[1:][int(os.environ["REALRL_RANK"])]
spec = importlib.util.spec_from_file_location("module", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print("up", flush=True)
module.stand()
"""
WAYS_TO_STAND = {
    "rewards": "time.sleep(60)",
    "collective": "waiting.wait_for_ranks(work, 60)",
    # As in a call of C++ that never gives the interpreter's lock back.
    "locked": "waiting.wait_for_ranks(ctypes.PyDLL(None).sleep, 60)",
    "device": "waiting.wait_for_device(time.sleep, 60)",
    "receives": "waiting.wait_for_instruction(work, 60)",
}
FILE = """
import ctypes, time
from realrl.base import waiting
def work(seconds):
    time.sleep(seconds)
def stand():
    {}
"""


@pytest.fixture
def ask(tmp_path):
    """The answers of workers that stand in these ways; those of `stopped` are stopped by a signal."""
    launchers = []

    def answers(*ways, stopped=()):
        files = []
        for way in ways:
            path = tmp_path / f"{way}.py"
            path.write_text(FILE.format(WAYS_TO_STAND[way]))
            files.append(str(path))
        launcher = LocalLauncher([sys.executable, "-c", WORKER, *files])
        launchers.append(launcher)
        launcher.start(len(ways), {}, tmp_path / f"logs-{len(launchers)}")
        while any("up" not in launcher.log_path(rank).read_text() for rank in range(len(ways))):
            assert not launcher.poll()
            time.sleep(0.02)
        for rank in stopped:
            os.kill(launcher.pids[rank], signal.SIGSTOP)
        return Dump(launcher, range(len(ways))).wait()

    yield answers
    for launcher in launchers:
        launcher.stop(0.5)


def test_a_stopped_rank_is_blamed_before_a_busy_one(ask, monkeypatch):
    """Its silence is told from the others' stacks, and its state is known."""
    monkeypatch.setattr(stacks, "_WITHIN_S", 2.0)
    answers = ask("collective", "rewards", "collective", stopped=[2])
    assert "up" not in answers[1].text and "in stand" in answers[1].text
    assert [answers[rank].has_stacks for rank in range(3)] == [True, True, False]
    culprit = find_culprit(range(3), answers)
    assert (culprit.ranks, culprit.why) == ((2,), "no stack within 2 s, its process stopped (T)")


def test_a_rank_that_waits_for_others_is_not_blamed(ask):
    """Its wait is known though it holds the interpreter's lock, and of whatever file it is.

    All are blamed where each waits for another; a rank that waits for an instruction comes before the busy.
    """
    answers = ask("collective", "rewards", "locked", "receives", "device")
    busy = find_culprit([0, 1, 2, 4], answers)
    assert busy.ranks == (1,) and "in stand (" in busy.why and "rewards.py:7)" in busy.why
    assert busy.why.endswith(", while ranks 0, 2, 4 waited in collectives or transfers")
    away = find_culprit([0, 1, 3], answers)
    assert away.ranks == (3,) and away.why.startswith("not taken up, or its report is lost")
    assert "while" not in find_culprit([1], answers).why


def test_a_mark_is_not_named_as_a_place(ask):
    """All wait, and each is named by the line that waits, or by what that line called in Python."""
    answers = ask("collective", "device")
    all_wait = find_culprit([0, 1], answers)
    assert all_wait.ranks == (0, 1) and "waiting.py" not in all_wait.why
    assert "in work (" in all_wait.why and "device.py:7)" in all_wait.why

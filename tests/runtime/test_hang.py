"""Who is blamed for a hang. Stacks are those of real processes, as faulthandler writes them."""

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
folder, what = sys.argv[1], sys.argv[2:][int(os.environ["REALRL_RANK"])]
spec = importlib.util.spec_from_file_location("module", folder + "/" + what)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print("up", flush=True)
module.stand()
"""
STAND = "import time\ndef stand():\n    time.sleep(60)\n"
RECEIVE = """
import time
exec(compile("def recv_multipart(): time.sleep(60)", "/lib/zmq/sugar/socket.py", "exec"))
def stand():
    recv_multipart()
"""
FILES = {
    "rewards": "rewards.py",
    "transfer": "realrl/realloc/transfer.py",
    "collective": "torch/distributed/distributed_c10d.py",
    "receives": "realrl/runtime/control/channel.py",
}


@pytest.fixture
def ask(tmp_path):
    """The answers of workers that stand in these files; those of `stopped` are stopped by a signal."""
    launchers = []

    def answers(*kinds, stopped=()):
        for file in FILES.values():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(RECEIVE if file == FILES["receives"] else STAND)
        files = [FILES[kind] for kind in kinds]
        launcher = LocalLauncher([sys.executable, "-c", WORKER, str(tmp_path), *files])
        launchers.append(launcher)
        launcher.start(len(kinds), {}, tmp_path / f"logs-{len(launchers)}")
        while any("up" not in launcher.log_path(rank).read_text() for rank in range(len(kinds))):
            assert not launcher.poll()
            time.sleep(0.02)
        for rank in stopped:
            os.kill(launcher.pids[rank], signal.SIGSTOP)
        return Dump(launcher, range(len(kinds))).wait()

    yield answers
    for launcher in launchers:
        launcher.stop(0.5)


def test_who_is_stopped_is_blamed_before_who_is_busy(ask, monkeypatch):
    """Its silence is told from the others' stacks, and its state is known."""
    monkeypatch.setattr(stacks, "_WITHIN_S", 2.0)
    answers = ask("collective", "rewards", "collective", stopped=[2])
    assert "up" not in answers[1].text and "in stand" in answers[1].text
    assert [answers[rank].has_stacks for rank in range(3)] == [True, True, False]
    culprit = find_culprit(range(3), answers)
    assert (culprit.ranks, culprit.why) == ((2,), "no stack within 2 s, its process stopped (T)")


def test_who_waits_for_others_is_not_blamed(ask):
    """Neither in a collective nor in a transfer; all are where each waits for another, or none does."""
    answers = ask("collective", "rewards", "transfer", "receives")
    busy = find_culprit([0, 1, 2], answers)
    assert busy.ranks == (1,) and "in stand (" in busy.why and "rewards.py:3)" in busy.why
    assert busy.why.endswith(", while ranks 0, 2 waited in collectives or transfers")
    assert find_culprit([0, 2], answers).ranks == (0, 2)
    away = find_culprit([0, 1, 3], answers)
    assert away.ranks == (3,) and away.why.startswith("not taken up, or its report is lost")
    assert "while" not in find_culprit([1], answers).why

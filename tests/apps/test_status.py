"""What is said of runs that do not go on; one that does is in tests/runtime/test_run.py."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from realrl.apps import stacks
from realrl.apps.main import main
from realrl.base.processes import start_of
from realrl.runtime.watch.stacks import STACKS, WANTED
from realrl.runtime.watch.status import STATUS, Place, Scene, Status, Work


@pytest.fixture
def show(tmp_path, monkeypatch, capsys):
    """Runs a command on a run with this status: `(exit code, stdout, stderr)`."""
    directory = tmp_path / "runs" / "sums" / "trial"
    directory.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def run(command: str, given: Status) -> tuple[int, str, str]:
        (directory / STATUS).write_bytes(msgspec.json.encode(given))
        code = main([command, "sums/trial"])
        return (code, *capsys.readouterr())

    return run


def _status(**changes) -> Status:
    """Of this process, a minute into step 3."""
    now_s = time.time()
    work = Work(seq=7, what="call train of step 3", ranks=(0,), started_s=now_s - 5, step=3)
    workers = (Place(since_s=now_s - 5, seq=7, done=2, total=8), Place(since_s=now_s - 65, waits_for=(7,)))
    given = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_start": start_of(os.getpid()),
        "began_s": now_s - 60,
        "written_s": now_s,
        "phase": "step",
        "phase_since_s": now_s - 50,
        "num_steps": 30,
        "step": 3,
        "scene": Scene((work,), workers),
    }
    return Status(**(given | changes))


@pytest.mark.parametrize("command", ["status", "stacks"])
def test_a_status_of_another_version_is_refused(show, capsys, command):
    """In one line, and nobody is asked for stacks."""
    show("status", _status())
    Path("runs/sums/trial", STATUS).write_text('{"phase": "step"}')
    assert main([command, "sums/trial"]) == 2
    assert "RUN: runs/sums/trial/status.json is of another version of realrl" in capsys.readouterr().err
    assert not Path("runs/sums/trial", WANTED).exists()


def test_a_line_for_each_worker(show):
    """What it does, for how long, how much of it, and what it waits for."""
    code, out, err = show("status", _status())
    head, *lines = out.splitlines()
    assert (code, err) == (0, "")
    assert head.startswith("runs/sums/trial: step 3/30, for 0:50; began 1:00 ago; master: process ")
    assert lines == [
        "rank  does                  for   done  waits for",
        "0     call train of step 3  0:05  2/8",
        "1     nothing               1:05        call train of step 3 (rank 0)",
    ]


def test_a_dead_master_is_told_from_one_that_goes_on(show):
    """By its process, which a later one of the same number is not; by its silence, where it is elsewhere."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    ended = _status(pid=child.pid, process_start=start_of(child.pid))
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    for gone in (ended, _status(process_start=start_of(os.getpid()) + 1)):
        code, out, err = show("status", gone)
        assert code == 1 and "is dead, though the run was not over" in err and "call train" in out
        assert show("stacks", gone)[0] == 1
    child.wait()
    silent = _status(host="elsewhere", process_start=1, written_s=time.time() - 100)
    assert "on elsewhere, has said nothing for 1:40" in show("status", silent)[2]
    assert show("status", _status(host="elsewhere", process_start=1))[0] == 0


def test_a_run_that_is_over_has_no_workers(show):
    """However it ended."""
    over = _status(phase="failed: rank 1 died", is_over=True, process_start=1)
    code, out, err = show("status", over)
    assert (code, err, out.count("\n")) == (
        0,
        "",
        1,
    ) and ": failed: rank 1 died, 0:50 ago; began 1:00 ago;" in out
    code, out, err = show("stacks", over)
    assert (code, out) == (1, "") and "runs/sums/trial is over (failed: rank 1 died)" in err


def test_a_master_that_does_not_answer_is_named(show, monkeypatch, tmp_path):
    """And the request is taken back, as an answer would come too late."""
    monkeypatch.setattr(stacks, "_WITHIN_S", 0.3)
    code, _, err = show("stacks", _status())
    assert (
        code == 1 and f"process {os.getpid()} on {socket.gethostname()}, did not answer within 0.3 s" in err
    )
    assert not (tmp_path / "runs/sums/trial" / WANTED).exists()


def test_an_earlier_answer_is_not_shown(show, tmp_path):
    """Only one that came after the question."""
    directory = tmp_path / "runs/sums/trial"
    (directory / STACKS).write_text("old")

    def answer():
        while not (directory / WANTED).exists():
            time.sleep(0.01)
        (directory / "aside").write_text("new")
        os.replace(directory / "aside", directory / STACKS)

    threading.Thread(target=answer, daemon=True).start()
    assert show("stacks", _status()) == (0, "new", "")


@pytest.mark.parametrize(("arguments", "message"), [(["nowhere"], "got 'nowhere'"), ([], "RUN")])
@pytest.mark.parametrize("command", ["status", "stacks"])
def test_what_is_no_run_is_refused(capsys, monkeypatch, tmp_path, command, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main([command, *arguments]) == 2
    assert message in capsys.readouterr().err

"""Workers as child processes: they start with what they need, and none stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from realrl.launch.local import LocalLauncher

ROOT = Path(__file__).parents[2]
SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); " + SLEEP
WITH_CHILD = (
    "import subprocess, sys; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "print(child.pid, flush=True); " + SLEEP
)
PARENT = """
import os, sys, time
from pathlib import Path
from realrl.launch.local import LocalLauncher
child = "import os; from realrl.base.parent import *; die_with_parent(int(os.environ[PARENT_VARIABLE])); "
child += "print('up', flush=True); import time; time.sleep(60)"
launcher = LocalLauncher([sys.executable, "-c", child])
launcher.start(2, {}, Path(sys.argv[1]))
print(*launcher.pids, flush=True)
time.sleep(60)
"""


def _started(code, folder, num_workers=1, environment=None):
    launcher = LocalLauncher([sys.executable, "-c", code])
    launcher.start(num_workers, environment or {}, folder)
    return launcher


def _wait_until(condition, timeout_s=20.0):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.02)


def _is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_each_worker_gets_its_rank_its_share_of_cores_and_its_log(tmp_path):
    """And the environment that the master gives to all."""
    code = "import os; print(os.environ['REALRL_RANK'], os.environ['OMP_NUM_THREADS'], os.environ['KEY'])"
    launcher = _started(code, tmp_path, 2, {"KEY": "value"})
    _wait_until(lambda: len(launcher.poll()) == 2)
    assert sorted(launcher.poll()) == [(0, 0), (1, 0)]
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    for rank in range(2):
        assert launcher.log_path(rank).read_text() == f"{rank} {threads} value\n"


def test_a_death_is_seen(tmp_path):
    """With the signal that caused it, and the others live on."""
    launcher = _started(SLEEP, tmp_path, 2)
    os.kill(launcher.pids[1], signal.SIGKILL)
    _wait_until(launcher.poll)
    assert launcher.poll() == [(1, -signal.SIGKILL)]
    launcher.stop(5.0)
    assert len(launcher.poll()) == 2


def test_the_stubborn_are_killed(tmp_path):
    """A worker that ignores SIGTERM ends after the grace."""
    launcher = _started(STUBBORN, tmp_path)
    _wait_until(launcher.log_path(0).read_text)
    started_s = time.monotonic()
    launcher.stop(0.5)
    assert launcher.poll() == [(0, -signal.SIGKILL)]
    assert time.monotonic() - started_s < 5


def test_a_workers_children_end_with_it(tmp_path):
    """Its whole process group is stopped, even when the worker itself died before."""
    launcher = _started(WITH_CHILD, tmp_path)
    _wait_until(launcher.log_path(0).read_text)
    grandchild = int(launcher.log_path(0).read_text())
    os.kill(launcher.pids[0], signal.SIGKILL)
    _wait_until(launcher.poll)
    launcher.stop(1.0)
    _wait_until(lambda: not _is_alive(grandchild))


def test_workers_do_not_outlive_a_killed_master(tmp_path):
    """SIGKILL gives the master no chance to clean up: the kernel does it."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux: PR_SET_PDEATHSIG")
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    master = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in master.stdout.readline().split()]
    _wait_until(lambda: all((tmp_path / f"worker-{rank}.log").read_text() for rank in range(2)))
    master.kill()
    master.communicate()
    _wait_until(lambda: not any(map(_is_alive, pids)))


_SET_ON_CUDA = (
    "PYTORCH_ALLOC_CONF",
    "NCCL_GRAPH_REGISTER",
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "TORCH_NCCL_HIGH_PRIORITY",
)


def test_a_worker_on_cuda_has_segments_that_grow_and_queues_enough(tmp_path, monkeypatch):
    """Unless the user chose otherwise, an allocator by either name of the variable; none on a CPU."""
    code = f"import os; print(*map(os.environ.get, {_SET_ON_CUDA}))"
    for name in (*_SET_ON_CUDA, "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    assert _said(code, tmp_path / "cuda", device="cuda") == "expandable_segments:True 0 32 1"
    assert _said(code, tmp_path / "cpu", device="cpu") == "None None None None"
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "backend:cudaMallocAsync")
    assert _said(code, tmp_path / "older", device="cuda") == "None 0 32 1"
    for name, value in zip(_SET_ON_CUDA, ("backend:native", "1", "1", "0")):
        monkeypatch.setenv(name, value)
    assert _said(code, tmp_path / "given", device="cuda") == "backend:native 1 1 0"


def _said(code: str, folder: Path, *, device: str) -> str:
    launcher = LocalLauncher([sys.executable, "-c", code], device=device)
    launcher.start(1, {}, folder)
    launcher.wait(30)
    return launcher.log_path(0).read_text().strip()

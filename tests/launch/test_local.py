"""Workers as child processes: they start with what they need, and none stays behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from realrl.launch import local
from realrl.launch.forking import ForkServer
from realrl.launch.local import LocalLauncher

ROOT = Path(__file__).parents[2]
SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); " + SLEEP
WITH_CHILD = (
    "import subprocess, sys; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "print(child.pid, flush=True); " + SLEEP
)
BOUND = (
    "import os; from realrl.base.parent import *; die_with_parent(int(os.environ[PARENT_VARIABLE])); "
    "print('up', flush=True); " + SLEEP
)
PARENT = """
import sys, time
from pathlib import Path
from tests.launch.test_local import BOUND, launcher_of
launcher = launcher_of(BOUND, Path(sys.argv[1]), is_forked=sys.argv[2] == "True")
launcher.start(2, {}, Path(sys.argv[1]))
while len(launcher.pids) < 2:
    time.sleep(0.02)
print(*launcher.pids, flush=True)
time.sleep(60)
"""
MODULE = """
def main():
    exec({code!r}, {{}})
    return 0
if __name__ == "__main__":
    main()
"""


def launcher_of(code, folder, *, is_forked, imports=(), device="cpu"):
    """Of workers whose life is `code`: forks that find it in a module, or processes that get it as words."""
    if not is_forked:
        return LocalLauncher([sys.executable, "-c", code], device=device)
    folder.mkdir(exist_ok=True)
    (folder / "life.py").write_text(MODULE.format(code=code))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT)])
    return LocalLauncher(module="life", imports=imports, device=device)


@pytest.fixture(autouse=True)
def no_shared_server(monkeypatch):
    """Each start has a fork server of its own, as outside of tests."""
    monkeypatch.setattr(local, "ForkServer", ForkServer)


@pytest.fixture(params=[False, True], ids=["started", "forked"])
def is_forked(request, monkeypatch):
    """Whether workers are forks of one process; the path that `launcher_of` sets ends with the test."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return request.param


@pytest.fixture
def started(is_forked, tmp_path):
    """Starts workers whose life is code, and returns their launcher."""

    def start(code, num_workers=1, environment=None):
        launcher = launcher_of(code, tmp_path, is_forked=is_forked)
        launcher.start(num_workers, environment or {}, tmp_path)
        _wait_until(lambda: len(launcher.pids) == num_workers)
        return launcher

    return start


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


@pytest.mark.parametrize(("asked", "most"), [(None, 64), ("1", 1), ("1,2", 1), ("64", 64), ("many", 64)])
def test_each_worker_gets_its_rank_its_share_of_cores_and_its_log(started, monkeypatch, asked, most):
    """And the environment that the master gives to all; no more threads than the user asked for."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    code = "import os; print(os.environ['REALRL_RANK'], os.environ['OMP_NUM_THREADS'], os.environ['KEY'])"
    launcher = started(code, 2, {"KEY": "value"})
    _wait_until(lambda: len(launcher.poll()) == 2)
    assert sorted(launcher.poll()) == [(0, 0), (1, 0)]
    threads = min(4, most)
    for rank in range(2):
        assert launcher.log_path(rank).read_text() == f"{rank} {threads} value\n"


def test_a_death_is_seen(started):
    """With the signal that caused it, and the others live on."""
    launcher = started(SLEEP, 2)
    os.kill(launcher.pids[1], signal.SIGKILL)
    _wait_until(launcher.poll)
    assert launcher.poll() == [(1, -signal.SIGKILL)]
    launcher.stop(5.0)
    assert len(launcher.poll()) == 2


def test_the_stubborn_are_killed(started, tmp_path):
    """A worker that ignores SIGTERM ends after the grace."""
    launcher = started(STUBBORN)
    _wait_until(launcher.log_path(0).read_text)
    started_s = time.monotonic()
    launcher.stop(0.5)
    assert launcher.poll() == [(0, -signal.SIGKILL)]
    assert time.monotonic() - started_s < 5


def test_a_workers_children_end_with_it(started, tmp_path):
    """Its whole process group is stopped, even when the worker itself died before."""
    launcher = started(WITH_CHILD)
    _wait_until(launcher.log_path(0).read_text)
    grandchild = int(launcher.log_path(0).read_text())
    os.kill(launcher.pids[0], signal.SIGKILL)
    _wait_until(launcher.poll)
    launcher.stop(1.0)
    _wait_until(lambda: not _is_alive(grandchild))


def test_workers_do_not_outlive_a_killed_master(is_forked, tmp_path):
    """SIGKILL gives the master no chance to clean up: the kernel does it."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux: PR_SET_PDEATHSIG")
    command = [sys.executable, "-c", PARENT, str(tmp_path), str(is_forked)]
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


def test_a_worker_on_cuda_has_segments_that_grow_and_queues_enough(is_forked, tmp_path, monkeypatch):
    """Unless the user chose otherwise, an allocator by either name of the variable; none on a CPU."""
    code = f"import os; print(*map(os.environ.get, {_SET_ON_CUDA}))"

    def said(name, device):
        launcher = launcher_of(code, tmp_path / name, is_forked=is_forked, device=device)
        launcher.start(1, {}, tmp_path / name)
        _wait_until(launcher.poll)
        return launcher.log_path(0).read_text().strip()

    for name in (*_SET_ON_CUDA, "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    assert said("cuda", "cuda") == "expandable_segments:True 0 32 1"
    assert said("cpu", "cpu") == "None None None None"
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "backend:cudaMallocAsync")
    assert said("older", "cuda") == "None 0 32 1"
    for name, value in zip(_SET_ON_CUDA, ("backend:native", "1", "1", "0")):
        monkeypatch.setenv(name, value)
    assert said("given", "cuda") == "backend:native 1 1 0"


FACTS = """
import json, os, random, sys, numpy
facts = {
    "once": sys.modules["once"].ID,
    "parent": os.getppid(),
    "session": os.getsid(0) == os.getpid() == os.getpgid(0),
    "folder": os.getcwd(),
    "input": os.readlink("/proc/self/fd/0"),
    "drawn": [random.random(), float(numpy.random.rand())],
    "threads": len(os.listdir("/proc/self/task")),
    "command": open("/proc/self/cmdline").read().split(chr(0))[1:3],
}
print(json.dumps(facts), flush=True)
print("to stderr", file=sys.stderr)
sys.exit(3 + int(os.environ["REALRL_RANK"]))
"""


def test_forked_workers_are_as_started_ones_but_import_once(tmp_path, monkeypatch):
    """Children of the launcher's process, each with a session, numbers, an output and an exit of its own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "once.py").write_text("import uuid\nID = uuid.uuid4().hex\n")
    launcher = launcher_of(FACTS, tmp_path, is_forked=True, imports=("once", "numpy"))
    launcher.start(3, {}, tmp_path)
    _wait_until(lambda: len(launcher.poll()) == 3)
    assert launcher.poll() == [(0, 3), (1, 4), (2, 5)]
    logs = [launcher.log_path(rank).read_text().splitlines() for rank in range(3)]
    assert [said for _, *said in logs] == [["to stderr"]] * 3
    facts = [json.loads(first) for first, *_ in logs]
    assert len({fact["once"] for fact in facts}) == 1
    drawn = [number for fact in facts for number in fact["drawn"]]
    assert len(set(drawn)) == len(drawn)
    for fact in facts:
        assert fact["parent"] == os.getpid() and fact["session"] and fact["threads"] == 1
        assert fact["folder"] == os.getcwd() and fact["input"] == os.devnull
        assert fact["command"] == ["-m", "life"]
    assert not _children() & set(launcher.pids)


def test_forks_start_anew_where_an_import_has_opened_a_device(tmp_path, monkeypatch):
    """With their ranks and logs, and without what the server has imported."""
    (tmp_path / "opening.py").write_text("import __main__\n__main__._has_opened_cuda = lambda: True\n")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code = "import os, sys; print(os.environ['REALRL_RANK'], os.environ['KEY'], 'opening' in sys.modules)"
    launcher = launcher_of(code, tmp_path, is_forked=True, imports=("opening",))
    launcher.start(2, {"KEY": "value"}, tmp_path)
    _wait_until(lambda: launcher.poll() == [(0, 0), (1, 0)])
    assert [launcher.log_path(rank).read_text() for rank in range(2)] == [
        f"{r} value False\n" for r in range(2)
    ]


def test_a_failed_import_ends_every_worker(tmp_path, monkeypatch):
    """With the server's exit code, and the reason in the first log."""
    (tmp_path / "broken.py").write_text("import sys\nprint('no such device')\nsys.exit(7)\n")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    launcher = launcher_of(SLEEP, tmp_path, is_forked=True, imports=("broken",))
    launcher.start(2, {}, tmp_path)
    _wait_until(launcher.poll)
    assert launcher.poll() == [(0, 7), (1, 7)]
    assert launcher.log_path(0).read_text() == "no such device\n"
    launcher.stop(1.0)


def test_imports_that_last_can_be_seen_and_stopped(tmp_path, monkeypatch):
    """The stack of the process that imports is in the first log; it ends, and no worker comes of it."""
    (tmp_path / "lasting.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    launcher = launcher_of(SLEEP, tmp_path, is_forked=True, imports=("lasting",))
    before = _children()
    launcher.start(2, {}, tmp_path)
    _wait_until(launcher.log_path(0).read_text)
    launcher.dump_stacks()
    _wait_until(lambda: "lasting.py" in launcher.log_path(0).read_text())
    assert launcher.poll() == [] and launcher.states([0, 1]) == {}
    launcher.stop(1.0)
    assert launcher.poll() == [(0, -signal.SIGKILL), (1, -signal.SIGKILL)]
    assert _children() == before


def _children() -> set[int]:
    return set(map(int, Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()))

"""A process that imports what workers need, once, and forks them.

    launcher                      fork server              fork of it         worker
       │ starts ─────────────────▶ │ imports
       │ ForkRequest and a pipe ─▶ │ fork ───────────────▶ │ fork ──────────▶ │ own session, log, variables
       │                           │ waits for its end     │ ends             │ waits for its adoption
       │ adopts the workers        │                                          │
       │ ◀─────────────── rank and pid, through the pipe ──────────────────── │
       │ ◀─────────────── end of the pipe: nobody is left that could report   │ main() of its module
       │ closes the socket ──────▶ │ ends

The workers are children of the launcher's process, as if it had started them: it gets their exit codes, and
the kernel ends them when it ends.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import socket
import struct
import sys
import warnings
from importlib import import_module
from pathlib import Path

import msgspec

from realrl.api.launcher import LOCAL_RANK_VARIABLE, RANK_VARIABLE
from realrl.base.parent import PARENT_VARIABLE, die_with_parent, wait_for_adoption
from realrl.base.processes import show_command

REPORT = struct.Struct("<II")
"""A worker's rank and pid: so short that the kernel never mixes it with another report."""
_REQUEST_BYTES = 1 << 20


class ForkRequest(msgspec.Struct, frozen=True):
    """Workers to fork, one per log file."""

    module: str
    """Its function `main` is a worker's life; it returns the exit code."""
    environment: dict[str, str]
    """Variables of every worker, in addition to the server's."""
    logs: tuple[str, ...]
    """Absolute path of each rank's log file, to which its output is appended."""


def main() -> int:
    """Serve until the launcher closes the socket; in each fork that is a worker, be that worker.

    Arguments: the number of the socket's descriptor, and the modules to import.
    """
    die_with_parent(int(os.environ[PARENT_VARIABLE]))
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    requests = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        import_module(module)
    # Objects that are never collected stay in memory that all workers share.
    gc.freeze()
    worker_module = _serve(requests)
    if worker_module is None:
        return 0
    if _has_opened_cuda():
        # A driver that is initialised does not work in a fork.
        os.execv(sys.executable, [sys.executable, "-m", worker_module])
    sys.argv = [worker_module]
    return import_module(worker_module).main()


def _serve(requests: socket.socket) -> str | None:
    """Fork workers on request; return a worker's module in each of them, and None in the server."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 1)
        if not data:
            return None
        request = msgspec.json.decode(data, type=ForkRequest)
        (reports,) = descriptors
        child = _fork()
        if child == 0:
            requests.close()
            _fork_workers(request, reports)
            return request.module
        os.close(reports)
        os.waitpid(child, 0)


def _fork_workers(request: ForkRequest, reports: int) -> None:
    """Fork every worker and exit, so that the launcher adopts them; return in the workers alone."""
    parent = os.getpid()
    for rank, log in enumerate(request.logs):
        if _fork() == 0:
            _become_worker(rank, request, log)
            wait_for_adoption(parent)
            die_with_parent(int(os.environ[PARENT_VARIABLE]))
            os.write(reports, REPORT.pack(rank, os.getpid()))
            os.close(reports)
            return
    # Nothing is to be cleaned up here: all of it is the server's.
    os._exit(0)


def _fork() -> int:
    """Fork this process, as `os.fork` does."""
    with warnings.catch_warnings():
        # Python warns of threads, but those of NumPy's BLAS end before a fork and start again when needed.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _become_worker(rank: int, request: ForkRequest, log: str) -> None:
    """Give this process what a started worker has of its own."""
    os.setsid()
    with Path(log).open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.update(request.environment)
    # People and tools look for workers by their command.
    show_command([sys.executable, "-m", request.module])
    os.environ[RANK_VARIABLE] = os.environ[LOCAL_RANK_VARIABLE] = str(rank)
    # Python seeds its own generator again after a fork, but NumPy does not.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def _has_opened_cuda() -> bool:
    """Return whether an import has initialised the CUDA driver, which then holds devices open."""
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:  # the descriptor of the folder itself
            continue
        if target.startswith("/dev/nvidia"):
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())

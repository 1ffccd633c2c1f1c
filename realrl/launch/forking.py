"""The launcher's side of a fork server."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from realrl.base.parent import adopt_orphans
from realrl.launch.fork_server import REPORT, ForkRequest

_SERVER = "realrl.launch.fork_server"
_REPORTS = 512
"""Reports that are read at once."""
_ENDS_S = 2.0
"""How long a server may take to end."""
_DIED = 1
"""Exit code of a worker that was not forked, where the server has none that tells more."""


class ForkServer:
    """A process that has imported modules, and forks workers."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Start the server; its own output is appended to `log`."""
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _SERVER, str(theirs.fileno()), *modules],
                env=environment,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def code(self, within_s: float) -> int | None:
        """Return the server's return code; None if it does not end in time."""
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return None

    def request(self, request: ForkRequest) -> int:
        """Request workers; return the descriptor from which their reports are read.

        A server that has ended reports nothing.
        """
        reader, writer = os.pipe()
        with suppress(OSError):  # the server has ended
            socket.send_fds(self._requests, [msgspec.json.encode(request)], [writer])
        os.close(writer)
        return reader

    def close(self) -> None:
        """Let the server end once it has done what was requested."""
        self._requests.close()

    def dump_stack(self) -> None:
        """Have the server write its stack to its log."""
        self._process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        """End the server, and what it has not yet made a worker."""
        self.close()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        # Forks of it that were not workers yet are this process's children now.
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-self.pid, 0)


class AdoptedProcess:
    """A child of this process that another process has forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the return code, as of a `Popen`; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def send_signal(self, sign: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, sign)


class Forking:
    """Workers that a fork server was requested to fork, of which some may not be there yet."""

    def __init__(self, server: ForkServer, request: ForkRequest) -> None:
        self._server = server
        # Workers become children of this process as soon as they are forked.
        adopt_orphans(True)
        self._reports = server.request(request)
        os.set_blocking(self._reports, False)
        self._is_over = False
        self._code: int | None = None
        """The server's, once it is over; None if others may still use the server."""

    def forked(self) -> dict[int, AdoptedProcess]:
        """Return the workers that were forked since the last call, by rank."""
        found: dict[int, AdoptedProcess] = {}
        while not self._is_over:
            try:
                data = os.read(self._reports, _REPORTS * REPORT.size)
            except BlockingIOError:
                break
            for rank, pid in REPORT.iter_unpack(data):
                found[rank] = AdoptedProcess(pid)
            if not data:
                self._end()
        return found

    def failure(self) -> int | None:
        """Return the exit code of those that will never be forked; None if there may be more workers."""
        if not self._is_over:
            return None
        return self._code or _DIED

    def dump_stack(self) -> None:
        """Have the server write its stack, if it is not done."""
        if not self._is_over:
            self._server.dump_stack()

    def cut_short(self, within_s: float) -> dict[int, AdoptedProcess]:
        """End the server, if it is not done; return the workers that were forked since the last call."""
        found = self.forked()
        if self._is_over:
            return found
        self._server.kill()
        deadline_s = time.monotonic() + within_s
        while not self._is_over and time.monotonic() < deadline_s:
            select.select([self._reports], [], [], max(0.0, deadline_s - time.monotonic()))
            found.update(self.forked())
        return found

    def _end(self) -> None:
        self._is_over = True
        adopt_orphans(False)
        os.close(self._reports)
        self._server.close()
        # No ended process is left behind, and what ended it is known.
        self._code = self._server.code(_ENDS_S)

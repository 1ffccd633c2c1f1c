"""One child process that answers requests, with a deadline for each; it may end or stop at any time.

absent ──start──▶ ready ──ask──▶ reply ──▶ ready
            │               │
            │               ├─ no reply in time ──▶ killed: `TimeoutError`, or `Interrupted` if it was stopped
            └─ Interrupted  └─ it, or its fork, ended by another process's signal ──▶ `Interrupted`

The child enforces the deadline of its fork, which judges. The child itself is killed only if it replies late.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from concurrent.futures import Executor
from contextlib import suppress
from typing import IO

from realrl.base.processes import is_stopped
from realrl.base.watching import AttentiveClock
from realrl.rewards.judging import OF_ITS_OWN, Reply

START_DEADLINE_S = 120.0
"""The longest time until a child is ready. Importing sympy takes a second, on a crowded machine more."""
_LAST_S = 1.0
"""The longest time between a child's last output and its end."""
_LOOK_S = 1.0
"""The longest wait in one piece: between two looks, the clock can tell that this process was stopped."""
_GRACE_S = 2.0
"""The time that a child has after its fork's deadline to kill the fork and to reply."""
_CHUNK_BYTES = 1 << 16
"""The largest number of bytes read at once."""
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Variables for libraries that start threads when they are imported: a process that forks must have none."""


class Interrupted(Exception):
    """The child was stopped or ended from outside, perhaps for no reason in the request."""


class ChildProcess:
    """A process that runs a module; it starts with the first request, and again after each kill."""

    def __init__(self, module: str, memory_bytes: int, starter: Executor) -> None:
        """Prepare the child; `starter` has one thread, with which the kernel would end the child."""
        self._module = module
        self._starter = starter
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: Reply, deadline_s: float) -> Reply:
        """Return the child's reply to a request.

        Raises:
            TimeoutError: there was no reply in time; the child is killed.
            Interrupted: the child was stopped or killed, now or while it started.
            EOFError: the child ended by itself.
            RuntimeError: the child cannot start.
        """
        process = self._running()
        try:
            asked = {"deadline_s": deadline_s, "request": request}
            line = json.dumps(asked).encode() + b"\n"
            reply = _exchange(process, line, deadline_s + _GRACE_S)
        except TimeoutError:
            was_stopped = is_stopped(process.pid)
            self.kill()
            if was_stopped:
                raise Interrupted("it was stopped") from None
            raise TimeoutError(f"no reply within {deadline_s:g} s") from None
        except (OSError, EOFError) as error:
            ended_by = _signal_of(process)
            self.kill()
            if ended_by and ended_by not in OF_ITS_OWN:
                raise Interrupted(f"it was ended by {ended_by.name}") from None
            reason = ended_by.name if ended_by else error
            raise EOFError(f"the child ended ({reason})") from None
        if "interrupted" in reply:
            raise Interrupted(reply["interrupted"])
        return reply

    def kill(self) -> None:
        """Kill the child, if it runs, and close the pipes to it."""
        process = self._process
        if process is not None:
            process.kill()
            process.wait()
            for pipe in _pipes(process):
                pipe.close()
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the child; start it if it does not run."""
        if self._process is not None and self._process.poll() is not None:
            self.kill()
        if self._process is None:
            self._process = self._started()
        return self._process

    def _started(self) -> subprocess.Popen[bytes]:
        """Start the child and return it when it is ready."""
        process = self._starter.submit(self._popen).result()
        # `kill` ends the child from here on, also one that is not ready yet.
        self._process = process
        try:
            first = _exchange(process, b"", START_DEADLINE_S)
        except TimeoutError:
            self.kill()
            raise Interrupted(f"it did not start within {START_DEADLINE_S:g} s") from None
        except EOFError as error:
            ended_by = _signal_of(process)
            self.kill()
            if ended_by and ended_by not in OF_ITS_OWN:
                raise Interrupted(f"it was ended by {ended_by.name} as it started") from None
            first = {"error": f"it ended by {ended_by.name}" if ended_by else f"EOFError: {error}"}
        if "error" in first:
            self.kill()
            raise RuntimeError(f"{self._module} did not start: {first['error']}")
        return process

    def _popen(self) -> subprocess.Popen[bytes]:
        """Start the process, in whose environment are no keys of the run."""
        folders = [os.path.abspath(folder) for folder in sys.path]
        process = subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore", "-m", "realrl.rewards.child_entry"),
                *(str(os.getpid()), self._module, str(self._memory_bytes)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "PYTHONPATH": os.pathsep.join(folders),
                "PYTHONIOENCODING": "utf-8",
                # Sets of texts have one order in every child.
                "PYTHONHASHSEED": "0",
                **dict.fromkeys(_ONE_THREAD, "1"),
            },
            start_new_session=True,
        )
        requests, _ = _pipes(process)
        # A child that is stopped reads nothing: writing a long request would block for ever.
        os.set_blocking(requests.fileno(), False)
        return process


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Return this process's ends of the pipes for requests and for replies."""
    assert process.stdin is not None and process.stdout is not None, "a child without pipes"
    return process.stdin, process.stdout


def _exchange(process: subprocess.Popen[bytes], request: bytes, deadline_s: float) -> Reply:
    """Write the request, and return the reply, which is one line.

    Raises:
        TimeoutError: There was no line in time.
        EOFError, BrokenPipeError: The child ended.
    """
    requests, replies = [pipe.fileno() for pipe in _pipes(process)]
    line = b""
    clock = AttentiveClock()
    end_s = clock.now_s() + deadline_s
    while not line.endswith(b"\n"):
        left_s = end_s - clock.now_s()
        if left_s <= 0:
            raise TimeoutError
        wait_s = min(left_s, _LOOK_S)
        to_write = [requests] if request else []
        can_read, can_write, _ = select.select([replies], to_write, [], wait_s)
        if can_write:
            num_written = os.write(requests, request)
            request = request[num_written:]
        if can_read:
            chunk = os.read(replies, _CHUNK_BYTES)
            if not chunk:
                raise EOFError("no more output")
            line += chunk
    return json.loads(line)


def _signal_of(process: subprocess.Popen[bytes]) -> signal.Signals | None:
    """Return the signal that ended a process; None if none did, or it has not ended."""
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(_LAST_S)
        return signal.Signals(-code) if code < 0 else None
    return None

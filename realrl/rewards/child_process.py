"""One child process that answers requests, with a deadline for each, whatever befalls it.

absent ──start──▶ ready ──ask──▶ reply ──▶ ready
            │               │
            │               ├─ no reply in time ──▶ killed: `TimeoutError`, or `Interrupted` if it was stopped
            └─ Interrupted  └─ it, or its fork, ended by a signal of somebody's ──▶ `Interrupted`

The child keeps the deadline of its fork, which judges; it is killed itself only if it is late with that.
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

from realrl.base.processes import is_stopped
from realrl.base.watching import AttentiveClock
from realrl.rewards.judging import OF_ITS_OWN, Reply

START_DEADLINE_S = 120.0
"""Importing sympy takes a second, on a crowded machine more."""
_LAST_S = 1.0
"""How long a child that says nothing more may take to end."""
_LOOK_S = 1.0
"""A wait is cut up, so that the clock can tell the time in which this process was itself stopped."""
_GRACE_S = 2.0
"""How long after its fork's deadline a child may take to kill it and to reply."""
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Of libraries that start threads when they are imported; a process that forks has none."""


class Interrupted(Exception):
    """The child was stopped or ended from outside: the request may have no part in it."""


class ChildProcess:
    """A process of a module, started when first asked and after each kill."""

    def __init__(self, module: str, memory_bytes: int, starter: Executor) -> None:
        """`starter` has one thread, which outlives the child: the kernel ends the child with that thread."""
        self._module, self._starter = module, starter
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: Reply, deadline_s: float) -> Reply:
        """
        Raises:
            TimeoutError: it had no reply in time; it is killed.
            Interrupted: it was stopped or killed, now or while it started.
            EOFError: it ended by itself.
            RuntimeError: it cannot start.
        """
        if self._process is not None and self._process.poll() is not None:
            self.kill()
        if self._process is None:
            self._start()
        try:
            asked = {"deadline_s": deadline_s, "request": request}
            reply = self._exchange(json.dumps(asked).encode() + b"\n", deadline_s + _GRACE_S)
        except TimeoutError:
            was_stopped = is_stopped(self._process.pid)
            self.kill()
            if was_stopped:
                raise Interrupted("it was stopped") from None
            raise TimeoutError(f"no reply within {deadline_s:g} s") from None
        except (OSError, EOFError) as error:
            ended_by = self._signal()
            self.kill()
            if ended_by and ended_by not in OF_ITS_OWN:
                raise Interrupted(f"it was ended by {ended_by.name}") from None
            raise EOFError(f"the child ended ({ended_by.name if ended_by else error})") from None
        if "interrupted" in reply:
            raise Interrupted(reply["interrupted"])
        return reply

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None

    def _start(self) -> None:
        self._process = self._starter.submit(self._popen).result()
        try:
            first = self._exchange(b"", START_DEADLINE_S)
        except TimeoutError:
            self.kill()
            raise Interrupted(f"it did not start within {START_DEADLINE_S:g} s") from None
        except EOFError as error:
            ended_by = self._signal()
            self.kill()
            if ended_by and ended_by not in OF_ITS_OWN:
                raise Interrupted(f"it was ended by {ended_by.name} as it started") from None
            first = {"error": f"it ended by {ended_by.name}" if ended_by else f"EOFError: {error}"}
        if "error" in first:
            self.kill()
            raise RuntimeError(f"{self._module} did not start: {first['error']}")

    def _popen(self) -> subprocess.Popen[bytes]:
        """Only what a Python needs goes into its environment: no keys of the run. The seed orders sets of
        texts alike in every child.
        """
        command = [sys.executable, "-W", "ignore", "-m", "realrl.rewards.child_entry", str(os.getpid())]
        process = subprocess.Popen(
            [*command, self._module, str(self._memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in sys.path),
                "PYTHONIOENCODING": "utf-8",
                "PYTHONHASHSEED": "0",
                **dict.fromkeys(_ONE_THREAD, "1"),
            },
            start_new_session=True,
        )
        # One that is stopped reads nothing: a long request would be written without end.
        os.set_blocking(process.stdin.fileno(), False)
        return process

    def _exchange(self, request: bytes, deadline_s: float) -> Reply:
        """Write the request, and read a line.

        Raises:
            TimeoutError: there was none in time.
            EOFError, BrokenPipeError: the child is gone.
        """
        requests, replies = self._process.stdin.fileno(), self._process.stdout.fileno()
        clock, line = AttentiveClock(), b""
        end_s = clock.now_s() + deadline_s
        while not line.endswith(b"\n"):
            left_s = end_s - clock.now_s()
            if left_s <= 0:
                raise TimeoutError
            can_read, can_write, _ = select.select(
                [replies], [requests] if request else [], [], min(left_s, _LOOK_S)
            )
            if can_write:
                request = request[os.write(requests, request) :]
            if can_read:
                chunk = os.read(replies, 1 << 16)
                if not chunk:
                    raise EOFError("no more output")
                line += chunk
        return json.loads(line)

    def _signal(self) -> signal.Signals | None:
        """The signal that ended the process, if one did."""
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(_LAST_S)
            return signal.Signals(-code) if code < 0 else None
        return None

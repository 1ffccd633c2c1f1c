"""Child processes that answer requests: kept between them, bounded in memory, killed at a deadline."""

from __future__ import annotations

import functools
import json
import logging
import os
import queue
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any, TypeVar

from realrl.rewards.verdict import Verdict

logger = logging.getLogger(__name__)

_LAST_S = 1.0
"""How long a child that says nothing more may take to end."""
START_DEADLINE_S = 120.0
"""Importing sympy takes a second, on a crowded machine more."""

Reply = dict[str, Any]
Pool = TypeVar("Pool", bound="ChildPool")


def judge_in_pool(answer: str, solution: str) -> Verdict:
    """Compare in this process's own pool, whose children start when first asked."""
    return _pool_of(os.getpid()).judge(answer, solution)


@functools.cache
def _pool_of(pid: int) -> JudgePool:
    """A forked process has another id, and so children of its own."""
    return JudgePool()


class ChildPool:
    """Children that may be asked from any thread; they end with this process, or with the `with` block."""

    def __init__(self, module: str, *, num_children: int, deadline_s: float, memory_bytes: int) -> None:
        """`module` is what a child runs, by `realrl.rewards.child.main`; `deadline_s` is wall clock, the most
        for one request; `memory_bytes` the address space of one child.
        """
        self._children = [_Child(module, deadline_s, memory_bytes) for _ in range(num_children)]
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()
        for child in self._children:
            self._idle.put(child)

    def ask(self, request: Reply, *, deadline_s: float | None = None) -> Reply:
        """A child's reply, for which it may have less time than others. One with an `error` has the `verdict`
        `TIMEOUT` or `ERROR` beside it.
        """
        child = self._idle.get()
        try:
            reply = child.ask(request, deadline_s)
        finally:
            self._idle.put(child)
        return {"verdict": Verdict.ERROR, **reply} if "error" in reply else reply

    def close(self) -> None:
        for child in self._children:
            child.kill()

    def __enter__(self: Pool) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class JudgePool(ChildPool):
    """Children that compare answers."""

    def __init__(
        self, *, num_children: int = 2, deadline_s: float = 5.0, memory_bytes: int = 1 << 30
    ) -> None:
        limits = {"deadline_s": deadline_s, "memory_bytes": memory_bytes}
        super().__init__("realrl.rewards.child", num_children=num_children, **limits)

    def judge(self, answer: str, solution: str) -> Verdict:
        """`CORRECT`, `WRONG`, `TIMEOUT` or `ERROR`."""
        reply = self.ask({"answer": answer, "solution": solution})
        if reply["verdict"] == Verdict.ERROR:
            logger.warning("comparing %.200r with %.200r: %s", answer, solution, reply["error"])
        return Verdict(reply["verdict"])


class _Child:
    """One process of a module, started when first asked and after each kill."""

    def __init__(self, module: str, deadline_s: float, memory_bytes: int) -> None:
        self._module = module
        self._deadline_s = deadline_s
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: Reply, deadline_s: float | None) -> Reply:
        """Once more, where the child was killed from outside: the request may have no part in it."""
        deadline_s = deadline_s or self._deadline_s
        for _ in range(2):
            try:
                return self._ask(request, deadline_s)
            except TimeoutError:
                self.kill()
                return {"verdict": Verdict.TIMEOUT, "error": f"no reply within {deadline_s:g} s"}
            except (OSError, EOFError) as error:
                reply = {"error": f"the child ended ({error})"}
                was_killed = self._was_killed()
                self.kill()
                if not was_killed:
                    break
        return reply

    def _was_killed(self) -> bool:
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(_LAST_S) == -signal.SIGKILL
        return False

    def _ask(self, request: Reply, deadline_s: float) -> Reply:
        if self._process is not None and self._process.poll() is not None:
            self.kill()
        if self._process is None:
            self._start()
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return self._read_line(deadline_s)

    def _start(self) -> None:
        """Only what a Python needs goes into its environment: no keys of the run. The seed orders sets of
        texts alike in every child.
        """
        command = [sys.executable, "-W", "ignore", "-m", self._module]
        self._process = subprocess.Popen(
            [*command, str(self._deadline_s), str(self._memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in sys.path),
                "PYTHONIOENCODING": "utf-8",
                "PYTHONHASHSEED": "0",
            },
            start_new_session=True,
        )
        try:
            first = self._read_line(START_DEADLINE_S)
        except (TimeoutError, EOFError) as error:
            if self._was_killed():
                raise EOFError("killed at its start") from None
            first = {"error": f"{type(error).__name__}: {error}"}
        if "error" in first:
            self.kill()
            raise RuntimeError(f"{self._module} did not start: {first['error']}")

    def _read_line(self, deadline_s: float) -> Reply:
        """Raises: TimeoutError, or EOFError when the child is gone."""
        output = self._process.stdout.fileno()
        end, line = time.monotonic() + deadline_s, b""
        while not line.endswith(b"\n"):
            if not select.select([output], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError
            if not (chunk := os.read(output, 1 << 16)):
                raise EOFError("no more output")
            line += chunk
        return json.loads(line)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None

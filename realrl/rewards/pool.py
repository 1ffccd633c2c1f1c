"""Child processes that compare answers: kept between questions, bounded in memory, killed at a deadline."""

from __future__ import annotations

import functools
import json
import logging
import os
import queue
import select
import subprocess
import sys
import time

from realrl.rewards.verdict import Verdict

logger = logging.getLogger(__name__)

START_DEADLINE_S = 120.0
"""Importing sympy takes a second, on a crowded machine more."""


def judge_in_pool(answer: str, solution: str) -> Verdict:
    """Compare in this process's own pool, whose children start when first asked."""
    return _pool_of(os.getpid()).judge(answer, solution)


@functools.cache
def _pool_of(pid: int) -> JudgePool:
    """A forked process has another id, and so children of its own."""
    return JudgePool()


class JudgePool:
    """Children that may be asked from any thread; they end with this process, or with the `with` block."""

    def __init__(
        self, *, num_children: int = 2, deadline_s: float = 5.0, memory_bytes: int = 1 << 30
    ) -> None:
        """`deadline_s` is wall clock, of one comparison; `memory_bytes` the address space of one child."""
        self._children = [_Child(deadline_s, memory_bytes) for _ in range(num_children)]
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()
        for child in self._children:
            self._idle.put(child)

    def judge(self, answer: str, solution: str) -> Verdict:
        """`CORRECT`, `WRONG`, `TIMEOUT` or `ERROR`."""
        child = self._idle.get()
        try:
            return child.judge(answer, solution)
        finally:
            self._idle.put(child)

    def close(self) -> None:
        for child in self._children:
            child.kill()

    def __enter__(self) -> JudgePool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Child:
    """One `realrl.rewards.child` process, started when first asked and after each kill."""

    def __init__(self, deadline_s: float, memory_bytes: int) -> None:
        self._deadline_s = deadline_s
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None

    def judge(self, answer: str, solution: str) -> Verdict:
        try:
            reply = self._ask({"answer": answer, "solution": solution})
        except TimeoutError:
            self.kill()
            return Verdict.TIMEOUT
        except (OSError, EOFError) as error:
            logger.warning("comparing %.200r with %.200r: the child ended (%s)", answer, solution, error)
            self.kill()
            return Verdict.ERROR
        if "error" in reply:
            logger.warning("comparing %.200r with %.200r: %s", answer, solution, reply["error"])
            return Verdict.ERROR
        return Verdict(reply["verdict"])

    def _ask(self, request: dict[str, str]) -> dict:
        if self._process is not None and self._process.poll() is not None:
            self.kill()
        if self._process is None:
            self._start()
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return self._read_line(self._deadline_s)

    def _start(self) -> None:
        """Only what a Python needs goes into its environment: no keys of the run."""
        command = [sys.executable, "-W", "ignore", "-m", "realrl.rewards.child"]
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
            },
            start_new_session=True,
        )
        try:
            self._read_line(START_DEADLINE_S)
        except (TimeoutError, EOFError) as error:
            self.kill()
            raise RuntimeError(
                "realrl.rewards.child did not start; are sympy and latex2sympy2_extended installed?"
            ) from error

    def _read_line(self, deadline_s: float) -> dict:
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

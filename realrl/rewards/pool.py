"""Pools of child processes that answer requests: reused, bounded in memory, killed at a deadline."""

from __future__ import annotations

import functools
import logging
import os
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from realrl.rewards.child_process import ChildProcess, Interrupted, Reply
from realrl.rewards.verdict import Verdict
from realrl.verifier.leniency import USUAL, Leniency

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
"""How many times a request is tried whose child is stopped or killed from outside."""
_LONGEST_REASON = 2_000
"""The most characters of a reason: a process that judged an answer wrote it, so it may be anything."""

Pool = TypeVar("Pool", bound="ChildPool")


def judge_in_pool(answer: str, solution: str, leniency: Leniency = USUAL) -> Verdict:
    """Compare an answer with a solution in this process's pool; children start when first asked."""
    return _pool_of(os.getpid()).judge(answer, solution, leniency)


def explain_in_pool(answer: str, solution: str, leniency: Leniency = USUAL) -> Reasons:
    """Explain a comparison in this process's pool."""
    return _pool_of(os.getpid()).explain(answer, solution, leniency)


@functools.cache
def _pool_of(pid: int) -> JudgePool:
    """Return this process's pool. A forked process has another id, and therefore children of its own."""
    return JudgePool()


class ChildPool:
    """Child processes that any thread may ask; they end with this process, or with the `with` block."""

    def __init__(self, module: str, *, num_children: int, deadline_s: float, memory_bytes: int) -> None:
        """Prepare the children; each starts with its first request.

        A child runs the function `run` of `module`, which calls `realrl.rewards.serving.serve`. `deadline_s`
        bounds the wall-clock time of one request, `memory_bytes` the address space of a child and of each of
        its forks.
        """
        self._deadline_s = deadline_s
        # The kernel ends a child with the thread that started it, so one lasting thread starts them all.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="starts-children")
        self._children: list[ChildProcess] = []
        self._idle: queue.LifoQueue[ChildProcess] = queue.LifoQueue()
        for _ in range(num_children):
            child = ChildProcess(module, memory_bytes, self._starter)
            self._children.append(child)
            self._idle.put(child)

    def ask(self, request: Reply, *, deadline_s: float | None = None) -> Reply:
        """Return an idle child's reply to the request; waits for a child if all are busy.

        `deadline_s` replaces the pool's deadline for this request. A reply with an `error` also has the
        `verdict` `TIMEOUT` or `ERROR`. A process that judged an answer wrote everything else: check it.

        Raises:
            RuntimeError: the child cannot start.
        """
        child = self._idle.get()
        try:
            reply = _asked(child, request, deadline_s or self._deadline_s)
        finally:
            self._idle.put(child)
        if "error" in reply:
            return {"verdict": Verdict.ERROR, **reply}
        return reply

    def close(self) -> None:
        """Kill all children."""
        for child in self._children:
            child.kill()

    def __enter__(self: Pool) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _asked(child: ChildProcess, request: Reply, deadline_s: float) -> Reply:
    """Return a reply, which may be an error; retry if the child was stopped or killed from outside."""
    for _ in range(_ATTEMPTS):
        try:
            return child.ask(request, deadline_s)
        except TimeoutError as error:
            return {"verdict": Verdict.TIMEOUT, "error": str(error)}
        except EOFError as error:
            return {"error": str(error)}
        except Interrupted as interruption:
            logger.warning("a child that judges is replaced: %s", interruption)
            reply = {"error": f"its child was replaced {_ATTEMPTS} times, at last because {interruption}"}
    return reply


class JudgePool(ChildPool):
    """A pool of children that compare mathematical answers."""

    def __init__(
        self, *, num_children: int = 2, deadline_s: float = 5.0, memory_bytes: int = 1 << 30
    ) -> None:
        """Prepare the children, with the limits of `ChildPool`."""
        super().__init__(
            "realrl.rewards.child",
            num_children=num_children,
            deadline_s=deadline_s,
            memory_bytes=memory_bytes,
        )

    def judge(self, answer: str, solution: str, leniency: Leniency = USUAL) -> Verdict:
        """Return `CORRECT`, `WRONG`, `TIMEOUT` or `ERROR`.

        Raises:
            RuntimeError: the child cannot start.
        """
        request = {"answer": answer, "solution": solution, "leniency": leniency.changes()}
        reply = self.ask(request)
        verdict = reply.get("verdict")
        if verdict in (Verdict.CORRECT, Verdict.WRONG, Verdict.TIMEOUT):
            return Verdict(verdict)
        error = reply.get("error", f"a reply without a verdict: {reply!r:.200}")
        logger.warning("comparing %.200r with %.200r: %s", answer, solution, error)
        return Verdict.ERROR

    def explain(self, answer: str, solution: str, leniency: Leniency = USUAL) -> Reasons:
        """Return the reasons for a comparison's verdict; this takes up to about three times as long as it.

        Raises:
            RuntimeError: the child cannot start.
        """
        request = {
            "answer": answer,
            "solution": solution,
            "leniency": leniency.changes(),
            "explain": True,
        }
        reply = self.ask(request)
        reasons = _reasons_in(reply)
        if "error" not in reply and reasons is not None:
            return reasons
        error = reply.get("error", f"a reply without reasons: {reply!r:.200}")
        return Reasons("", "", f"no reasons were found: {error}")


class Reasons(NamedTuple):
    """How two texts were read, and why they are the same or not, in words for the user."""

    answer: str
    solution: str
    why: str


def _reasons_in(reply: Reply) -> Reasons | None:
    """Return the reasons of a reply; None if one is missing, not a text or too long."""
    texts: list[str] = []
    for name in Reasons._fields:
        text = reply.get(name)
        if not isinstance(text, str) or len(text) > _LONGEST_REASON:
            return None
        texts.append(text)
    return Reasons(*texts)

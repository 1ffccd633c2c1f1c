"""Child processes that answer requests: kept between them, bounded in memory, killed at a deadline."""

from __future__ import annotations

import functools
import logging
import os
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from realrl.rewards.child_process import ChildProcess, Interrupted, Reply
from realrl.rewards.verdict import Verdict

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
"""How often a request is made whose child is stopped or killed."""
_LONGEST_REASON = 2_000
"""Characters; it was written where an answer was at work."""

Pool = TypeVar("Pool", bound="ChildPool")


def judge_in_pool(answer: str, solution: str, *, convert_units: bool = True) -> Verdict:
    """Compare in this process's own pool, whose children start when first asked."""
    return _pool_of(os.getpid()).judge(answer, solution, convert_units=convert_units)


def explain_in_pool(answer: str, solution: str, *, convert_units: bool = True) -> Reasons:
    """Explain a comparison in this process's own pool."""
    return _pool_of(os.getpid()).explain(answer, solution, convert_units=convert_units)


@functools.cache
def _pool_of(pid: int) -> JudgePool:
    """A forked process has another id, and so children of its own."""
    return JudgePool()


class ChildPool:
    """Children that may be asked from any thread; they end with this process, or with the `with` block."""

    def __init__(self, module: str, *, num_children: int, deadline_s: float, memory_bytes: int) -> None:
        """`module` has the `run` of a child, which calls `realrl.rewards.serving.serve`; `deadline_s` is wall
        clock, the most for one request; `memory_bytes` the address space of one child, and of each fork.
        """
        self._deadline_s = deadline_s
        # The kernel ends children with the thread that started them, so it is one that stays.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="starts-children")
        self._children = [ChildProcess(module, memory_bytes, self._starter) for _ in range(num_children)]
        self._idle: queue.LifoQueue[ChildProcess] = queue.LifoQueue()
        for child in self._children:
            self._idle.put(child)

    def ask(self, request: Reply, *, deadline_s: float | None = None) -> Reply:
        """A child's reply, for which it may have less time than others. One with an `error` has the `verdict`
        `TIMEOUT` or `ERROR` as well. What else is in it was written where an answer was judged: check it.
        """
        child = self._idle.get()
        try:
            reply = _asked(child, request, deadline_s or self._deadline_s)
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


def _asked(child: ChildProcess, request: Reply, deadline_s: float) -> Reply:
    """A reply, which may be an error. Once more, where the child was stopped or killed from outside."""
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
    """Children that compare answers."""

    def __init__(
        self, *, num_children: int = 2, deadline_s: float = 5.0, memory_bytes: int = 1 << 30
    ) -> None:
        limits = {"deadline_s": deadline_s, "memory_bytes": memory_bytes}
        super().__init__("realrl.rewards.child", num_children=num_children, **limits)

    def judge(self, answer: str, solution: str, *, convert_units: bool = True) -> Verdict:
        """`CORRECT`, `WRONG`, `TIMEOUT` or `ERROR`."""
        reply = self.ask({"answer": answer, "solution": solution, "convert_units": convert_units})
        verdict = reply.get("verdict")
        if verdict in (Verdict.CORRECT, Verdict.WRONG, Verdict.TIMEOUT):
            return Verdict(verdict)
        error = reply.get("error", f"a reply without a verdict: {reply!r:.200}")
        logger.warning("comparing %.200r with %.200r: %s", answer, solution, error)
        return Verdict.ERROR

    def explain(self, answer: str, solution: str, *, convert_units: bool = True) -> Reasons:
        """Why the verdict of a comparison is what it is; it takes up to about three times as long as that."""
        texts = {"answer": answer, "solution": solution}
        reply = self.ask({**texts, "convert_units": convert_units, "explain": True})
        texts = [reply.get(name) for name in Reasons._fields]
        if "error" not in reply and all(map(_is_reason, texts)):
            return Reasons(*texts)
        error = reply.get("error", f"a reply without reasons: {reply!r:.200}")
        return Reasons("", "", f"no reasons were found: {error}")


class Reasons(NamedTuple):
    """How two texts were read, and why they mean the same or not, in words for a person."""

    answer: str
    solution: str
    why: str


def _is_reason(text: object) -> bool:
    return isinstance(text, str) and len(text) <= _LONGEST_REASON

"""Judges answers in forks of this process, which itself never sees an answer at work.

    parent ──fork──▶ fork: confined further, audited
      │                │  ▲
      ├────request─────│──┘
      ◀─────reply──────┘  one flat JSON object, in time
      │
      ├─ no reply in time, or something else, or a batch's last answer ──▶ the fork is killed
      └─ the next answer ──▶ another fork of the same parent

Whatever an answer does to the process that judges it ends with that process, which judges no more than a
batch. A reply counts for its own answer alone, and is checked by whoever asked.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn, Protocol

from realrl.base.confinement import fork_confinement
from realrl.base.parent import die_with_parent
from realrl.base.processes import is_stopped
from realrl.base.watching import AttentiveClock
from realrl.rewards.audit import Audit
from realrl.rewards.lines import lines_of, write_all
from realrl.rewards.verdict import Verdict

Reply = dict[str, Any]

_MOST_BYTES = 1 << 16
"""A reply is a verdict or a number; a longer one is none."""
_LOOK_S = 1.0
OF_ITS_OWN = (
    *(signal.SIGXCPU, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT),
    *(signal.SIGFPE, signal.SIGILL, signal.SIGSYS),
)
"""Signals that an answer brings about; others are sent by somebody, or by a system without memory."""


class Batch(NamedTuple):
    """Answers that one process may judge one after another."""

    name: str
    """Answers of other batches are judged elsewhere."""
    size: int
    """How many there may be."""


class Judge(Protocol):
    """Decides about answers. It is made once, with all that it imports, before there is an answer."""

    evaluators: Sequence[Callable[..., object]]
    """The functions within which a text may be evaluated as Python, as it was checked there."""

    def prepared(self, request: Reply) -> Reply | None:
        """The reply to a request that has no answer in it, or none that needs judging; else None. It must not
        depend on an answer.
        """

    def batch(self, request: Reply) -> Batch:
        """The answers that one fork may judge together with this one."""

    def judged(self, request: Reply) -> Reply:
        """The reply to a request with an answer."""


class _Fork(NamedTuple):
    """A process that judges, and this process's ends of the pipes to it."""

    pid: int
    requests: int
    replies: int


class Forks:
    """Has a judge decide in forks of this process, of which there is at most one at a time."""

    def __init__(self, judge: Judge, asked: int) -> None:
        """`asked` is where requests come to this process: at its end a fork is ended too.

        Raises:
            RuntimeError: this process has threads, whose locks a fork would inherit as they are.
        """
        threads = len(os.listdir("/proc/self/task"))
        if threads != 1:
            raise RuntimeError(f"expected one thread before answers are judged, found {threads}")
        self._judge, self._asked = judge, asked
        self._confine = fork_confinement()
        self._nowhere = os.open(os.devnull, os.O_RDONLY)
        self._fork: _Fork | None = None
        self._batch, self._answers_left = "", 0
        # What was made so far is never garbage; a collection in a fork would copy all of its pages.
        gc.collect()
        gc.freeze()

    def judged(self, request: Reply, deadline_s: float) -> Reply:
        """The judge's reply; or one with an `error`, with a `verdict` where that is known, or with
        `interrupted` if somebody else stopped or killed the fork.
        """
        batch = self._judge.batch(request)
        if batch.name != self._batch:
            self.end()
        if self._fork is None:
            self._fork = self._start()
            self._batch, self._answers_left = batch
        self._answers_left -= 1
        try:
            line = self._exchanged(json.dumps(request).encode() + b"\n", deadline_s)
        except TimeoutError:
            was_stopped = is_stopped(self._fork.pid)
            self.end()
            if was_stopped:
                return {"interrupted": "it was stopped"}
            return {"verdict": Verdict.TIMEOUT, "error": f"no reply within {deadline_s:g} s"}
        except EOFError:
            return _lost(self.end())
        reply = _reply(line)
        if reply is None or not self._answers_left:
            self.end()
        return reply or {"error": f"expected a reply, got {line!r:.100}"}

    def _start(self) -> _Fork:
        (theirs_in, requests), (replies, theirs_out) = os.pipe(), os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._judge_and_end(parent, theirs_in, theirs_out)
        os.close(theirs_in)
        os.close(theirs_out)
        return _Fork(pid, requests, replies)

    def end(self) -> int:
        """Kill the fork, if there is one and it lives, and return the status that it ended with."""
        if self._fork is None:
            return 0
        pid, requests, replies = self._fork
        self._fork = None
        os.close(requests)
        os.close(replies)
        # This changes nothing about how one ended that has begun to.
        os.kill(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1]

    def _exchanged(self, request: bytes, deadline_s: float) -> bytes:
        """Write the request; read until a line ends, or is too long to be a reply.

        Raises:
            TimeoutError: that was not in time.
            EOFError: the fork ended.
            SystemExit: nobody waits for the reply any more.
        """
        _, requests, replies = self._fork
        clock, line = AttentiveClock(), b""
        end_s = clock.now_s() + deadline_s
        while (left_s := end_s - clock.now_s()) > 0:
            writes = [requests] if request else []
            reads, can_write, _ = select.select([replies, self._asked], writes, [], min(left_s, _LOOK_S))
            if self._asked in reads:  # its end: no request comes before the reply to the last
                self.end()
                sys.exit("nobody waits for the reply")
            if can_write:
                with suppress(BrokenPipeError):
                    request = request[os.write(requests, request[: select.PIPE_BUF]) :]
            if reads:
                chunk = os.read(replies, _MOST_BYTES)
                if not chunk:
                    raise EOFError
                line += chunk
                if line.endswith(b"\n") or len(line) > _MOST_BYTES:
                    return line
        raise TimeoutError

    def _judge_and_end(self, parent: int, requests: int, replies: int) -> NoReturn:
        """The fork, which has nothing but its pipes; what a library prints goes nowhere.

        It ends without a reply when it is out of memory: after that it is in no known state.
        """
        code = 1
        try:
            die_with_parent(parent)
            _keep_only((requests, replies), self._nowhere)
            self._confine()
            audit = Audit(self._judge.evaluators)
            for line in lines_of(requests):
                write_all(replies, json.dumps(self._judged_here(line, audit)).encode() + b"\n")
            code = 0
        finally:
            os._exit(code)

    def _judged_here(self, line: bytes, audit: Audit) -> Reply:
        """The judge's reply, unless it asked for what judging has no need of. A failure is a reply, too."""
        audit.refused = ""
        try:
            reply = self._judge.judged(json.loads(line))
        except MemoryError:
            raise
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"[:300]}
        return {"error": audit.refused} if audit.refused else reply


def _keep_only(files: Sequence[int], nowhere: int) -> None:
    """Close every other file, standard ones too: requests and replies of others are among them."""
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    begin = 3
    for file in sorted(files):
        os.closerange(begin, file)
        begin = file + 1
    os.closerange(begin, os.sysconf("SC_OPEN_MAX"))


def _reply(line: bytes) -> Reply | None:
    """What a fork wrote, if it is one flat JSON object that is not empty."""
    if len(line) > _MOST_BYTES:
        return None
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(reply, dict) or any(isinstance(value, dict | list) for value in reply.values()):
        return None
    return reply or None


def _lost(status: int) -> Reply:
    """The reply for a fork that left none: it crashed, ran out of memory or was killed."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return {"error": "its process left no reply, as when it runs out of memory"}
    ended_by = signal.Signals(-code)
    what = f"it was ended by {ended_by.name}"
    return {"error": what} if ended_by in OF_ITS_OWN else {"interrupted": what}

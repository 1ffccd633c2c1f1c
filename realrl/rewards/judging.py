"""Judges answers in forks of this process, which itself never sees an answer at work.

    parent ──fork──▶ fork: confined further, audited
      │                │  ▲
      ├────request─────│──┘
      ◀─────reply──────┘  one flat JSON object, in time
      │
      ├─ no reply in time, or something else, or a batch's last answer ──▶ the fork is killed
      └─ the next answer ──▶ another fork of the same parent

An answer can change only the process that judges it, which ends after a batch. A reply counts for its own
answer alone, and is checked by the process that asked.
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
"""The largest number of bytes of a reply, which is a verdict or a number."""
_LONGEST_ERROR = 300
"""The largest number of characters of an error in a reply."""
_LOOK_S = 1.0
"""The longest wait in one piece: between two looks, the clock can tell that this process was stopped."""
OF_ITS_OWN = frozenset(
    (
        *(signal.SIGXCPU, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT),
        *(signal.SIGFPE, signal.SIGILL, signal.SIGSYS),
    )
)
"""Signals that an answer can cause; another process sends others, or a system without memory."""


class Batch(NamedTuple):
    """Answers that one process may judge one after another."""

    name: str
    """The name that the answers of the batch have in common; another name needs another process."""
    size: int
    """The largest number of answers."""


class Judge(Protocol):
    """Judges answers. It is made once, with all that it imports, before the first answer."""

    evaluators: Sequence[Callable[..., object]]
    """The functions that may evaluate a text as Python, as they check it first."""

    def prepared(self, request: Reply) -> Reply | None:
        """Return the reply to a request without an answer to judge; None for any other request.

        The reply must not depend on an answer.
        """

    def batch(self, request: Reply) -> Batch:
        """Return the batch of a request: its answers may be judged by one fork."""

    def judged(self, request: Reply) -> Reply:
        """Return the reply to a request with an answer."""


class _Fork(NamedTuple):
    """A process that judges, and this process's ends of the pipes to it."""

    pid: int
    requests: int
    replies: int


class Forks:
    """Judges answers in forks of this process, of which there is at most one at a time."""

    def __init__(self, judge: Judge, asked: int) -> None:
        """Prepare the forks; `asked` is the file of this process's requests, with whose end a fork ends, too.

        Raises:
            RuntimeError: this process has threads, whose locks a fork would inherit as they are.
        """
        threads = os.listdir("/proc/self/task")
        if len(threads) != 1:
            raise RuntimeError(f"expected one thread before answers are judged, found {len(threads)}")
        self._judge = judge
        self._asked = asked
        self._confine = fork_confinement()
        self._nowhere = os.open(os.devnull, os.O_RDONLY)
        self._fork: _Fork | None = None
        # The name of the fork's batch, and how many answers more the fork may judge.
        self._batch = ""
        self._answers_left = 0
        # The objects made so far are never garbage; a collection in a fork would copy all of their pages.
        gc.collect()
        gc.freeze()

    def judged(self, request: Reply, deadline_s: float) -> Reply:
        """Return the judge's reply, or one about its failure.

        That has an `error`, with a `verdict` if it is known, or `interrupted` if another process stopped or
        killed the fork.
        """
        fork = self._fork_for(request)
        self._answers_left -= 1
        try:
            asked = json.dumps(request).encode() + b"\n"
            line = self._exchanged(fork, asked, deadline_s)
        except TimeoutError:
            was_stopped = is_stopped(fork.pid)
            self.end()
            if was_stopped:
                return {"interrupted": "it was stopped"}
            return {"verdict": Verdict.TIMEOUT, "error": f"no reply within {deadline_s:g} s"}
        except EOFError:
            status = self.end()
            return _lost(status)
        reply = _reply(line)
        if reply is None or not self._answers_left:
            self.end()
        return reply or {"error": f"expected a reply, got {line!r:.100}"}

    def _fork_for(self, request: Reply) -> _Fork:
        """Return the fork that judges a request's batch; start it if it does not run."""
        batch = self._judge.batch(request)
        if batch.name != self._batch:
            self.end()
        if self._fork is None:
            self._fork = self._start()
            self._batch = batch.name
            self._answers_left = batch.size
        return self._fork

    def _start(self) -> _Fork:
        requests_of_fork, requests = os.pipe()
        replies, replies_of_fork = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._judge_and_end(parent, requests_of_fork, replies_of_fork)
        os.close(requests_of_fork)
        os.close(replies_of_fork)
        return _Fork(pid, requests, replies)

    def end(self) -> int:
        """Kill the fork, if there is one, and return the status that it ended with."""
        if self._fork is None:
            return 0
        pid, requests, replies = self._fork
        self._fork = None
        os.close(requests)
        os.close(replies)
        # A fork that has ended already keeps its status.
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        return status

    def _exchanged(self, fork: _Fork, request: bytes, deadline_s: float) -> bytes:
        """Write the request, and return the reply, which is one line or too long to be a reply.

        Raises:
            TimeoutError: There was no reply in time.
            EOFError: The fork ended.
            SystemExit: No process waits for the reply any more.
        """
        line = b""
        clock = AttentiveClock()
        end_s = clock.now_s() + deadline_s
        while (left_s := end_s - clock.now_s()) > 0:
            to_read = [fork.replies, self._asked]
            to_write = [fork.requests] if request else []
            wait_s = min(left_s, _LOOK_S)
            can_read, can_write, _ = select.select(to_read, to_write, [], wait_s)
            # No request comes before the reply to the last one, so this is the end of the file.
            if self._asked in can_read:
                self.end()
                sys.exit("nobody waits for the reply")
            if can_write:
                with suppress(BrokenPipeError):
                    num_written = os.write(fork.requests, request[: select.PIPE_BUF])
                    request = request[num_written:]
            if can_read:
                chunk = os.read(fork.replies, _MOST_BYTES)
                if not chunk:
                    raise EOFError
                line += chunk
                if line.endswith(b"\n") or len(line) > _MOST_BYTES:
                    return line
        raise TimeoutError

    def _judge_and_end(self, parent: int, requests: int, replies: int) -> NoReturn:
        """Run the fork, which has no files but its pipes; the output of libraries is lost.

        It ends without a reply when it is out of memory: after that its state is unknown.
        """
        code = 1
        try:
            die_with_parent(parent)
            _keep_only((requests, replies), self._nowhere)
            self._confine()
            audit = Audit(self._judge.evaluators)
            for line in lines_of(requests):
                reply = self._judged_here(line, audit)
                write_all(replies, json.dumps(reply).encode() + b"\n")
            code = 0
        finally:
            os._exit(code)

    def _judged_here(self, line: bytes, audit: Audit) -> Reply:
        """Return the judge's reply, or an error if it failed or the audit refused an action."""
        audit.refused = ""
        try:
            reply = self._judge.judged(json.loads(line))
        except MemoryError:
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            reply = {"error": message[:_LONGEST_ERROR]}
        return {"error": audit.refused} if audit.refused else reply


def _keep_only(files: Sequence[int], nowhere: int) -> None:
    """Close all other files, among which are the requests and replies of other processes.

    The standard files become `nowhere`.
    """
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    begin = 3
    for file in sorted(files):
        os.closerange(begin, file)
        begin = file + 1
    os.closerange(begin, os.sysconf("SC_OPEN_MAX"))


def _reply(line: bytes) -> Reply | None:
    """Return a fork's output if it is one flat JSON object that is not empty; else None."""
    if len(line) > _MOST_BYTES:
        return None
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(reply, dict) or not reply:
        return None
    is_nested = any(isinstance(value, dict | list) for value in reply.values())
    return None if is_nested else reply


def _lost(status: int) -> Reply:
    """Return the reply for a fork that left none: it crashed, ran out of memory or was killed."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return {"error": "its process left no reply, as when it runs out of memory"}
    ended_by = signal.Signals(-code)
    what = f"it was ended by {ended_by.name}"
    return {"error": what} if ended_by in OF_ITS_OWN else {"interrupted": what}

"""Runs a function in a fork of this process, with a deadline for each of its steps and a limit on its memory.

Code that a stranger's file can make run forever, or take all memory, runs here: no exception could end it.

    this process                              the fork
        │ fork ───────────────────────────────▶ │ work(steps)
        │                                       │   with steps.doing("…"):   writes the beacon, shared memory
        │ looks at the beacon: is one step      │       …
        │ taking too long? kill, TimeoutError   │
        │ ◀──────────────── result or error ────│ exits without cleaning up, which is the parent's
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import struct
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from realrl.base.parent import die_with_parent

Result = TypeVar("Result")

_LOOK_EVERY_S = 0.2
_WORDS_BYTES = 400
_HEAD = struct.Struct("<QI")
"""The number of steps begun or ended, and the bytes of the words; in a step it is odd."""


class Steps:
    """The current step of a fork, in memory that it shares with its parent."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _HEAD.size + _WORDS_BYTES)

    @contextmanager
    def doing(self, words: str) -> Iterator[None]:
        """Mark a step, which has a deadline of its own."""
        self._write(words)
        try:
            yield
        finally:
            self._write("")

    def read(self) -> tuple[int, str]:
        """Return how many steps have begun or ended, and the current one's words; empty between steps."""
        number, size = _HEAD.unpack_from(self._memory)
        stop = _HEAD.size + size
        text = self._memory[_HEAD.size : stop]
        return number, text.decode(errors="replace")

    def _write(self, words: str) -> None:
        number, _ = _HEAD.unpack_from(self._memory)
        encoded = words.encode(errors="replace")
        text = encoded[:_WORDS_BYTES]
        stop = _HEAD.size + len(text)
        self._memory[_HEAD.size : stop] = text
        _HEAD.pack_into(self._memory, 0, number + 1, len(text))


_REFUSED = "refused"
_OUT_OF_MEMORY = "out of memory"
_FAILED = "failed"


class _Outcome(msgspec.Struct):
    """The result or the error of a fork."""

    result: bytes = b""
    error: str = ""
    """The kind of the error; empty for none."""
    message: str = ""
    traceback: str = ""


def run_watched(work: Callable[[Steps], Result], result_type: type[Result], *, step_s: float) -> Result:
    """Run `work` in a fork of this process, and return its result, which msgspec decodes as `result_type`.

    A step that takes longer than `step_s` ends it. It may take as much memory as the machine has left.

    Raises:
        ValueError, MemoryError: `work` raised it.
        TimeoutError: a step took too long; the message is the step's words.
        ChildProcessError: `work` raised another error, or the fork died; the message names the error, or the
            way and the step in which it died.
    """
    steps = Steps()
    receiver, sender = Pipe(duplex=False)
    parent = os.getpid()
    with warnings.catch_warnings():
        # Other threads' locks stay locked in a fork, but `work` takes none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()

    if child == 0:
        _live(work, steps, sender, parent)
    sender.close()
    with receiver:
        try:
            outcome = _outcome(receiver, steps, step_s)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise

    _, status = os.waitpid(child, 0)
    if outcome is None:
        raise ChildProcessError(_death(os.waitstatus_to_exitcode(status), steps))
    if outcome.error:
        raise _error(outcome) from RuntimeError(outcome.traceback)
    return msgspec.msgpack.decode(outcome.result, type=result_type)


def _live(work: Callable[[Steps], Any], steps: Steps, sender: Connection, parent: int) -> None:
    """Run the fork, and end it; does not return."""
    code = 1
    try:
        die_with_parent(parent)
        # The parent gets SIGINT, too, and ends this process.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # The parent's handler must not run here as well.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _limit_memory()
        outcome = _carried_out(work, steps)
        sender.send_bytes(msgspec.msgpack.encode(outcome))
        code = 0
    finally:
        os._exit(code)


def _carried_out(work: Callable[[Steps], Any], steps: Steps) -> _Outcome:
    try:
        return _Outcome(msgspec.msgpack.encode(work(steps)))
    except BaseException as error:
        # Extensions that panic raise errors that are no Exception.
        return _described(error, traceback.format_exc())


def _described(error: BaseException, where: str) -> _Outcome:
    """Return an error as text: two kinds are raised again as they are, others with their names."""
    if isinstance(error, ValueError):
        return _Outcome(error=_REFUSED, message=str(error), traceback=where)
    if isinstance(error, MemoryError):
        return _Outcome(error=_OUT_OF_MEMORY, message=str(error), traceback=where)
    message = f"{type(error).__name__}: {error}"
    return _Outcome(error=_FAILED, message=message, traceback=where)


def _error(outcome: _Outcome) -> Exception:
    """Return the error to raise in this process."""
    if outcome.error == _REFUSED:
        return ValueError(outcome.message)
    if outcome.error == _OUT_OF_MEMORY:
        return MemoryError(outcome.message)
    return ChildProcessError(outcome.message)


def _outcome(receiver: Connection, steps: Steps, step_s: float) -> _Outcome | None:
    """Return what the fork sends; None if it died."""
    number = -1
    since_s = 0.0
    while not receiver.poll(_LOOK_EVERY_S):
        now_number, words = steps.read()
        now_s = time.monotonic()
        if now_number != number or not words:
            number = now_number
            since_s = now_s
        elif now_s - since_s > step_s:
            raise TimeoutError(words)

    try:
        return msgspec.msgpack.decode(receiver.recv_bytes(), type=_Outcome)
    except EOFError:
        return None


def _death(code: int, steps: Steps) -> str:
    """Describe how the fork died, and in which step."""
    if code >= 0:
        how = f"ended with code {code}"
    else:
        how = f"was ended by {signal.Signals(-code).name}"

    _, words = steps.read()
    if not words:
        return how
    return f"{how} within {words}"


def _limit_memory() -> None:
    """Limit memory to what the process has and the machine has left, so that no other process suffers."""
    held = _bytes_of("VmData:", "/proc/self/status")
    available = _bytes_of("MemAvailable:", "/proc/meminfo")
    wanted = held + available
    # Only data is limited: mapped files, such as those of large datasets, take no memory of their own.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def _bytes_of(name: str, file: str) -> int:
    """Return a number of one of the kernel's files, which count in KiB, in bytes."""
    text = Path(file).read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith(name):
            _, kib, *_ = line.split()
            return int(kib) << 10
    raise LookupError(f"{file} has no {name}")

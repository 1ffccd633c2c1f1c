"""Runs a function in a fork of this process, with a deadline for each step of it and a limit to its memory.

What a stranger's file can have run without end, or eat all memory, runs here: no exception could end it.

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
    """What a fork is doing, in memory that it shares with its parent."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _HEAD.size + _WORDS_BYTES)

    @contextmanager
    def doing(self, words: str) -> Iterator[None]:
        """Mark a step that has a deadline of its own."""
        self._write(words)
        try:
            yield
        finally:
            self._write("")

    def read(self) -> tuple[int, str]:
        """How many steps began or ended, and the words of the one that goes on; empty between steps."""
        number, size = _HEAD.unpack_from(self._memory)
        return number, self._memory[_HEAD.size : _HEAD.size + size].decode(errors="replace")

    def _write(self, words: str) -> None:
        number, _ = _HEAD.unpack_from(self._memory)
        text = words.encode(errors="replace")[:_WORDS_BYTES]
        self._memory[_HEAD.size : _HEAD.size + len(text)] = text
        _HEAD.pack_into(self._memory, 0, number + 1, len(text))


_REFUSED, _OUT_OF_MEMORY, _FAILED = "refused", "out of memory", "failed"


class _Outcome(msgspec.Struct):
    """What a fork ended with."""

    result: bytes = b""
    error: str = ""
    """Its kind; empty for none."""
    message: str = ""
    traceback: str = ""


def run_watched(work: Callable[[Steps], Result], result_type: type[Result], *, step_s: float) -> Result:
    """Return what `work` returns, in a fork of this process: data that msgspec decodes as `result_type`.

    A step that takes longer than `step_s` ends it. It may take as much memory as the machine has left.

    Raises:
        ValueError, MemoryError: as `work` does.
        TimeoutError: a step took too long; the message is the step's words.
        ChildProcessError: `work` raised another error, or the fork died; the message says which, or how and
            within which step.
    """
    steps, (receiver, sender) = Steps(), Pipe(duplex=False)
    parent = os.getpid()
    with warnings.catch_warnings():
        # Other threads' locks stay locked in a fork; what it runs takes none of theirs.
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
    """The life of the fork; does not return."""
    code = 1
    try:
        die_with_parent(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends this process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what the parent's handler says is said by the parent
        _limit_memory()
        sender.send_bytes(msgspec.msgpack.encode(_carried_out(work, steps)))
        code = 0
    finally:
        os._exit(code)


def _carried_out(work: Callable[[Steps], Any], steps: Steps) -> _Outcome:
    try:
        return _Outcome(msgspec.msgpack.encode(work(steps)))
    except BaseException as error:  # also what extensions raise that panic
        return _described(error, traceback.format_exc())


def _described(error: BaseException, where: str) -> _Outcome:
    """An error as text: of two kinds that are raised again, or of others, with their names."""
    for kind, error_type in ((_REFUSED, ValueError), (_OUT_OF_MEMORY, MemoryError)):
        if isinstance(error, error_type):
            return _Outcome(error=kind, message=str(error), traceback=where)
    return _Outcome(error=_FAILED, message=f"{type(error).__name__}: {error}", traceback=where)


def _error(outcome: _Outcome) -> Exception:
    kinds = {_REFUSED: ValueError, _OUT_OF_MEMORY: MemoryError, _FAILED: ChildProcessError}
    return kinds[outcome.error](outcome.message)


def _outcome(receiver: Connection, steps: Steps, step_s: float) -> _Outcome | None:
    """What the fork sends; None where it died."""
    number, since_s = -1, 0.0
    while not receiver.poll(_LOOK_EVERY_S):
        now_number, words = steps.read()
        now_s = time.monotonic()
        if now_number != number or not words:
            number, since_s = now_number, now_s
        elif now_s - since_s > step_s:
            raise TimeoutError(words)
    try:
        return msgspec.msgpack.decode(receiver.recv_bytes(), type=_Outcome)
    except EOFError:
        return None


def _death(code: int, steps: Steps) -> str:
    how = f"ended with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
    _, words = steps.read()
    return f"{how} within {words}" if words else how


def _limit_memory() -> None:
    """To what the process has and what the machine has left, so that greed fails here and harms no other."""
    wanted = _bytes_of("VmData:", "/proc/self/status") + _bytes_of("MemAvailable:", "/proc/meminfo")
    # Of data alone: files that are mapped, as those of large datasets, take no memory of their own.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def _bytes_of(name: str, file: str) -> int:
    """A number of one of the kernel's files, which count in KiB."""
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

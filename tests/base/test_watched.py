"""Work in a fork: its result, its errors, its deadline and its memory."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from realrl.base.watched import Steps, run_watched


def test_what_it_returns_and_raises_reaches_the_parent():
    here = os.getpid()
    assert run_watched(lambda steps: [os.getpid() != here], list[bool], step_s=9) == [True]

    def fail(steps: Steps) -> None:
        raise ValueError("row 3")

    with pytest.raises(ValueError, match="^row 3$") as caught:
        run_watched(fail, type(None), step_s=9)
    assert "in fail" in str(caught.value.__cause__), "where it was raised is known"


def test_other_errors_are_told():
    """Those of no module, and panics of extensions, which are no `Exception`."""
    for base in (Exception, BaseException):
        odd = type("Odd", (base,), {})

        def fail(steps: Steps, odd=odd) -> None:
            raise odd("here")

        with pytest.raises(ChildProcessError, match="^Odd: here$"):
            run_watched(fail, type(None), step_s=9)


def test_a_step_without_end_is_ended_and_named():
    """Also where no signal handler would run: within one operation on a number."""
    begun_s = time.monotonic()

    def never(steps: Steps) -> None:
        with steps.doing("the first"):
            pass
        with steps.doing("the second"):
            pow(10, 10**9)

    with pytest.raises(TimeoutError, match="^the second$"):
        run_watched(never, type(None), step_s=0.5)
    assert time.monotonic() - begun_s < 30


def test_many_steps_may_take_long_together():
    """And so may what is between them."""

    def slow(steps: Steps) -> str:
        for _ in range(3):
            with steps.doing("a step"):
                time.sleep(0.3)
        time.sleep(1.0)
        return "done"

    assert run_watched(slow, str, step_s=0.8) == "done"


def test_a_death_is_told():
    def die(steps: Steps) -> None:
        with steps.doing("the last step"):
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ChildProcessError, match="^was ended by SIGKILL within the last step$"):
        run_watched(die, type(None), step_s=9)


def test_greed_for_memory_fails_here():
    """Before the system, which lends more than it has left, has to end a process."""
    sizes = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, left = (int(sizes[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))

    def hoard(steps: Steps) -> None:
        bytearray(left + max(1 << 28, (total - left) // 2))

    with pytest.raises(MemoryError):
        run_watched(hoard, type(None), step_s=9)


def test_no_fork_is_left(monkeypatch):
    """Whatever ends the wait for it."""
    forks, fork = [], os.fork
    monkeypatch.setattr(os, "fork", lambda: forks.append(fork()) or forks[-1])
    monkeypatch.setattr("realrl.base.watched._outcome", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run_watched(lambda steps: time.sleep(60), type(None), step_s=9)
    with pytest.raises(ProcessLookupError):
        os.kill(forks[0], 0)

"""Runs probes in child processes and collects what they find, whatever becomes of the children.

parent                              child of MODULE
  │ start ────────────────────────────▶ │
  │ ◀─── begins NAME, its deadline ──── │ looks
  │ ◀─── finding ... ────────────────── │
  │ ◀─── begins NEXT ... ────────────── │
  │ ◀─── ends ───────────────────────── │
  │
  │ the deadline is over, or the child is dead: NAME is a problem, and a new child begins behind it
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import msgspec

from realrl.apps.doctor.finding import Finding, problem
from realrl.base.parent import PARENT_VARIABLE

_CHILD = "realrl.apps.doctor.probe_process"
_START_DEADLINE_S = 20.0
"""For an interpreter to start and to import a module of probes."""


def probe_all(modules: Sequence[str]) -> list[Finding]:
    """The findings of the probes of several modules, in the order of these; the modules run side by side."""
    found: dict[str, list[Finding]] = {module: [] for module in modules}
    children = {module: _Child(module, 0) for module in modules}
    try:
        while children:
            _wait(list(children.values()))
            for module, child in list(children.items()):
                found[module] += child.read()
                if child.is_over():
                    child.end()
                    found[module] += child.troubles()
                    del children[module]
                    if (index := child.next_index()) is not None:
                        children[module] = _Child(module, index)
    finally:
        for child in children.values():
            child.end()
    return [finding for findings in found.values() for finding in findings]


def _wait(children: Sequence[_Child]) -> None:
    """Until one of them has something to say, or one's deadline is over."""
    left_s = min(child.left_s() for child in children)
    select.select(children, [], [], max(0.0, left_s))


class _Child:
    """A child process, from one of its module's probes on."""

    def __init__(self, module: str, index: int) -> None:
        self._module, self._index, self._num_begun = module, index, 0
        self._name, self._deadline_s = module.rpartition(".")[2], _START_DEADLINE_S
        self._heard_s, self._rest = time.monotonic(), b""
        self._has_ended, self._is_closed = False, False
        self._pipe, writing = os.pipe()
        self._process = subprocess.Popen(
            [*_command(module), str(writing), str(index)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[writing],
            start_new_session=True,
            env={**os.environ, PARENT_VARIABLE: str(os.getpid())},
        )
        os.close(writing)

    def fileno(self) -> int:
        return self._pipe

    def left_s(self) -> float:
        return self._heard_s + self._deadline_s - time.monotonic()

    def read(self) -> list[Finding]:
        """The findings that have come meanwhile."""
        if not select.select([self], [], [], 0)[0]:
            return []
        content = os.read(self._pipe, 1 << 16)
        self._is_closed = not content
        *lines, self._rest = (self._rest + content).split(b"\n")
        found = (self._understand(msgspec.json.decode(line)) for line in lines)
        return [finding for finding in found if finding]

    def _understand(self, line: dict) -> Finding | None:
        self._heard_s = time.monotonic()
        match line:
            case {"begins": name, "deadline_s": deadline_s}:
                self._name, self._deadline_s = name, deadline_s
                self._num_begun += 1
            case {"ends": _}:
                self._has_ended = True
            case _:
                return msgspec.convert(line, Finding)
        return None

    def is_over(self) -> bool:
        return self._has_ended or self._is_closed or self.left_s() <= 0

    def end(self) -> None:
        """Kill the child, if it lives, and all that it started."""
        if self._is_closed and not self._has_ended:
            # It is about to end by itself: how, is what has to be said of it.
            self._wait_for_end(within_s=1.0)
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        os.close(self._pipe)

    def _wait_for_end(self, within_s: float) -> None:
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            pass

    def troubles(self) -> list[Finding]:
        """The hang or the death of a child that is over before its end; nothing for others."""
        if self._has_ended:
            return []
        code = self._process.returncode
        if not self._is_closed:
            what = f"did not end within {self._deadline_s:g} s"
        else:
            what = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        index = self._index + max(0, self._num_begun - 1)
        command = " ".join([*_command(self._module), "1", str(index)])
        means = "runs may hang or die in the same way"
        return [problem(self._name, f"the check {what}", means, f"see what it says alone: {command}")]

    def next_index(self) -> int | None:
        """Where another child has to begin; None if there is no need, or no sense as not even one began."""
        return None if self._has_ended or not self._num_begun else self._index + self._num_begun


def _command(module: str) -> list[str]:
    return [sys.executable, "-m", _CHILD, module]

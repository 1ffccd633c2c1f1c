"""Runs probes in child processes and collects what they find, even if a child hangs or dies.

parent                              child of MODULE
  │ start ────────────────────────────▶ │
  │ ◀─── begins NAME, its deadline ──── │ looks
  │ ◀─── finding ... ────────────────── │
  │ ◀─── begins NEXT ... ────────────── │
  │ ◀─── ends ───────────────────────── │
  │
  │ the deadline is over, or the child is dead: NAME is a problem, and a new child begins after it
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec

from realrl.apps.doctor.finding import Finding, problem
from realrl.base.parent import PARENT_VARIABLE

_CHILD = "realrl.apps.doctor.probe_process"
_START_DEADLINE_S = 20.0
"""Seconds for an interpreter to start and to import a module of probes."""


def probe_all(modules: Sequence[str]) -> list[Finding]:
    """Return the findings of all probes, in the order of `modules`, which run at the same time."""
    found: dict[str, list[Finding]] = {module: [] for module in modules}
    children = {module: _Child(module, 0) for module in modules}
    try:
        while children:
            _wait(list(children.values()))
            for module, child in list(children.items()):
                found[module] += child.read()
                if not child.is_over():
                    continue
                child.end()
                found[module] += child.troubles()
                del children[module]
                index = child.next_index()
                if index is not None:
                    children[module] = _Child(module, index)
    finally:
        for child in children.values():
            child.end()
    return list(chain.from_iterable(found.values()))


def _wait(children: Sequence[_Child]) -> None:
    """Wait until one of the children has written something, or its deadline is over."""
    shortest_s = min(child.left_s() for child in children)
    timeout_s = max(0.0, shortest_s)
    select.select(children, [], [], timeout_s)


class _Child:
    """A child process that runs the probes of a module, from the one at `index` on."""

    def __init__(self, module: str, index: int) -> None:
        self._module = module
        self._index = index
        self._num_begun = 0
        self._name = module.rpartition(".")[2]
        """The probe that runs."""
        self._deadline_s = _START_DEADLINE_S
        self._heard_s = time.monotonic()
        """When the child last wrote something."""
        self._rest = b""
        """The beginning of a line that is not complete."""
        self._has_ended = False
        self._is_closed = False
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
        """Return the pipe's descriptor, for `select`."""
        return self._pipe

    def left_s(self) -> float:
        """Return the seconds until the deadline of the probe that runs."""
        due_s = self._heard_s + self._deadline_s
        return due_s - time.monotonic()

    def read(self) -> list[Finding]:
        """Return the findings that the child has written since the last call."""
        readable, _, _ = select.select([self], [], [], 0)
        if not readable:
            return []
        content = os.read(self._pipe, 1 << 16)
        self._is_closed = not content
        text = self._rest + content
        *lines, self._rest = text.split(b"\n")
        found = []
        for line in lines:
            finding = self._understand(msgspec.json.decode(line))
            if finding:
                found.append(finding)
        return found

    def _understand(self, line: dict[str, Any]) -> Finding | None:
        """Note what a line says of the probes; return it if it is a finding."""
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
        """Return whether the child has ended, or its probe hangs."""
        return self._has_ended or self._is_closed or self.left_s() <= 0

    def end(self) -> None:
        """Kill the child, if it is alive, and all processes that it started."""
        if self._is_closed and not self._has_ended:
            # It is about to end by itself, and its exit code is part of the report.
            self._wait_for_end(within_s=1.0)
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        os.close(self._pipe)

    def _wait_for_end(self, within_s: float) -> None:
        """Wait until the process has ended, for at most `within_s`."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            pass

    def troubles(self) -> list[Finding]:
        """Return that a child hung or died before its end; nothing for others."""
        if self._has_ended:
            return []
        found = f"the check {self._how_it_ended()}"
        num_done = max(0, self._num_begun - 1)
        index = self._index + num_done
        words = [*_command(self._module), "1", str(index)]
        means = "runs may hang or die in the same way"
        do = f"see what it says alone: {' '.join(words)}"
        return [problem(self._name, found, means, do)]

    def _how_it_ended(self) -> str:
        """Return how a child hung or died, in words."""
        if not self._is_closed:
            return f"did not end within {self._deadline_s:g} s"
        code = self._process.returncode
        if code < 0:
            return f"died of {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def next_index(self) -> int | None:
        """Return the index from which another child has to run the rest of the probes.

        None if nothing is left, or if not even one probe began, as every other child would end in this way.
        """
        if self._has_ended or not self._num_begun:
            return None
        return self._index + self._num_begun


def _command(module: str) -> list[str]:
    """Return the command of a child, without descriptor and index."""
    return [sys.executable, "-m", _CHILD, module]

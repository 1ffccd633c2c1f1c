"""A request to stop, by SIGTERM, as SLURM, Kubernetes and systemd send it before they kill.

SIGTERM ──▶ outside of the master's loop: Terminated, at once
       └──▶ in the loop: noted; the loop withdraws what has changed no weights, has a recovery point
            written, and raises Terminated; also when `grace_s` is over
SIGTERM again ──▶ Terminated, at once
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from realrl.runtime.failure import Terminated


class Shutdown:
    """Whether somebody asked the run to stop, and how long that may take."""

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self._requested_s: float | None = None
        self._is_deferred = self._has_raised = False

    @property
    def is_requested(self) -> bool:
        return self._requested_s is not None

    @property
    def is_overdue(self) -> bool:
        return self._requested_s is not None and time.monotonic() - self._requested_s > self.grace_s

    def request(self) -> None:
        """Ask the run to stop.

        Raises:
            Terminated: nothing can be saved just now, or it was asked before.
        """
        is_first, self._requested_s = self._requested_s is None, self._requested_s or time.monotonic()
        if self._has_raised:  # the run is being taken down, which must not be cut short
            return
        if not (is_first and self._is_deferred):
            self.stop()

    def stop(self) -> None:
        """
        Raises:
            Terminated: always.
        """
        self._has_raised = True
        raise Terminated

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM for a request, where this thread may."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda *_: self.request())
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Meanwhile, whoever runs looks at `is_requested` itself."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

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
    """Knows whether somebody asked the run to stop, and how long that may take."""

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self._requested_s: float | None = None
        """When it was first asked to stop, on the monotonic clock."""
        self._is_deferred = False
        self._has_raised = False

    @property
    def is_requested(self) -> bool:
        """Whether somebody asked the run to stop."""
        return self._requested_s is not None

    @property
    def is_overdue(self) -> bool:
        """Whether that was longer ago than the run may take."""
        return self._requested_s is not None and time.monotonic() - self._requested_s > self.grace_s

    def request(self) -> None:
        """Ask the run to stop.

        Raises:
            Terminated: nothing can be saved just now, or it was asked before.
        """
        is_first = self._requested_s is None
        if is_first:
            self._requested_s = time.monotonic()
        if self._has_raised:  # the run is being taken down, which must not be cut short
            return
        if not (is_first and self._is_deferred):
            self.stop()

    def stop(self) -> None:
        """End the run now.

        Raises:
            Terminated: always.
        """
        self._has_raised = True
        raise Terminated

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM as a request; only the main thread may."""
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
        """Do not raise at a first request: the caller looks at `is_requested` itself."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

"""Logging of ignored messages, throttled: a flood of them makes no flood of lines."""

from __future__ import annotations

import logging

_LONGEST = 200
"""The most characters that are logged of a message."""


class Drops:
    """Counts messages that were dropped, and logs the 1st, 10th, 100th..."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._next = 1
        self.count = 0

    def note(self, why: str) -> None:
        """Count a message; `why` it was dropped may contain what a stranger wrote."""
        self.count += 1
        if self.count == self._next:
            self._next *= 10
            self._logger.warning(
                "dropped %d message%s that this run has no use for; the last: %s",
                self.count,
                "s" if self.count > 1 else "",
                ascii(why)[:_LONGEST],
            )

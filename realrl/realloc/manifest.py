"""The manifest of a stream: what a receiver verifies of every message after the last turn.

row     version   stream   message   checksum   bytes        one per message, int64
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_WORDS = 5
"""Number of int64 words per message."""
MANIFEST_BYTES = 8 * _WORDS
"""Bytes per message."""
_VERSION, _STREAM, _MESSAGE, _CHECKSUM, _BYTES = range(_WORDS)
"""Columns."""


class Manifest:
    """The rows of a stream's messages, as this rank knows them and as they were received.

    A sender fills in the checksums of what it sends. A receiver fills in those of what has arrived, and
    compares them with the sender's.
    """

    def __init__(self, stream: int, sizes: Sequence[int], device: torch.device) -> None:
        """Make the rows of messages of `sizes` bytes, without versions and checksums."""
        num_messages = len(sizes)
        own = torch.zeros(
            num_messages,
            _WORDS,
            dtype=torch.int64,
            device=device,
        )
        own[:, _STREAM] = stream
        own[:, _MESSAGE] = torch.arange(num_messages)
        own[:, _BYTES] = torch.tensor(sizes)
        self._own = own
        self._received = torch.empty_like(own)

    def start_run(self, version: int) -> None:
        """Set the version of every message."""
        self._own[:, _VERSION] = version

    def checksum(self, message: int) -> Tensor:
        """Return the place of a message's checksum, int64 `[1]`."""
        return self._own[message, _CHECKSUM : _CHECKSUM + 1]

    def num_bytes(self, rows: slice) -> int:
        """Return the size of some rows."""
        return len(self._own[rows]) * MANIFEST_BYTES

    def write(self, rows: slice, buffer: Tensor) -> None:
        """Write this rank's rows to a message, uint8."""
        own = self._own[rows]
        words = buffer.view(torch.int64)
        words.copy_(own.view(-1))

    def read(self, rows: slice, buffer: Tensor) -> None:
        """Read the sender's rows from a message, uint8."""
        words = buffer.view(torch.int64)
        self._received[rows] = words.view(-1, _WORDS)

    def first_difference(self) -> int | None:
        """Return the first message whose rows differ; None if all are alike."""
        is_different = (self._received != self._own).any(1)
        different = is_different.nonzero()
        if not len(different):
            return None
        return int(different[0])

    def describe_difference(self, message: int, where: str, names: str) -> str:
        """Describe how a message differs from what was due, at `where`, of the tensors `names`."""
        received = self._received[message].tolist()
        expected = self._own[message].tolist()
        version = received[_VERSION]
        expected_version = expected[_VERSION]
        if version != expected_version:
            return (
                f"{where} ({names}) is of version {version}, not of version {expected_version}, which is due"
            )

        for column in (_STREAM, _MESSAGE, _BYTES):
            if received[column] != expected[column]:
                return (
                    f"{where} ({names}; version {version}) is not the one that is due: {received}, not"
                    f" {expected}"
                )

        received_sum = received[_CHECKSUM]
        expected_sum = expected[_CHECKSUM]
        return (
            f"the checksum of {where} ({names}; version {version}) is {received_sum:#x} as it was sent"
            f" and {expected_sum:#x} as it came in: its bytes changed on the way"
        )

"""The manifest of a stream: what a receiver verifies of every message after the last turn.

row     version   stream   message   checksum   bytes        one per message, int64
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from realrl.layouts.pieces import Region
from realrl.realloc.transfer_failure import TransferFailed

MANIFEST = "/manifest"
"""Name of the manifest among a rank's local tensors; no layout has such a name."""
_WORDS = 5
"""Number of int64 words per message."""
MANIFEST_BYTES = 8 * _WORDS
"""Bytes per message."""
_VERSION, _STREAM, _MESSAGE, _CHECKSUM, _BYTES = range(_WORDS)
"""Columns."""


class Manifest:
    """The rows of a stream's messages, as this rank knows them and as they were received.

    A sender fills in the checksums of what it sends. A receiver fills in those of what has arrived, and
    compares them with the sender's. The rows travel like any tensor, in the stream's last messages.
    """

    def __init__(self, stream: int, sizes: Sequence[int], where: str, device: torch.device) -> None:
        """Make the rows of messages of `sizes` bytes, without versions and checksums.

        `where` says for errors between which ranks the messages travel.
        """
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
        self._where = where

    @property
    def region(self) -> Region:
        """The rows as a region of a stream."""
        return Region(MANIFEST, MANIFEST, (0, 0), tuple(self._own.shape))

    def start_run(self, version: int, *, sends: bool) -> Tensor:
        """Set the version of every message; return the rows that are sent, or that are to be received."""
        self._own[:, _VERSION] = version
        return self._own if sends else self._received

    def checksum(self, message: int) -> Tensor:
        """Return the place of a message's checksum, int64 `[1]`."""
        return self._own[message, _CHECKSUM : _CHECKSUM + 1]

    def verify(self, names_in: Callable[[int], str]) -> None:
        """Compare what has arrived with what was due; `names_in` returns the names of a message's tensors.

        Raises:
            TransferFailed: a message was of another version or stream, or its checksum differs.
        """
        is_different = (self._received != self._own).any(1)
        different = is_different.nonzero()
        if not len(different):
            return
        message = int(different[0])
        where = f"message {message} {self._where}"
        text = self._describe_difference(message, where, names_in(message))
        raise TransferFailed(text)

    def _describe_difference(self, message: int, where: str, names: str) -> str:
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

"""Messages as frames: encoded, cut into pieces, and reassembled if they fit.

message ── encode ──▶ bytes ── pieces() ──▶ frames ── read() ──▶ message, or ValueError
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from realrl.api.messages import Message, Preempt, Setup, Stop, ToMaster
from realrl.program.instructions import AnyInstruction

ToWorker = Setup | Stop | Preempt | AnyInstruction
"""Everything that a worker may be sent."""

PIECE_BYTES = 1 << 20
"""The longest frame that a socket accepts, so that a stranger cannot make it hold more."""
LARGEST_TO_WORKER_BYTES = 64 << 20
"""A hundred thousand samples, with some hundred bytes per sample and key."""
LARGEST_TO_MASTER_BYTES = 1 << 30
"""One rank's share of the texts of a step: thirty thousand responses of thirty thousand letters."""


class Wire:
    """One direction of the channel: the kinds of its messages, and their largest size."""

    def __init__(self, kind: Any, largest_bytes: int) -> None:
        self._largest_bytes = largest_bytes
        self._decoder = msgspec.msgpack.Decoder(kind)

    def pieces(self, message: Message) -> list[bytes]:
        """Return a message as frames.

        Raises:
            ValueError: it is larger than the other side accepts.
        """
        data = msgspec.msgpack.encode(message)
        self._check(len(data), type(message).__name__)
        starts = range(0, len(data), PIECE_BYTES)
        return [data[start : start + PIECE_BYTES] for start in starts]

    def read(self, pieces: Sequence[bytes]) -> Any:
        """Return the message of frames.

        Raises:
            ValueError: they are no message of this direction.
        """
        num_bytes = sum(map(len, pieces))
        self._check(num_bytes, "what arrived")
        try:
            return self._decoder.decode(b"".join(pieces))  # msgspec's errors are ValueErrors
        except RecursionError as error:
            raise ValueError(f"nested too deep: {error}") from None

    def _check(self, num_bytes: int, what: str) -> None:
        if num_bytes > self._largest_bytes:
            raise ValueError(
                f"{what} has {num_bytes} bytes, but at most {self._largest_bytes} may be said at once; take a"
                " smaller batch_size, or more ranks"
            )


TO_WORKER = Wire(ToWorker, LARGEST_TO_WORKER_BYTES)
TO_MASTER = Wire(ToMaster, LARGEST_TO_MASTER_BYTES)

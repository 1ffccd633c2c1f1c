"""Messages as frames: encoded, cut into pieces, and put together again if they fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from realrl.api.messages import Message, Setup, StepAside, Stop, ToMaster
from realrl.program.instructions import AnyInstruction

ToWorker = Setup | Stop | StepAside | AnyInstruction
"""Everything that a worker may be sent."""

PIECE_BYTES = 1 << 20
"""The longest frame. A socket takes no longer one from anybody, so a stranger can make it hold no more."""
LARGEST_TO_WORKER_BYTES = 64 << 20
"""Some hundred bytes by sample and key: a hundred thousand samples."""
LARGEST_TO_MASTER_BYTES = 1 << 30
"""One rank's share of the texts of a step: thirty thousand responses of as many letters."""


class Wire:
    """One direction of the channel: what passes there, and how much of it at once."""

    def __init__(self, kind: Any, largest_bytes: int) -> None:
        self._largest_bytes = largest_bytes
        self._decoder = msgspec.msgpack.Decoder(kind)

    def pieces(self, message: Message) -> list[bytes]:
        """
        Raises:
            ValueError: the other side would not take it.
        """
        data = msgspec.msgpack.encode(message)
        self._check(len(data), type(message).__name__)
        return [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]

    def read(self, pieces: Sequence[bytes]) -> Any:
        """
        Raises:
            ValueError: they are no message of this direction.
        """
        self._check(sum(map(len, pieces)), "what arrived")
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

"""A worker of a run that says nonsense before each of its reports: what someone with all keys could do wrong.

It takes the place of `realrl.apps.worker`; BABBLE says how often a report, BABBLE_SEED what,
BABBLE_COUNTS where it is counted.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import msgspec

from realrl.api.launcher import RANK_VARIABLE
from realrl.api.messages import Done, Failed, ToMaster, Underway
from realrl.apps import worker
from realrl.runtime.control import worker_channel
from realrl.runtime.control.wire import PIECE_BYTES
from tests.security.wires import mutated, noise

_NEVER = 10**9
"""No instruction has such a number."""
_decode = msgspec.msgpack.Decoder(ToMaster).decode
_encode = msgspec.msgpack.encode


class BabblingChannel(worker_channel.WorkerChannel):
    """Says every report right, but not only that."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._draw = random.Random(int(os.environ["BABBLE_SEED"]) + int(os.environ[RANK_VARIABLE]))
        self.said = 0

    def send(self, message: ToMaster) -> None:
        for _ in range(int(os.environ["BABBLE"])):
            frames = self._nonsense(message)
            if not _has_sense(frames):
                self._socket.send_multipart(frames)
                self.said += 1
        counted = Path(os.environ["BABBLE_COUNTS"], os.environ[RANK_VARIABLE])
        counted.write_text(str(self.said))
        super().send(message)

    def _nonsense(self, message: ToMaster) -> list[bytes]:
        draw, plain = self._draw, msgspec.to_builtins(message)
        match draw.randrange(6):
            case 0:
                return [noise(draw)]
            case 1:
                return [_encode(self._retyped(plain))]
            case 2:
                kind = draw.choice(
                    (Done(seq=_NEVER, started_s=0, ended_s=1), Underway(seq=-1, done=1, total=2))
                )
                return [_encode(kind)]
            case 3:
                deep = _encode({**plain, "records": [{"a": 0}]}).replace(_encode("a") + b"\0", b"", 1)
                return [deep + _encode("a") + b"\x91" * draw.choice((10, 5000)) + b"\0"]
            case 4:
                data = mutated(draw, _encode(message), 1)
                return [data[: len(data) // 2], data[len(data) // 2 :], *[b""] * draw.randrange(3)]
        return [mutated(draw, _encode(message), draw.choice((1, 2, 5)))[:PIECE_BYTES]]

    def _retyped(self, plain: dict[str, Any]) -> dict[str, Any]:
        """One field is of another type, too much, or missing."""
        draw = self._draw
        name = draw.choice([*plain, "type", "more"])
        value = draw.choice((None, "text", -1, 1 << 63, 1e300, [[]], {"a": {1: 2}}, b"\xff", True, ...))
        return {k: v for k, v in (plain | {name: value}).items() if v is not ...}


def _has_sense(frames: list[bytes]) -> bool:
    """Whether the master is to heed it: then it is no nonsense but a lie, which it believes a worker."""
    try:
        said = _decode(b"".join(frames))
    except (ValueError, RecursionError):
        return False
    return isinstance(said, Failed) or isinstance(said, Done | Underway) and 0 <= said.seq < _NEVER


def main() -> int:
    """A worker's life, with a channel of its own."""
    worker_channel.WorkerChannel = BabblingChannel
    return worker.main()

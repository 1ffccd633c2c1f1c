"""A transport of your own: messages as files, for hosts that have nothing but a file system in common.

    realrl ppo-math … transport=examples/transport.py:FileTransport

sender                                                    receiver
write aside, rename ──▶ DIRECTORY/0-1-7-42 ──▶ poll until it is there, read, delete
                        sender, receiver, tag and number of the message

`realrl/api/transport.py` says what each member promises. The directory is made by rank 0, below
`REALRL_TRANSPORT_DIR` or the system's directory for temporary files; only this user can read it.
"""

from __future__ import annotations

import atexit
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed as dist

from realrl.api.transport import LinkRates, MessageEnd, Pending

POLL_S = 0.001
DEADLINE_S = 600.0


class FileTransport:
    """Sends every message to every receiver, as a file."""

    shares_memory: bool = False
    rates: LinkRates | None = LinkRates(link_bytes_s=1e9, nic_bytes_s=1e9, node_nic_bytes_s=1e9)

    def __init__(self, device: str) -> None:
        """Make the transport; nothing is written before `connect`."""
        self._device = device
        self._numbers: Counter[tuple[int, int, int]] = Counter()
        """Messages so far, by sender, receiver and tag."""

    def node_name(self) -> str:
        """Return one name for all: a file is as far from every rank."""
        return "files"

    def bundle_bytes(self, device: torch.device) -> int:
        """Return a size at which opening a file costs little."""
        return 64 << 20

    def connect(self) -> None:
        """Agree on the directory. Collective: over all ranks."""
        self._rank = dist.get_rank()
        shared = [""]
        if self._rank == 0:
            shared = [tempfile.mkdtemp(dir=os.environ.get("REALRL_TRANSPORT_DIR"))]
        dist.broadcast_object_list(shared)
        self._directory = Path(shared[0])
        # Ranks end one after the other; only the last one finds the directory empty.
        atexit.register(_remove_if_empty, self._directory)

    def post(self, ends: Iterable[MessageEnd]) -> Sequence[Pending]:
        """Write what is sent at once; what is received is waited for in `wait`."""
        return [self._begin(end) for end in ends]

    def _begin(self, end: MessageEnd) -> Pending:
        sender, receiver = (self._rank, end.peer) if end.sends else (end.peer, self._rank)
        stream = (sender, receiver, end.tag)
        number = self._numbers[stream]
        self._numbers[stream] += 1
        path = self._directory / "-".join(map(str, (*stream, number)))
        if end.sends:
            _write(path, end.buffer)
            return Written()
        return Awaited(path, end.buffer)


class Written:
    """A message that is in its file."""

    def wait(self) -> None:
        """Return at once: the buffer may change."""


class Awaited:
    """A message that is to be read from its file."""

    def __init__(self, path: Path, buffer: torch.Tensor) -> None:
        self._path = path
        self._buffer = buffer

    def wait(self) -> None:
        """Read the message as soon as it is there."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not self._path.exists():
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"{self._path} was not written within {DEADLINE_S:g} s")
            time.sleep(POLL_S)
        content = bytearray(self._path.read_bytes())
        self._path.unlink()
        if content:
            self._buffer.copy_(torch.frombuffer(content, dtype=torch.uint8))


def _write(path: Path, buffer: torch.Tensor) -> None:
    """Write a file that appears only once it is whole."""
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(buffer.cpu().numpy().tobytes())
    aside.rename(path)


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()

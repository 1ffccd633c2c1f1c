"""Tells the parent of a download, again and again, how much has arrived."""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
import threading
from contextlib import suppress
from pathlib import Path

from realrl.base.hub.repo import Repo

_PULSE_S = 0.5
_TCP_BYTES_RECEIVED = struct.Struct("128xQ")
"""Where Linux's `struct tcp_info` has `tcpi_bytes_received`."""

_one_line_at_a_time = threading.Lock()


def beat(repo: Repo) -> None:
    """Say how much has arrived, so that the parent sees whether anything does.

    It arrives over connections of this process, or in the cache by another one, for which this one waits.
    """
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE, f"{repo.kind}s--{repo.name.replace('/', '--')}", "blobs")
    while True:
        say(f"{received_bytes()} {_allocated_bytes(folder)}")
        threading.Event().wait(_PULSE_S)


def received_bytes() -> int:
    """Return the bytes received over all connections that are open, whichever library opened them.

    Source: Linux, tcp(7), TCP_INFO.
    """
    if not sys.platform.startswith("linux"):
        return 0
    total = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # closed meanwhile, or of another protocol
            total += _received_over(int(name))
    return total


def _received_over(descriptor: int) -> int:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return 0
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_BYTES_RECEIVED.size)
    # An old kernel's is shorter.
    return _TCP_BYTES_RECEIVED.unpack(info)[0] if len(info) == _TCP_BYTES_RECEIVED.size else 0


def _allocated_bytes(folder: Path) -> int:
    """On the disk, as a file may have its full size before its bytes arrive."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                total += entry.stat().st_blocks
    except OSError:  # not made yet, or a file took its name meanwhile
        pass
    return total


def say(line: str) -> None:
    """Write a line to the parent; whole, though two threads write."""
    try:
        with _one_line_at_a_time:
            os.write(1, f"{line}\n".encode())
    except BrokenPipeError:  # the parent has given up
        os._exit(1)

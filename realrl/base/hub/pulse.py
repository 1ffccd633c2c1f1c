"""Reports to the parent of a download, periodically, how much has arrived."""

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
    """Report how much has arrived, so that the parent sees whether anything does.

    Bytes arrive over connections of this process, or in the cache by another process that this one waits for.
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
        # It may be closed by now, or of another protocol.
        with suppress(OSError):
            total += _received_over(int(name))
    return total


def _received_over(descriptor: int) -> int:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return 0
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_BYTES_RECEIVED.size)
    # An old kernel's structure is shorter.
    if len(info) != _TCP_BYTES_RECEIVED.size:
        return 0
    (num_bytes,) = _TCP_BYTES_RECEIVED.unpack(info)
    return num_bytes


def _allocated_bytes(folder: Path) -> int:
    """Return the allocated blocks: a file may have its full size before its bytes arrive."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                total += entry.stat().st_blocks
    except OSError:
        # The folder does not exist yet, or a file has just got another name.
        pass
    return total


def say(line: str) -> None:
    """Write a whole line to the parent; two threads write."""
    try:
        with _one_line_at_a_time:
            os.write(1, f"{line}\n".encode())
    except BrokenPipeError:
        # The parent has given up.
        os._exit(1)

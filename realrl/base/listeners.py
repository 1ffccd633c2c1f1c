"""Who may connect to this process: the kernel drops what comes from elsewhere before anyone reads it.

Source: Linux, socket(7), SO_ATTACH_FILTER; a filter of a listening socket sees every packet that would open a
connection, and connections that it let through keep it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from realrl.base.bpf import give, give_if_equal, load, program

_SO_ATTACH_FILTER = 26
_SOURCE_ADDRESS = -0x100000 + 12
"""SKF_NET_OFF, the beginning of a packet's IPv4 header, and the place of the source in it."""
_WHOLE, _NOTHING = 0xFFFFFFFF, 0
"""How much of a packet is let through."""


def admit_only(listener: socket.socket, hosts: Collection[str]) -> None:
    """Let nobody but `hosts`, which are IPv4 addresses, connect to `listener`. Who is connected stays so."""
    addresses = [int.from_bytes(socket.inet_aton(host), "big") for host in sorted(hosts)]
    admitted = [step for address in addresses for step in give_if_equal(address, _WHOLE)]
    compiled = program([load(_SOURCE_ADDRESS), *admitted, give(_NOTHING)])
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(compiled))


def close_to_all(listener: socket.socket) -> None:
    """Let nobody connect any more."""
    admit_only(listener, ())


@contextmanager
def closed_when_left() -> Iterator[None]:
    """What libraries listen at since the block began is closed to all when it is left: all have connected."""
    before = {_inode(fd) for fd in _open_sockets()}
    yield
    for fd in _open_sockets():
        if _inode(fd) not in before:
            with socket.socket(fileno=os.dup(fd)) as opened:
                if opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    close_to_all(opened)


def _open_sockets() -> Iterator[int]:
    """Descriptors of this process."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                yield int(name)
        except FileNotFoundError:  # that of the listing itself
            continue


def _inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino

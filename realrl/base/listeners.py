"""Restricts who may connect to this process.

    open to all ──admit_only──▶ open to the run's hosts ──close_to_all──▶ open to nobody
                  (a filter, which recent kernels              (needs no privilege)
                  give to CAP_NET_ADMIN alone)

Source: Linux, socket(7), SO_ATTACH_FILTER: the filter of a listening socket sees every packet that would open
a connection. dup(2): `dup2` replaces a descriptor atomically. epoll(7): what is closed leaves every set.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from realrl.base.bpf import give, give_if_equal, load, program

_SO_ATTACH_FILTER = 26
_SOURCE_ADDRESS = -0x100000 + 12
"""SKF_NET_OFF, the beginning of a packet's IPv4 header, and the place of the source in it."""
_WHOLE = 0xFFFFFFFF
_NOTHING = 0
"""These are the bytes of a packet that a filter accepts."""


def admit_only(listener: socket.socket, hosts: Collection[str]) -> bool:
    """Let only `hosts`, which are IPv4 addresses, connect to `listener`; existing connections stay.

    Returns False, with nothing changed, if the kernel does not let this process filter packets.
    """
    steps = [load(_SOURCE_ADDRESS)]
    for host in sorted(hosts):
        address = int.from_bytes(socket.inet_aton(host), "big")
        steps += give_if_equal(address, _WHOLE)

    steps.append(give(_NOTHING))
    compiled = program(steps)
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(compiled))
    except OSError:
        # No privilege, no such option in a sandbox's kernel, or no memory for it.
        return False
    return True


def close_to_all(*descriptors: int) -> None:
    """Let nobody connect to the listeners at `descriptors`; existing connections stay.

    The owner of a listener may be a library that waits for connections in a thread. `shutdown` would wake it
    with an error: gloo then ends the process, and libuv spins. The descriptor therefore becomes that of
    another listener, to which nobody connects. The owner may still ask it for connections, and close it.
    """
    with socket.socket(socket.AF_UNIX) as silent:
        # The kernel invents a name that nobody knows.
        silent.bind("")
        silent.listen(0)
        silent.setblocking(False)
        for descriptor in descriptors:
            os.dup2(silent.fileno(), descriptor, inheritable=False)


@contextmanager
def closed_when_left() -> Iterator[None]:
    """Close to all, at the end of the context, the listeners that libraries opened within it.

    By then, all peers have connected.
    """
    before = open_sockets()
    yield
    opened = []
    for inode, descriptor in open_sockets().items():
        if inode not in before and _listens(descriptor):
            opened.append(descriptor)
    close_to_all(*opened)


def open_sockets() -> dict[int, int]:
    """Return a descriptor of each socket of this process, by inode."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        # The listing's own descriptor is gone, and another thread may close others.
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                descriptor = int(name)
                inode = os.fstat(descriptor).st_ino
                found[inode] = descriptor
    return found


def _listens(descriptor: int) -> bool:
    """Whether a socket waits for connections from the network."""
    with socket.socket(fileno=os.dup(descriptor)) as opened:
        is_internet = opened.family in (socket.AF_INET, socket.AF_INET6)
        is_tcp = is_internet and opened.type == socket.SOCK_STREAM
        if not is_tcp:
            return False
        accepts = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return bool(accepts)

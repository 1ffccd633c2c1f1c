"""Who may connect to this process.

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
_WHOLE, _NOTHING = 0xFFFFFFFF, 0
"""How much of a packet is let through."""


def admit_only(listener: socket.socket, hosts: Collection[str]) -> bool:
    """Let nobody but `hosts`, which are IPv4 addresses, connect to `listener`; connections live on.

    Returns False, with nothing changed, where the kernel does not let this process filter packets.
    """
    addresses = [int.from_bytes(socket.inet_aton(host), "big") for host in sorted(hosts)]
    admitted = [step for address in addresses for step in give_if_equal(address, _WHOLE)]
    compiled = program([load(_SOURCE_ADDRESS), *admitted, give(_NOTHING)])
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(compiled))
    except OSError:  # no privilege, no such option in a sandbox's kernel, or no memory for it
        return False
    return True


def close_to_all(*descriptors: int) -> None:
    """Let nobody connect to what listens at `descriptors`; connections live on, the owner notices nothing.

    The owner may be a library that waits for connections in a thread. `shutdown` would wake it up for an
    error, for which gloo ends the process and libuv spins. So the descriptor becomes one of a listener that
    nobody connects to, as which the owner may ask it for a connection (there is none) and close it.
    """
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind("")  # the kernel makes a name up; what connects to it reaches no one
        silent.listen(0)
        silent.setblocking(False)
        for descriptor in descriptors:
            os.dup2(silent.fileno(), descriptor, inheritable=False)


@contextmanager
def closed_when_left() -> Iterator[None]:
    """Close to all, at the end of the block, what libraries listen at since it began: all have connected."""
    before = open_sockets()
    yield
    opened = {inode: descriptor for inode, descriptor in open_sockets().items() if inode not in before}
    close_to_all(*filter(_listens, opened.values()))


def open_sockets() -> dict[int, int]:
    """A descriptor of each socket of this process, by inode."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself, or one that another thread closes
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                found[os.fstat(int(name)).st_ino] = int(name)
    return found


def _listens(descriptor: int) -> bool:
    """Whether it waits for connections from the network."""
    with socket.socket(fileno=os.dup(descriptor)) as opened:
        is_tcp = opened.family in (socket.AF_INET, socket.AF_INET6) and opened.type == socket.SOCK_STREAM
        return is_tcp and bool(opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

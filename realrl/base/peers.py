"""Who is at the other end of this process's connections.

Source: Linux, Documentation/networking/proc_net_tcp.rst.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from realrl.base.listeners import closed_when_left, open_sockets

logger = logging.getLogger(__name__)

_TABLE = Path("/proc/self/net/tcp")
_ESTABLISHED = "01"
_LOCAL, _REMOTE, _STATE, _UID, _INODE = 1, 2, 3, 7, 9
_PATIENCE_S = 3.0
"""Older kernels know no user of a connection's end until its process has accepted it."""

Address = tuple[str, int]


class Connection(NamedTuple):
    """One end of an IPv4 connection on this host."""

    local: Address
    remote: Address
    uid: int
    inode: int


class StrangerConnected(ConnectionError):
    """Somebody who is no part of the run got in."""


@contextmanager
def connected_to(hosts: Collection[str]) -> Iterator[None]:
    """Close what libraries listen at since the block began, and check who connected to it meanwhile.

    Raises:
        StrangerConnected: neither one of `hosts` nor, on this host, this user.
    """
    before = open_sockets()
    with closed_when_left():
        yield
    opened = open_sockets().keys() - before.keys()
    check_peers(lambda end: end.inode in opened, hosts)


def check_peers(is_own: Callable[[Connection], bool], hosts: Collection[str]) -> None:
    """Check the other ends of the connections for which `is_own` holds.

    Raises:
        StrangerConnected: neither one of `hosts` nor, on this host, this user.
    """
    try:
        connections()
    except OSError as error:
        logger.warning("who connected to this process cannot be seen here: %s: %s", _TABLE, error.strerror)
        return
    deadline_s = time.monotonic() + _PATIENCE_S
    while found := list(_strangers(is_own, hosts)):
        if time.monotonic() > deadline_s:
            raise StrangerConnected(f"somebody who is no part of the run connected to it: {', '.join(found)}")
        time.sleep(0.05)


def _strangers(is_own: Callable[[Connection], bool], hosts: Collection[str]) -> Iterator[str]:
    ends = connections()
    users = {(end.local, end.remote): end.uid for end in ends}
    for end in filter(is_own, ends):
        uid = users.get((end.remote, end.local))
        if uid is None and end.remote[0] not in hosts:
            yield f"the host {end.remote[0]}"
        elif uid is not None and uid != os.geteuid():
            yield f"user {uid} of this host"


def connections() -> list[Connection]:
    """All that are established in this process's network namespace, other processes' too."""
    _, *lines = _TABLE.read_text(encoding="ascii").splitlines()
    return list(_read(map(str.split, lines)))


def _read(lines: Iterable[list[str]]) -> Iterator[Connection]:
    for line in lines:
        if line[_STATE] == _ESTABLISHED:
            local, remote = _address(line[_LOCAL]), _address(line[_REMOTE])
            yield Connection(local, remote, int(line[_UID]), int(line[_INODE]))


def _address(written: str) -> Address:
    """Of `0100007F:1F90`: a word in the host's order, and a number."""
    host, _, port = written.partition(":")
    return socket.inet_ntoa(struct.pack("=I", int(host, 16))), int(port, 16)

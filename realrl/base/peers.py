"""Checks who is at the other end of this process's connections.

Source: Linux, Documentation/networking/proc_net_tcp.rst.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from realrl.base.listeners import closed_when_left, open_sockets

logger = logging.getLogger(__name__)

_TABLE = Path("/proc/self/net/tcp")
_ESTABLISHED = "01"
_LOCAL = 1
_REMOTE = 2
_STATE = 3
_UID = 7
_INODE = 9
_PATIENCE_S = 3.0
"""The longest wait for a user: older kernels know none until a process has accepted a connection."""

Address = tuple[str, int]


class Connection(NamedTuple):
    """One end of an IPv4 connection on this host."""

    local: Address
    remote: Address
    uid: int
    inode: int


class StrangerConnected(ConnectionError):
    """Somebody who is no part of the run has connected."""


@contextmanager
def connected_to(hosts: Collection[str]) -> Iterator[None]:
    """Close the listeners that libraries opened within the context, and check who has connected to them.

    Raises:
        StrangerConnected: a peer is neither on one of `hosts` nor, on this host, this user.
    """
    before = open_sockets()
    with closed_when_left():
        yield
    opened = open_sockets().keys() - before.keys()
    check_peers(lambda end: end.inode in opened, hosts)


def check_peers(is_own: Callable[[Connection], bool], hosts: Collection[str]) -> None:
    """Check the other ends of the connections for which `is_own` holds.

    Raises:
        StrangerConnected: a peer is neither on one of `hosts` nor, on this host, this user.
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
    """Yield the names of peers that may not be connected."""
    ends = connections()
    users = {(end.local, end.remote): end.uid for end in ends}
    own_uid = os.geteuid()
    for end in ends:
        if not is_own(end):
            continue
        host, _ = end.remote
        # Only a peer on this host has an entry of its own.
        uid = users.get((end.remote, end.local))
        if uid is None and host not in hosts:
            yield f"the host {host}"
        elif uid is not None and uid != own_uid:
            yield f"user {uid} of this host"


def connections() -> list[Connection]:
    """Return all established connections in this network namespace, including other processes'."""
    _, *lines = _TABLE.read_text(encoding="ascii").splitlines()
    found = []
    for line in lines:
        fields = line.split()
        if fields[_STATE] == _ESTABLISHED:
            found.append(_connection(fields))
    return found


def _connection(fields: list[str]) -> Connection:
    return Connection(
        _address(fields[_LOCAL]),
        _address(fields[_REMOTE]),
        int(fields[_UID]),
        int(fields[_INODE]),
    )


def _address(written: str) -> Address:
    """Read an address such as `0100007F:1F90`: a word in the host's byte order, and a port."""
    host, _, port = written.partition(":")
    word = int(host, 16)
    packed = struct.pack("=I", word)
    return socket.inet_ntoa(packed), int(port, 16)

"""This host's addresses (IPv4), as other hosts see them."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterable

_SIOCGIFADDR = 0x8915
_DISCARD_PORT = 9


def address_towards(host: str) -> str:
    """The address that this host has on its way to `host`; nothing is sent.

    Raises:
        OSError: `host` has no address, or there is no way to it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, _DISCARD_PORT))
        return probe.getsockname()[0]


def addresses_of(interfaces: Iterable[str]) -> list[str]:
    """The addresses of those of the interfaces that have one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        found = [_address_of(asked, name) for name in interfaces]
    return [address for address in found if address is not None]


def answers(host: str, port: int, *, within_s: float) -> bool:
    """Whether a connection can be made to it."""
    try:
        with socket.create_connection((host, port), timeout=within_s):
            return True
    except OSError:
        return False


def interface_of(address: str) -> str:
    """The network interface that has an address of this host.

    Source: Linux, netdevice(7), SIOCGIFADDR.

    Raises:
        ValueError: none has.
    """
    names = [name for _, name in socket.if_nameindex()]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        found = next((name for name in names if _address_of(asked, name) == address), None)
    if found is None:
        raise ValueError(f"expected a network interface with the address {address}, got {', '.join(names)}")
    return found


def _address_of(asked: socket.socket, interface: str) -> str | None:
    """An interface's address; None for one that has none."""
    request = struct.pack("256s", interface.encode())
    try:
        return socket.inet_ntoa(fcntl.ioctl(asked, _SIOCGIFADDR, request)[20:24])
    except OSError:
        return None

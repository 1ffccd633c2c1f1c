"""This host's addresses (IPv4), as other hosts see them."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterable

_SIOCGIFADDR = 0x8915
_ADDRESS = slice(20, 24)
"""The place of the address in the kernel's answer."""
_DISCARD_PORT = 9


def address_towards(host: str) -> str:
    """Return the address that this host uses towards `host`; nothing is sent.

    Raises:
        OSError: `host` has no address, or there is no route to it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, _DISCARD_PORT))
        return probe.getsockname()[0]


def addresses_of(interfaces: Iterable[str]) -> list[str]:
    """Return the addresses of the interfaces that have one."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for name in interfaces:
            address = _address_of(asked, name)
            if address is not None:
                found.append(address)
    return found


def answers(host: str, port: int, *, within_s: float) -> bool:
    """Whether a connection to a port can be made within some seconds."""
    try:
        with socket.create_connection((host, port), timeout=within_s):
            return True
    except OSError:
        return False


def interface_of(address: str) -> str:
    """Return the network interface that has an address of this host.

    Raises:
        ValueError: no interface has it.
    Source: Linux, netdevice(7), SIOCGIFADDR.
    """
    names = [name for _, name in socket.if_nameindex()]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for name in names:
            if _address_of(asked, name) == address:
                return name
    raise ValueError(f"expected a network interface with the address {address}, got {', '.join(names)}")


def _address_of(asked: socket.socket, interface: str) -> str | None:
    """Return an interface's address, or None."""
    request = struct.pack("256s", interface.encode())
    try:
        answer = fcntl.ioctl(asked, _SIOCGIFADDR, request)
    except OSError:
        return None
    return socket.inet_ntoa(answer[_ADDRESS])

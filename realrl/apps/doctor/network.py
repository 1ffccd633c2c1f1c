"""Probes of the network that a run's processes talk over: the loopback, this host's name, ports, filters."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence

from realrl.apps.doctor.finding import Finding, Probe, note, ok, problem
from realrl.base.listeners import admit_only
from realrl.base.network import address_towards

_LOOPBACK = "127.0.0.1"
_ELSEWHERE = "192.0.2.1"
"""An address that no host has (RFC 5737): the route to it is the route to other networks."""
_WITHIN_S = 3.0
_INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def look_at_loopback() -> Iterator[Finding]:
    """Yield whether processes of this host can connect to each other."""
    try:
        with socket.create_server((_LOOPBACK, 0)) as listener:
            listener.settimeout(_WITHIN_S)
            port = listener.getsockname()[1]
            with socket.create_connection((_LOOPBACK, port), timeout=_WITHIN_S), listener.accept()[0]:
                yield ok("loopback", f"a connection to {_LOOPBACK} was made, at port {port}")
    except OSError as error:
        found = f"no connection to {_LOOPBACK} can be made ({error})"
        means = "a run's processes on this host cannot talk to each other"
        yield problem(
            "loopback", found, means, "bring it up (ip link set lo up), and let it through firewalls"
        )


def look_at_name() -> Iterator[Finding]:
    """Yield whether this host's name has an address."""
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError as error:
        means = "on a cluster, other hosts find this one by its name; runs on this host alone do not use it"
        yield note("host name", f"{name} has no address ({error})", means, "add it to /etc/hosts or to DNS")
    else:
        yield ok("host name", f"{name} is {address}")


def look_at_interfaces() -> Iterator[Finding]:
    """Yield the network interfaces, and settings that name an unknown one."""
    names = [name for _, name in socket.if_nameindex()]
    try:
        way_out = f"; other hosts see {address_towards(_ELSEWHERE)}"
    except OSError:
        way_out = "; there is no way to other hosts"
    yield ok("interfaces", f"{', '.join(names)}{way_out}")
    for variable in _INTERFACE_VARIABLES:
        unknown = _unknown_interfaces(os.environ.get(variable, ""), names)
        if unknown:
            found = f"{variable} names {', '.join(unknown)}, which is none"
            means = "process groups cannot be made on it"
            do = f"set it to one of {', '.join(names)}, or unset it"
            yield problem("interfaces", found, means, do)


def _unknown_interfaces(setting: str, names: Sequence[str]) -> list[str]:
    """Return the parts of a setting that are not the beginning of any interface's name.

    Source: NCCL's documentation of NCCL_SOCKET_IFNAME: prefixes, after `=` for a whole name, after `^` for
    those to leave out.
    """
    unknown = []
    for part in setting.split(","):
        prefix = part.strip("=^")
        if part and not any(name.startswith(prefix) for name in names):
            unknown.append(prefix)
    return unknown


def look_at_filters() -> Iterator[Finding]:
    """Yield whether the kernel can keep other users of this host from a run's ports."""
    with socket.socket() as unopened:
        unopened.bind((_LOOPBACK, 0))
        try:
            is_filtered = admit_only(unopened, {_LOOPBACK}) is not False
        except OSError:
            is_filtered = False
    if is_filtered:
        yield ok("ports", "can be bound, and the kernel keeps strangers from them")
    else:
        means = (
            "other users of this host may connect to a run's ports, and are refused there; see SECURITY.md"
        )
        do = "nothing on a host of one's own; else give CAP_NET_ADMIN"
        yield note("ports", "can be bound, but the kernel lets this user filter no packets", means, do)


PROBES = (
    Probe("loopback", look_at_loopback),
    Probe("host name", look_at_name),
    Probe("interfaces", look_at_interfaces),
    Probe("ports", look_at_filters),
)

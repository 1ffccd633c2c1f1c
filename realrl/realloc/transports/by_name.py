"""The transport of a run, by its name in the config."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from realrl.api.config import AUTO
from realrl.api.transport import Transport
from realrl.base.user_files import describe_error, is_file_reference, load_from_file
from realrl.layouts.topology import Topology
from realrl.realloc.transports.collective import HOST_RATES, CollectiveTransport, SharedMemoryTransport

MakeTransport = Callable[[str], Transport]
"""`(device type) -> transport`; a class is one."""

_MEMBERS = ("shares_memory", "rates", "node_name", "bundle_bytes", "connect", "post")


def _shared_memory(device: str) -> Transport:
    if device != "cpu":
        raise ValueError(
            f"transport: shared_memory carries tensors in host memory, but device is {device}; set"
            f" transport={AUTO} or transport=collective"
        )

    return SharedMemoryTransport()


def _collective(device: str) -> Transport:
    return CollectiveTransport(HOST_RATES if device == "cpu" else None)


TRANSPORTS: Mapping[str, MakeTransport] = {"shared_memory": _shared_memory, "collective": _collective}
_BY_DEVICE = {"cpu": "shared_memory", "cuda": "collective"}
"""What `auto` is."""


def open_transport(name: str, device: str) -> Transport:
    """Return the transport that `transport: name` stands for on a device type.

    Raises:
        ValueError: there is none of this name, it does not serve the device, or the user's file is wrong.
    """
    if name == AUTO:
        name = _BY_DEVICE[device]
    if name in TRANSPORTS:
        return TRANSPORTS[name](device)
    if not is_file_reference(name):
        known = ", ".join((AUTO, *TRANSPORTS))
        raise ValueError(f"transport: expected {known} or a path/to/file.py:NAME, got {name!r}")

    return _open_own(name, device)


def transport_for(topology: Topology) -> Transport:
    """Return the built-in transport that plans for this topology need."""
    return SharedMemoryTransport() if topology.shared_memory else CollectiveTransport()


def _open_own(reference: str, device: str) -> Transport:
    make = load_from_file(reference, setting="transport", what="transport", fits=callable)
    assert callable(make), "load_from_file returns what fits"
    try:
        transport: Transport = make(device)
    except Exception as error:  # whatever a user's file raises
        raise ValueError(
            f"transport: {reference} cannot be called with {device!r} ({describe_error(error)}); it must take"
            " the device type, and return a transport"
        ) from error

    missing = [member for member in _MEMBERS if not hasattr(transport, member)]
    if missing:
        raise ValueError(
            f"transport: {reference} has no {', '.join(missing)}; realrl.api.transport.Transport says what a"
            " transport has"
        )

    return transport

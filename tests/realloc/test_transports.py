"""The transports that a config can name, and what is said of one that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from realrl.api.transport import MessageEnd
from realrl.layouts.topology import Topology
from realrl.realloc.hosts import discover_topology, topology_of
from realrl.realloc.transports.by_name import TRANSPORTS, open_transport, transport_for
from realrl.realloc.transports.collective import CollectiveTransport, SharedMemoryTransport
from tests.world import run_world

FILES = str(Path(__file__).parents[2] / "examples" / "transport.py")
NAMES = ("shared_memory", "collective", f"{FILES}:FileTransport")


def test_auto_shares_memory_on_cpus_alone():
    """What a topology says of memory is what the transport does."""
    for device, kind in (("cpu", SharedMemoryTransport), ("cuda", CollectiveTransport)):
        transport = open_transport("auto", device)
        assert isinstance(transport, kind)
        topology = topology_of({0: "a", 1: "a"}, transport)
        assert topology.can_read(1, 0) == (device == "cpu")
        assert isinstance(transport_for(topology), kind)
    assert topology.link_bytes_s == Topology().link_bytes_s, "GPUs have the links of a server"


def exchange_messages(rank: int, name: str) -> None:
    """Messages of two tags cross in both directions, posted before the peer has posted its own."""
    transport = open_transport(name, "cpu")
    transport.connect()
    topology = discover_topology(transport)
    assert topology.node(0) == topology.node(1), "both processes are of this machine"
    peer = 1 - rank
    sizes = (8, 64, 1 << 16)
    for run in range(2):
        sent = {
            tag: [torch.full((n,), 10 * run + 3 * tag + rank, dtype=torch.uint8) for n in sizes]
            for tag in (4, 5)
        }
        received = {tag: [torch.empty_like(buffer) for buffer in buffers] for tag, buffers in sent.items()}
        ends = [MessageEnd(True, buffer, peer, tag) for tag in (4, 5) for buffer in sent[tag]]
        tags = (4, 5) if rank else (5, 4)
        ends += [MessageEnd(False, buffer, peer, tag) for tag in tags for buffer in received[tag]]
        pending = transport.post(iter(ends))
        assert len(pending) == len(ends)
        for message in pending:
            message.wait()
        for tag, buffers in received.items():
            for buffer in buffers:
                assert buffer.eq(10 * run + 3 * tag + peer).all(), f"tag {tag}, {len(buffer)} bytes"
        dist.barrier()


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.rpartition(":")[2])
def test_messages_of_one_tag_keep_their_order(name):
    """As `realrl.api.transport` promises."""
    run_world(exchange_messages, 2, name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "sockets",
            "transport: expected auto, shared_memory, collective or a path/to/file.py:NAME, got 'sockets'",
        ),
        ("nowhere.py:Files", "transport: nowhere.py is no file"),
        (f"{FILES}:Nothing", "has no transport 'Nothing'; it has .*FileTransport"),
        (f"{FILES}:Written", "cannot be called with 'cpu' .*it must take the device type"),
        (
            f"{FILES}:Path",
            "has no shares_memory, rates, node_name, bundle_bytes, connect, post; realrl.api.transport",
        ),
    ],
)
def test_a_name_that_is_no_transport_is_refused(name, said):
    """Before anything starts."""
    with pytest.raises(ValueError, match=said):
        open_transport(name, "cpu")


def test_shared_memory_is_for_host_memory():
    """Weights on CUDA are not in it."""
    with pytest.raises(ValueError, match="device is cuda; set transport=auto or transport=collective"):
        TRANSPORTS["shared_memory"]("cuda")

"""Who reaches the store of the data plane. 127.0.0.2 is another address of this host."""

from __future__ import annotations

import random
import socket
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from realrl.runtime.rendezvous import Rendezvous
from tests.security.wires import mutated, noise

SHORT_S = 0.3


def connects(rendezvous: Rendezvous, source: str) -> bool:
    try:
        socket.create_connection((rendezvous.host, rendezvous.port), SHORT_S, (source, 0)).close()
    except TimeoutError:
        return False
    return True


def test_only_hosts_of_the_run_reach_the_store_and_in_the_end_nobody():
    """Who is connected by then goes on to use it."""
    rendezvous = Rendezvous("127.0.0.1")
    assert connects(rendezvous, "127.0.0.1") and not connects(rendezvous, "127.0.0.2")
    rendezvous.admit({"127.0.0.2"})
    assert connects(rendezvous, "127.0.0.1") and connects(rendezvous, "127.0.0.2")
    assert not connects(rendezvous, "127.0.0.3")
    wait = timedelta(seconds=5)
    workers = [TCPStore(rendezvous.host, rendezvous.port, is_master=False, timeout=wait) for _ in range(2)]
    rendezvous.close_to_all()
    assert not any(connects(rendezvous, f"127.0.0.{last}") for last in (1, 2, 3))
    workers[0].set("key", "value")
    assert workers[1].get("key") == b"value"


@pytest.mark.parametrize("seed", range(3))
def test_the_store_withstands_what_it_cannot_read(seed):
    """From the run's own hosts, while it is open to them: it goes on to serve who speaks its language."""
    draw, rendezvous = random.Random(seed), Rendezvous("127.0.0.1")
    query = bytes.fromhex("093c85373f")  # what a client begins with
    for _ in range(300):
        with socket.create_connection((rendezvous.host, rendezvous.port)) as stranger:
            stranger.sendall(mutated(draw, draw.choice((b"", query)) + noise(draw), 1))
    worker = TCPStore(rendezvous.host, rendezvous.port, is_master=False, timeout=timedelta(seconds=5))
    worker.set("key", "value")
    assert worker.get("key") == b"value"

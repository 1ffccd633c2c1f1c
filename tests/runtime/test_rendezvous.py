"""Who reaches the store of the data plane. 127.0.0.2 is another address of this host."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from contextlib import closing
from datetime import timedelta

import psutil
import pytest
from torch.distributed import TCPStore

from realrl.base import peers
from realrl.base.listeners import admit_only
from realrl.launch.local import LocalLauncher
from realrl.runtime.control.rendezvous import FileRendezvous, PortRendezvous, open_rendezvous, open_store
from realrl.runtime.failure import RunFailed
from tests.security.wires import mutated, noise

SHORT_S = 0.3
WAIT = timedelta(seconds=5)


def connects(rendezvous: PortRendezvous, source: str) -> bool:
    _, host, port = rendezvous.where.split(":")
    try:
        socket.create_connection((host, int(port)), SHORT_S, (source, 0)).close()
    except (TimeoutError, ConnectionRefusedError):
        return False
    return True


def may_filter() -> bool:
    with socket.socket() as unused:
        return admit_only(unused, ())


@pytest.mark.skipif(not may_filter(), reason="packets are filtered by who has CAP_NET_ADMIN")
def test_only_hosts_of_the_run_reach_the_store():
    with closing(PortRendezvous("127.0.0.1")) as rendezvous:
        assert connects(rendezvous, "127.0.0.1") and not connects(rendezvous, "127.0.0.2")
        rendezvous.admit({"127.0.0.2"})
        assert connects(rendezvous, "127.0.0.1") and connects(rendezvous, "127.0.0.2")
        assert not connects(rendezvous, "127.0.0.3")


def test_in_the_end_nobody_reaches_the_store():
    """Who is connected by then goes on to use it, and its owner spends no time on what it does not get."""
    with closing(PortRendezvous("127.0.0.1")) as rendezvous:
        workers = [open_store(rendezvous.where, WAIT) for _ in range(2)]
        rendezvous.admit({"127.0.0.1"})
        rendezvous.close_to_all()
        assert not any(connects(rendezvous, f"127.0.0.{last}") for last in (1, 2, 3))
        workers[0].set("key", "value")
        assert workers[1].get("key") == b"value"
        before_s = sum(psutil.Process().cpu_times()[:2])
        with pytest.raises(Exception, match="key2"):
            workers[0].wait(["key2"], timedelta(seconds=0.5))
        assert sum(psutil.Process().cpu_times()[:2]) - before_s < 0.25


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_a_stranger_at_the_store_ends_the_start(monkeypatch):
    """Another user of this host, who connected while the workers did, may have changed what they found."""
    monkeypatch.setattr(peers, "_PATIENCE_S", 0.2)
    with closing(PortRendezvous("127.0.0.1")) as rendezvous:
        _, host, port = rendezvous.where.split(":")
        os.seteuid(65534)
        stranger = socket.socket()
        os.seteuid(0)
        with stranger:
            stranger.connect((host, int(port)))
            while not any(end.local == (host, int(port)) and end.inode for end in peers.connections()):
                time.sleep(0.01)  # until it is accepted: who still waits for that is turned away
            with pytest.raises(RunFailed, match="user 65534 of this host"):
                rendezvous.close_to_all()


def test_on_one_host_the_store_is_where_only_this_user_gets():
    """Another process of this user finds it by its name; nothing listens for it."""
    listening = _listening()
    with closing(open_rendezvous(LocalLauncher())) as rendezvous:
        assert isinstance(rendezvous, FileRendezvous)
        own, script = open_store(rendezvous.where, WAIT), "import sys; from datetime import timedelta\n"
        script += "from realrl.runtime.control.rendezvous import open_store\n"
        script += "open_store(sys.argv[1], timedelta(seconds=5)).set('key', 'value')\n"
        subprocess.run([sys.executable, "-c", script, rendezvous.where], check=True)
        assert own.get("key") == b"value" and own.add("count", 2) == 2
        assert _listening() == listening
        path = rendezvous.where.partition(":")[2]
        assert oct(os.stat(os.path.dirname(path)).st_mode) == "0o40500"


def _listening() -> set:
    found = psutil.Process().net_connections("tcp")
    return {connection.laddr for connection in found if connection.status == "LISTEN"}


@pytest.mark.parametrize("seed", range(3))
def test_the_store_withstands_what_it_cannot_read(seed):
    """From the run's own hosts, while it is open to them: it goes on to serve who speaks its language."""
    draw, rendezvous = random.Random(seed), PortRendezvous("127.0.0.1")
    _, host, port = rendezvous.where.split(":")
    query = bytes.fromhex("093c85373f")  # what a client begins with
    for _ in range(300):
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(mutated(draw, draw.choice((b"", query)) + noise(draw), 1))
    worker = TCPStore(host, int(port), is_master=False, timeout=timedelta(seconds=5))
    worker.set("key", "value")
    assert worker.get("key") == b"value"

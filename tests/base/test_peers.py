"""Who is at the other end of a connection: this user, a host of the run, or a stranger."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import contextmanager

import pytest

from realrl.base import peers
from realrl.base.peers import Connection, StrangerConnected, check_peers, connected_to, connections

NOBODY = 65534
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(peers, "_PATIENCE_S", 0.2)


@contextmanager
def met(user: int):
    """A client of that user, and this process's end of the connection, opened within a guarded block."""
    os.seteuid(user)
    client = socket.socket()
    os.seteuid(os.getuid())
    with client:
        with connected_to(()):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                client.connect(listener.getsockname())
                end, _ = listener.accept()
        with end:
            yield end


def test_this_users_processes_are_no_strangers():
    with met(os.getuid()) as end:
        assert end.getpeername() in {found.local for found in connections()}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_of_this_host_is_a_stranger():
    with pytest.raises(StrangerConnected, match=f"user {NOBODY} of this host"), met(NOBODY):
        pass


def test_where_connections_are_not_shown_that_is_logged(monkeypatch, tmp_path, caplog):
    """And the run goes on, as in sandboxes of other kernels."""
    monkeypatch.setattr(peers, "_TABLE", tmp_path / "nothing")
    check_peers(lambda end: True, ())
    assert "who connected to this process cannot be seen here" in caplog.text


@pytest.mark.skipif(sys.byteorder != "little", reason="the table is in the host's byte order")
def test_hosts_of_the_run_are_no_strangers_and_others_are(monkeypatch, tmp_path):
    """Of 10.0.0.1 at port 8080, with two connections; what only listens or has ended is no peer."""
    lines = [
        f"   0: 0100000A:1F90 {remote} {state} 00000000:00000000 00:00000000 00000000 1000 0 {inode} 1\n"
        for remote, state, inode in (
            ("00000000:0000", "0A", 1),
            ("0200000A:9C40", "01", 2),
            ("0300000A:9C41", "01", 3),
            ("0400000A:9C41", "06", 0),
        )
    ]
    table = tmp_path / "tcp"
    table.write_text(HEADER + "".join(lines))
    monkeypatch.setattr(peers, "_TABLE", table)
    second = Connection(("10.0.0.1", 8080), ("10.0.0.2", 40000), 1000, 2)
    assert second in connections()
    check_peers(lambda end: True, {"10.0.0.2", "10.0.0.3"})
    check_peers(lambda end: end == second, {"10.0.0.2"})
    with pytest.raises(StrangerConnected, match="the host 10.0.0.3$"):
        check_peers(lambda end: True, {"10.0.0.2"})

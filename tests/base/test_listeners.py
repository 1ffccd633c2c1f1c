"""Who can connect to a listener. Every address of 127.0.0.0/8 is this host's own."""

from __future__ import annotations

import errno
import socket

import pytest

from realrl.base.listeners import admit_only, close_to_all, closed_when_left

SHORT_S, WAIT_S = 0.3, 5.0


@pytest.fixture
def listener():
    with socket.create_server(("0.0.0.0", 0)) as listener:
        listener.settimeout(WAIT_S)
        yield listener


def connects(listener: socket.socket, source: str) -> bool:
    """Whether somebody at the address `source` can."""
    with socket.socket() as client:
        client.bind((source, 0))
        client.settimeout(SHORT_S)
        code = client.connect_ex(("127.0.0.1", listener.getsockname()[1]))
        assert code in (0, errno.EAGAIN), errno.errorcode[code]
        return code == 0


def test_without_a_filter_every_address_can_connect(listener):
    """So that the other tests here can fail."""
    assert all(connects(listener, source) for source in ("127.0.0.1", "127.0.0.2", "127.1.2.3"))


def test_only_admitted_addresses_can_connect(listener):
    """And when others are admitted, those."""
    admit_only(listener, {"127.0.0.2", "10.0.0.1", "127.1.2.3"})
    expected = {"127.0.0.1": False, "127.0.0.2": True, "127.0.0.3": False, "127.1.2.3": True}
    assert {source: connects(listener, source) for source in expected} == expected
    admit_only(listener, {"127.0.0.1"})
    assert connects(listener, "127.0.0.1") and not connects(listener, "127.0.0.2")


def test_many_hosts_can_be_admitted(listener):
    """As many as a large run has."""
    admit_only(listener, {f"10.0.{i // 250}.{i % 250}" for i in range(1000)} | {"127.0.0.9"})
    assert connects(listener, "127.0.0.9") and not connects(listener, "127.0.0.1")


def test_who_is_connected_stays_connected(listener):
    """In both directions, also after the listener is closed to all."""
    admit_only(listener, {"127.0.0.1"})
    with socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        close_to_all(listener)
        assert not connects(listener, "127.0.0.1")
        with accepted:
            for one, other in ((client, accepted), (accepted, client)):
                one.sendall(b"word")
                assert other.recv(4) == b"word"


def test_listeners_opened_meanwhile_are_closed_to_all_and_others_are_not(listener):
    with closed_when_left(), socket.create_server(("127.0.0.1", 0)) as short:
        opened = socket.create_server(("127.0.0.1", 0))
        assert connects(opened, "127.0.0.1") and connects(short, "127.0.0.1")
    with opened:
        assert not connects(opened, "127.0.0.1")
    assert connects(listener, "127.0.0.1")

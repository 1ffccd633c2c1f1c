"""Who can connect to a listener. Every address of 127.0.0.0/8 is this host's own."""

from __future__ import annotations

import errno
import select
import socket

import pytest

from realrl.base.listeners import admit_only, close_to_all, closed_when_left

SHORT_S, WAIT_S = 0.3, 5.0


@pytest.fixture
def listener():
    with socket.create_server(("0.0.0.0", 0)) as listener:
        listener.settimeout(WAIT_S)
        yield listener


def may_filter() -> bool:
    with socket.socket() as unused:
        return admit_only(unused, ())


filters = pytest.mark.skipif(not may_filter(), reason="packets are filtered by who has CAP_NET_ADMIN")


class Refusing(socket.socket):
    """A socket of a process that may not filter packets."""

    def setsockopt(self, *_):
        raise PermissionError(errno.EPERM, "Operation not permitted")


def connects(listener: socket.socket, source: str) -> bool:
    """Whether somebody at the address `source` can."""
    with socket.socket() as client:
        client.bind((source, 0))
        client.settimeout(SHORT_S)
        code = client.connect_ex(("127.0.0.1", listener.getsockname()[1]))
        assert code in (0, errno.EAGAIN, errno.ECONNREFUSED), errno.errorcode[code]
        return code == 0


def test_without_a_filter_every_address_can_connect(listener):
    """So that the other tests here can fail."""
    assert all(connects(listener, source) for source in ("127.0.0.1", "127.0.0.2", "127.1.2.3"))


@filters
def test_only_admitted_addresses_can_connect(listener):
    """And when others are admitted, those."""
    admit_only(listener, {"127.0.0.2", "10.0.0.1", "127.1.2.3"})
    expected = {"127.0.0.1": False, "127.0.0.2": True, "127.0.0.3": False, "127.1.2.3": True}
    assert {source: connects(listener, source) for source in expected} == expected
    admit_only(listener, {"127.0.0.1"})
    assert connects(listener, "127.0.0.1") and not connects(listener, "127.0.0.2")


@filters
def test_many_hosts_can_be_admitted(listener):
    """As many as a large run has."""
    admit_only(listener, {f"10.0.{i // 250}.{i % 250}" for i in range(1000)} | {"127.0.0.9"})
    assert connects(listener, "127.0.0.9") and not connects(listener, "127.0.0.1")


def test_where_the_kernel_refuses_a_filter_nothing_changes():
    """The caller is told."""
    with Refusing() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not admit_only(listener, {"127.0.0.2"})
        assert connects(listener, "127.0.0.1")


def test_who_is_connected_stays_connected(listener):
    """In both directions, also after the listener is closed to all."""
    address = listener.getsockname()
    with socket.create_connection(address) as client:
        accepted, _ = listener.accept()
        close_to_all(listener.fileno())
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, SHORT_S)
        with accepted:
            for one, other in ((client, accepted), (accepted, client)):
                one.sendall(b"word")
                assert other.recv(4) == b"word"


def test_who_waits_for_connections_notices_nothing():
    """No event comes, not even an error, and there is nobody to accept; gloo would end its process."""
    with socket.create_server(("127.0.0.1", 0)) as owned, select.epoll() as waiting:
        owned.setblocking(False)
        waiting.register(owned, select.EPOLLIN)
        with socket.create_connection(owned.getsockname()):
            assert waiting.poll(WAIT_S)
            close_to_all(owned.fileno())
            assert not waiting.poll(SHORT_S)
            with pytest.raises(BlockingIOError):
                owned.accept()


def test_listeners_opened_meanwhile_are_closed_to_all_and_others_are_not(listener):
    with closed_when_left(), socket.create_server(("127.0.0.1", 0)) as short:
        opened = socket.create_server(("127.0.0.1", 0))
        address = opened.getsockname()
        local = socket.socket(socket.AF_UNIX)
        local.bind("")
        local.listen()
        name = local.getsockname()
        assert connects(opened, "127.0.0.1") and connects(short, "127.0.0.1")
    with opened, local, pytest.raises(ConnectionRefusedError):
        assert local.getsockname() == name, "only the network's are closed"
        socket.create_connection(address, SHORT_S)
    assert connects(listener, "127.0.0.1")

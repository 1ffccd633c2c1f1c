"""Addresses and interfaces of this host. The loopback is on every Linux."""

import socket

import pytest

from realrl.base.network import address_towards, answers, interface_of


def test_the_way_to_the_loopback_is_the_loopback():
    assert address_towards("127.0.0.1") == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"


def test_an_address_of_this_host_is_its_own_way():
    """So that workers beside the master take the interface that others reach it by."""
    own = socket.gethostbyname(socket.gethostname())
    assert address_towards(own) == own


def test_an_address_of_another_host_is_on_no_interface():
    """203.0.113.0/24 is for documentation (RFC 5737)."""
    with pytest.raises(ValueError, match=r"with the address 203.0.113.1, got lo"):
        interface_of("203.0.113.1")


def test_a_port_answers_while_someone_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert answers("127.0.0.1", port, within_s=5)
    assert not answers("127.0.0.1", port, within_s=5)

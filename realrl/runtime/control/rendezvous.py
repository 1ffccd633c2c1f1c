"""The store in which workers find each other for the data plane, out of a stranger's reach.

one /proc       memory of this user, by its name in /proc: nothing listens
several hosts   a port, open to the run's hosts if the kernel filters, closed once all have connected
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Collection
from datetime import timedelta
from typing import Protocol

from torch.distributed import FileStore, Store, TCPStore

from realrl.api.launcher import Launcher
from realrl.base.listeners import admit_only, close_to_all
from realrl.base.peers import StrangerConnected, check_peers
from realrl.runtime.failure import RunFailed

logger = logging.getLogger(__name__)

_FILE, _PORT = "file", "port"


class Rendezvous(Protocol):
    """The master's end of the store."""

    where: str
    """The argument of `open_store`."""

    def admit(self, hosts: Collection[str]) -> None:
        """Admit the hosts from which all workers have dialled in."""

    def close_to_all(self) -> None:
        """Admit nobody any more: all workers have connected.

        Raises:
            RunFailed: somebody else has connected, too.
        """

    def close(self) -> None:
        """End the store; workers that are connected lose it."""


def open_rendezvous(launcher: Launcher) -> Rendezvous:
    """Return a store for the workers that `launcher` starts."""
    return FileRendezvous() if launcher.shares_proc else PortRendezvous(launcher.host)


def open_store(where: str, timeout: timedelta) -> Store:
    """Return a worker's end of the store; each of its waits fails after `timeout`."""
    kind, _, place = where.partition(":")
    if kind == _FILE:
        store = FileStore(place)
        store.set_timeout(timeout)
        return store
    host, _, port = place.rpartition(":")
    return TCPStore(host, int(port), is_master=False, timeout=timeout)


class FileRendezvous:
    """Memory without a name in any folder, so that no file system has to lock it or clean it up."""

    def __init__(self) -> None:
        self._memory = os.memfd_create("realrl-rendezvous", os.MFD_CLOEXEC)
        self.where = f"{_FILE}:/proc/{os.getpid()}/fd/{self._memory}"

    def admit(self, hosts: Collection[str]) -> None:
        """Do nothing except for a line in the log: the workers are on this host."""
        logger.info("workers find each other in this user's memory, and meet on the loopback")

    def close_to_all(self) -> None:
        """Do nothing: nobody else could ever open the memory."""

    def close(self) -> None:
        """Give the memory back."""
        os.close(self._memory)


class PortRendezvous:
    """Listens at one address of this host; at first for this host only, if the kernel filters."""

    def __init__(self, host: str) -> None:
        with socket.socket() as unopened:
            unopened.bind((host, 0))
            admit_only(unopened, {host})
            unopened.listen()
            self._listener = unopened.dup()
        own_host, own_port = self._listener.getsockname()
        self._own = own_host, own_port
        self._hosts: set[str] = {host}
        self._server_end = os.dup(self._listener.fileno())
        self._store = TCPStore(
            own_host, own_port, is_master=True, wait_for_workers=False, master_listen_fd=self._server_end
        )
        self.where = f"{_PORT}:{host}:{own_port}"

    def admit(self, hosts: Collection[str]) -> None:
        """Open the port to more hosts, if the kernel filters."""
        self._hosts.update(hosts)
        if admit_only(self._listener, self._hosts):
            logger.info(
                "workers find each other at port %d, which the kernel opens to their hosts only", self._own[1]
            )
        else:
            logger.warning(
                "workers find each other at port %d, which is open until all have connected: this process may"
                " not filter packets (CAP_NET_ADMIN)",
                self._own[1],
            )

    def close_to_all(self) -> None:
        """Close the port to everybody, and check who has connected.

        Raises:
            RunFailed: somebody else than the workers has.
        """
        close_to_all(self._listener.fileno(), self._server_end)
        try:
            check_peers(lambda end: end.local == self._own, self._hosts)
        except StrangerConnected as stranger:
            raise RunFailed(
                f"the store of the data plane: {stranger}; find out who, and start again"
            ) from None

    def close(self) -> None:
        """End the store, and stop to listen."""
        del self._store
        self._listener.close()

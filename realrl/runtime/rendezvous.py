"""Where the data plane's workers find each other: a store that nobody reaches but the run's hosts."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection

from torch.distributed import TCPStore

from realrl.base.listeners import admit_only, close_to_all


class Rendezvous:
    """Listens at one address of this host, at first to this host alone."""

    def __init__(self, host: str) -> None:
        with socket.socket() as unopened:
            unopened.bind((host, 0))
            admit_only(unopened, {host})
            unopened.listen()
            self._listener = unopened.dup()
        self.host, self.port = self._listener.getsockname()
        self._store = TCPStore(
            self.host,
            self.port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=os.dup(self._listener.fileno()),
        )

    def admit(self, hosts: Collection[str]) -> None:
        admit_only(self._listener, {self.host, *hosts})

    def close(self) -> None:
        """Workers that are connected lose it."""
        del self._store
        self._listener.close()

    def close_to_all(self) -> None:
        """All are there: who is connected stays so, and nobody else gets in."""
        close_to_all(self._listener)

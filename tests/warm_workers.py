"""Fork servers that all runs of this process share, so that each run does not import PyTorch anew."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from realrl.launch.fork_server import ForkRequest
from realrl.launch.forking import ForkServer
from realrl.launch.workers import IMPORTS

WARM = (*IMPORTS, "realrl.parallel.megatron", "realrl.recipes.ppo_math")
"""What a shared server imports: whatever most runs need."""
MOST = 3
"""Servers that are kept."""

Key = tuple[tuple[str, ...], str, frozenset[tuple[str, str]]]


class WarmServers:
    """Servers by what they have imported, where, and with which variables."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._servers: dict[Key, ForkServer] = {}

    def open(self, modules: Sequence[str], environment: Mapping[str, str], log: Path) -> LentServer:
        """As `ForkServer`, whose place this takes."""
        imported = WARM if set(modules) <= set(WARM) else tuple(modules)
        # What differs from test to test says nothing to a worker.
        variables = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
        key = imported, os.getcwd(), frozenset(variables.items())
        server = self._servers.pop(key, None)
        if server is None or server.code(0) is not None:
            server = ForkServer(imported, variables, self._log)
        self._servers[key] = server
        while len(self._servers) > MOST:
            self._servers.pop(next(iter(self._servers))).kill()
        return LentServer(server)

    def close(self) -> None:
        """End them all."""
        for server in self._servers.values():
            server.kill()
        self._servers.clear()


class LentServer:
    """A server for one start of workers; others use it before and after."""

    def __init__(self, server: ForkServer) -> None:
        self._server = server

    def request(self, request: ForkRequest) -> int:
        return self._server.request(request)

    def code(self, within_s: float) -> int | None:
        """As far as this start can see."""
        return self._server.code(0)

    def close(self) -> None:
        """It goes on."""

    def dump_stack(self) -> None:
        self._server.dump_stack()

    def kill(self) -> None:
        """The next start gets another one."""
        self._server.kill()

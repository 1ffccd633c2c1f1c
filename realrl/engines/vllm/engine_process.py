"""A vLLM process, as its worker sees it."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

import msgspec

from realrl.base.parent import PARENT_VARIABLE
from realrl.engines.vllm.protocol import Failed, Reply, Request, Said, Working

logger = logging.getLogger(__name__)

_COMMAND = (sys.executable, "-m", "realrl.engines.vllm.process")
_LOOKS_UP_S = 0.02
_SETTINGS = {
    # Model and engine in the one process, which threads as the worker does, and talks to nobody else.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
}


_OURS = ("LOCAL_RANK", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""Variables of a worker that are not vLLM's: it has one device, and an allocator whose memory it can put to
sleep, which refuses segments that grow.
"""


def environment(ours: Mapping[str, str], device: str) -> dict[str, str]:
    """Return the environment of a vLLM process for a device of this process's."""
    kept = {name: value for name, value in ours.items() if name not in _OURS}
    return {**kept, **_SETTINGS, **_visible(ours, device), PARENT_VARIABLE: str(os.getpid())}


class Child:
    """A process to send requests to; it is killed with this one, however this one ends."""

    def __init__(self, device: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*_COMMAND, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment(os.environ, device),
            )
        self._connection = Connection(ours.detach())
        self._decoder = msgspec.msgpack.Decoder(Said)
        self._unanswered = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, request: Request) -> None:
        """Have it begin; a failure is raised when something is asked."""
        try:
            self._connection.send_bytes(msgspec.msgpack.encode(request))
        except BrokenPipeError:
            raise self._ended() from None
        self._unanswered += 1

    def ask(
        self,
        request: Request,
        meanwhile: Callable[[], None] | None = None,
        progressed: Callable[[], None] = lambda: None,
    ) -> Reply:
        """The reply to `request`; until it comes, `meanwhile` is called now and then, and `progressed` as
        tokens are drawn.

        Raises:
            RuntimeError: the process failed in it, or in what it was told before, or ended.
        """
        self.tell(request)
        while self._unanswered:
            while meanwhile and not self._connection.poll(_LOOKS_UP_S):
                meanwhile()
            reply = self._receive()
            if isinstance(reply, Working):
                progressed()
                continue
            self._unanswered -= 1
            if isinstance(reply, Failed):
                logger.error("vLLM failed:\n%s", reply.traceback)
                raise RuntimeError(f"vLLM failed: {reply.error}")
        return reply

    def close(self) -> None:
        """End it at once: it has nothing to put in order, and would take seconds over it."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _receive(self) -> Said:
        try:
            return self._decoder.decode(self._connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            raise self._ended() from None

    def _ended(self) -> RuntimeError:
        code = self._process.wait()
        return RuntimeError(f"vLLM's process ended with exit code {code}; the worker's log says why")


def _visible(ours: Mapping[str, str], device: str) -> dict[str, str]:
    """The worker's device alone, which is number 0 over there."""
    if device == "cpu":
        return {}
    index, listed = int(device.partition(":")[2] or 0), ours.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": listed.split(",")[index] if listed else str(index)}

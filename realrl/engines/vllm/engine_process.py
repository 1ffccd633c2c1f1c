"""A vLLM process, as its worker sees it."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import TypeVar

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
"""Variables of a worker that vLLM must not see. It has one device, and its allocator, whose memory it can put
to sleep, refuses segments that grow.
"""

Answer = TypeVar("Answer", bound=Reply)


def environment(ours: Mapping[str, str], device: str) -> dict[str, str]:
    """Return the environment of a vLLM process for a device of this process's."""
    kept = {name: value for name, value in ours.items() if name not in _OURS}
    parent = {PARENT_VARIABLE: str(os.getpid())}
    return {**kept, **_SETTINGS, **_visible(ours, device), **parent}


class Child:
    """A process that answers requests; it is killed with this one, however this one ends."""

    def __init__(self, device: str) -> None:
        """Start the process, for a device of this process's."""
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = theirs.fileno()
            self._process = subprocess.Popen(
                [*_COMMAND, str(descriptor)],
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                env=environment(os.environ, device),
            )

        self._connection = Connection(ours.detach())
        self._decoder = msgspec.msgpack.Decoder(Said)
        self._unanswered = 0

    @property
    def pid(self) -> int:
        """Return the process's id."""
        return self._process.pid

    def tell(self, request: Request) -> None:
        """Have the process begin with a request; a failure in it is raised by the next `ask`."""
        try:
            self._connection.send_bytes(msgspec.msgpack.encode(request))
        except BrokenPipeError:
            raise self._ended() from None

        self._unanswered += 1

    def ask(
        self,
        request: Request,
        answer: type[Answer],
        meanwhile: Callable[[], None] | None = None,
        progressed: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Return the reply to `request`, which is of the type `answer`.

        While it waits, it calls `meanwhile` at once and every few hundredths of a second, and `progressed` as
        tokens are drawn.

        Raises:
            RuntimeError: the process failed in this request or in an earlier one, or it ended.
        """
        self.tell(request)
        # A short request may be answered before the first look.
        if meanwhile:
            meanwhile()
        while True:
            while meanwhile and not self._connection.poll(_LOOKS_UP_S):
                meanwhile()
            said = self._receive()
            if isinstance(said, Working):
                progressed()
                continue

            self._unanswered -= 1
            if isinstance(said, Failed):
                logger.error("vLLM failed:\n%s", said.traceback)
                raise RuntimeError(f"vLLM failed: {said.error}")

            if not self._unanswered:
                assert isinstance(said, answer), f"vLLM answered {said}, not {answer.__name__}"
                return said

    def close(self) -> None:
        """End the process at once: it has nothing to put in order, and would take seconds over it."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _receive(self) -> Said:
        try:
            data = self._connection.recv_bytes()
        except (EOFError, ConnectionResetError):
            raise self._ended() from None

        return self._decoder.decode(data)

    def _ended(self) -> RuntimeError:
        code = self._process.wait()
        return RuntimeError(f"vLLM's process ended with exit code {code}; the worker's log says why")


def _visible(ours: Mapping[str, str], device: str) -> dict[str, str]:
    """Return the variable that shows a process only the worker's device, as its number 0."""
    if device == "cpu":
        return {}
    index = int(device.partition(":")[2] or 0)
    listed = ours.get("CUDA_VISIBLE_DEVICES")
    visible = listed.split(",")[index] if listed else str(index)
    return {"CUDA_VISIBLE_DEVICES": visible}

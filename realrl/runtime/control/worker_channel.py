"""A worker's end of the control channel."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, MutableMapping

import zmq

from realrl.api.messages import ToMaster
from realrl.base.waiting import wait_for_instruction
from realrl.runtime.control.channel import ADDRESS_VARIABLE, KEYS_VARIABLE, KeyPair, identity_of, limit_frames
from realrl.runtime.control.wire import TO_MASTER, TO_WORKER, ToWorker


class WorkerChannel:
    """A worker's end."""

    def __init__(
        self,
        rank: int,
        address: str,
        server_public: str,
        client: KeyPair,
        context: zmq.Context | None = None,
    ) -> None:
        """Dial in. Several workers in one process share a `context`."""
        self._arrived: deque[ToWorker] = deque()
        self.master_host, _, _ = address.removeprefix("tcp://").rpartition(":")

        self._context = context or zmq.Context()
        dealer = self._context.socket(zmq.DEALER)
        dealer.identity = identity_of(rank)
        dealer.curve_serverkey = server_public.encode()
        dealer.curve_publickey = client.public
        dealer.curve_secretkey = client.secret
        limit_frames(dealer)
        dealer.connect(address)
        self._socket = dealer

    @classmethod
    def from_environment(
        cls, rank: int, environment: MutableMapping[str, str], context: zmq.Context | None = None
    ) -> WorkerChannel:
        """Dial in; the keys are removed from `environment`, so that no child inherits them."""
        address = _required(environment, ADDRESS_VARIABLE)
        keys = _required(environment, KEYS_VARIABLE)
        del environment[KEYS_VARIABLE]
        server_public, public, secret = keys.split()
        client = KeyPair(public.encode(), secret.encode())
        return cls(rank, address, server_public, client, context)

    @property
    def socket(self) -> zmq.Socket:
        """The socket, to be polled together with others."""
        return self._socket

    def send(self, message: ToMaster) -> None:
        """Send a report.

        Raises:
            ValueError: it is larger than the master accepts.
        """
        self._socket.send_multipart(TO_MASTER.pieces(message))

    def receive(self) -> ToWorker:
        """Wait for the next message, as long as it takes: the master watches over the time."""
        if self._arrived:
            return self._arrived.popleft()
        frames = wait_for_instruction(self._socket.recv_multipart)
        return TO_WORKER.read(frames)

    def arrived(self) -> Collection[ToWorker]:
        """Return the messages that have arrived and are still to be received."""
        while self._socket.poll(0):
            frames = self._socket.recv_multipart()
            self._arrived.append(TO_WORKER.read(frames))
        return self._arrived

    def close(self) -> None:
        """Send what is left for a second, and close the channel."""
        self._socket.close(linger=1000)
        self._context.term()


def _required(environment: Mapping[str, str], name: str) -> str:
    if name not in environment:
        raise ValueError(f"{name} is not set: a worker is started by a launcher, not by hand")
    return environment[name]

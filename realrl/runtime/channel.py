"""The control channel: one ROUTER socket at the master, one DEALER a worker, with keys made for the run.

CURVE encrypts and authenticates (rfc.zeromq.org/spec/26): without the run's client key nobody gets a
message in. What does get in is decoded by schema, and dropped if it does not fit.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from typing import NamedTuple

import msgspec
import zmq
from zmq.auth.thread import ThreadAuthenticator

from realrl.api.messages import ToMaster, ToWorker

logger = logging.getLogger(__name__)

ADDRESS_VARIABLE = "REALRL_MASTER"
KEYS_VARIABLE = "REALRL_KEYS"
LARGEST_MESSAGE_BYTES = 64 << 20


class KeyPair(NamedTuple):
    """A CURVE key pair."""

    public: bytes
    secret: bytes

    @classmethod
    def new(cls) -> KeyPair:
        return cls(*zmq.curve_keypair())


class MasterChannel:
    """The master's end. Close it, or use it as a context."""

    def __init__(self, host: str, num_workers: int) -> None:
        self._num_workers = num_workers
        self._server, self._client = KeyPair.new(), KeyPair.new()
        self._context = zmq.Context()
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(credentials_provider=_OneKey(self._client.public))
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.curve_server = True
        self._socket.curve_publickey, self._socket.curve_secretkey = self._server
        _bound(self._socket)
        port = self._socket.bind_to_random_port(f"tcp://{host}")
        self.address = f"tcp://{host}:{port}"
        self._decoder = msgspec.msgpack.Decoder(ToMaster)

    def environment(self) -> dict[str, str]:
        """What a worker needs to dial in; secret, so it goes by environment and never by command line."""
        keys = (self._server.public, *self._client)
        return {ADDRESS_VARIABLE: self.address, KEYS_VARIABLE: " ".join(key.decode() for key in keys)}

    def send(self, ranks: Iterable[int], message: ToWorker) -> None:
        """Encoded once, and kept once until the last of `ranks` has it."""
        frame = zmq.Frame(msgspec.msgpack.encode(message))
        for rank in ranks:
            self._socket.send_multipart([_identity(rank), frame], copy=False)

    def receive(self, timeout_s: float) -> tuple[int, ToMaster] | None:
        """The next report and its rank; None if there is no well-formed one within `timeout_s`."""
        if (frames := self._arrived() or self._awaited(timeout_s)) is None:
            return None
        try:
            identity, payload = frames
            rank = int(identity)
            if not 0 <= rank < self._num_workers:
                raise ValueError(f"there is no rank {rank}")
            return rank, self._decoder.decode(payload)
        except ValueError as error:  # msgspec's errors are ValueErrors
            logger.warning("dropped a message that is not of this run: %s", error)
            return None

    def _arrived(self) -> list[bytes] | None:
        """What is there already, without the cost of a poll."""
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def _awaited(self, timeout_s: float) -> list[bytes] | None:
        return self._socket.recv_multipart() if self._socket.poll(int(timeout_s * 1000)) else None

    def close(self) -> None:
        self._socket.close(linger=1000)
        self._authenticator.stop()
        self._context.term()

    def __enter__(self) -> MasterChannel:
        return self

    def __exit__(self, *_) -> None:
        self.close()


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
        """`context`: where several workers are in one process."""
        self._context = context or zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.identity = _identity(rank)
        self._socket.curve_serverkey = server_public.encode()
        self._socket.curve_publickey, self._socket.curve_secretkey = client
        _bound(self._socket)
        self._socket.connect(address)
        self._decoder = msgspec.msgpack.Decoder(ToWorker)
        self._arrived: deque[ToWorker] = deque()

    @classmethod
    def from_environment(
        cls, rank: int, environment: MutableMapping[str, str], context: zmq.Context | None = None
    ) -> WorkerChannel:
        """Dial the master; the keys are taken out of `environment`, so that no child inherits them."""
        address, keys = _required(environment, ADDRESS_VARIABLE), _required(environment, KEYS_VARIABLE)
        del environment[KEYS_VARIABLE]
        server_public, public, secret = keys.split()
        return cls(rank, address, server_public, KeyPair(public.encode(), secret.encode()), context)

    @property
    def socket(self) -> zmq.Socket:
        """To be polled along with others."""
        return self._socket

    def send(self, message: ToMaster) -> None:
        self._socket.send(msgspec.msgpack.encode(message))

    def receive(self) -> ToWorker:
        """Wait for the next instruction. The master watches over the time that it takes."""
        return self._arrived.popleft() if self._arrived else self._decoder.decode(self._socket.recv())

    def arrived(self) -> Collection[ToWorker]:
        """What is there to be received."""
        while self._socket.poll(0):
            self._arrived.append(self._decoder.decode(self._socket.recv()))
        return self._arrived

    def close(self) -> None:
        self._socket.close(linger=1000)
        self._context.term()


class _OneKey:
    """Lets in who holds the run's client key."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._public


def _identity(rank: int) -> bytes:
    return str(rank).encode()


def _bound(socket: zmq.Socket) -> None:
    socket.maxmsgsize = LARGEST_MESSAGE_BYTES
    socket.sndhwm = socket.rcvhwm = 0


def _required(environment: Mapping[str, str], name: str) -> str:
    if name not in environment:
        raise ValueError(f"{name} is not set: a worker is started by a launcher, not by hand")
    return environment[name]

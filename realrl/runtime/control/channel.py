"""The control channel: one ROUTER socket at the master, one DEALER a worker, with keys made for the run.

CURVE encrypts and authenticates (rfc.zeromq.org/spec/26): without the run's client key nobody gets a
message in. What does get in is decoded by schema, and dropped if it does not fit. A worker's identity is its
rank, which nobody else can take while it is connected (there is no ZMQ_ROUTER_HANDOVER).
"""

from __future__ import annotations

import logging
import os
import resource
import socket
from collections import deque
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from typing import NamedTuple

import zmq
from zmq.auth.thread import ThreadAuthenticator

from realrl.api.messages import Hello, Setup, StepAside, Stop, ToMaster
from realrl.base.listeners import admit_only
from realrl.base.network import answers
from realrl.base.waiting import wait_for_instruction
from realrl.program.instructions import Instruction
from realrl.runtime.control.log_throttle import Drops
from realrl.runtime.control.wire import PIECE_BYTES, TO_MASTER, TO_WORKER, ToWorker
from realrl.runtime.failure import RunFailed

logger = logging.getLogger(__name__)

ADDRESS_VARIABLE = "REALRL_MASTER"
KEYS_VARIABLE = "REALRL_KEYS"

_HANDSHAKE_MS = 10_000
"""Who has not proved by then that it has the keys is disconnected."""
_BACKLOG = 1024
_OWN_ANSWER_S = 5.0
"""How long this host may take to answer itself, which takes a millisecond."""
_SEAL_BYTES = 33
"""That CURVE adds to a frame: the command's name, nonce, authenticator and flags."""
_MOST_FILES = 1 << 16
"""Strangers that connect and say nothing hold that many at most."""


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
        """
        Raises:
            RunFailed: this host cannot listen at `host`, or does not reach itself there.
        """
        self._listener = _listen(host)
        self._ranks = {_identity(rank): rank for rank in range(num_workers)}
        self._drops = Drops(logger)
        self.hosts: set[str] = set()
        """Where workers have dialled in from."""
        self.data_hosts: set[str] = set()
        """Where workers connect to each other from, as they say."""
        self._server, self._client = KeyPair.new(), KeyPair.new()
        self._context = zmq.Context()
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(credentials_provider=_OneKey(self._client.public))
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.curve_server = True
        self._socket.curve_publickey, self._socket.curve_secretkey = self._server
        _bound(self._socket)
        self._socket.handshake_ivl = _HANDSHAKE_MS
        _allow_many_files()
        self.address = f"tcp://{host}:{self._listener.getsockname()[1]}"
        self._socket.use_fd = os.dup(self._listener.fileno())
        self._socket.bind(self.address)

    def environment(self) -> dict[str, str]:
        """What a worker needs to dial in; secret, so it goes by environment and never by command line."""
        keys = (self._server.public, *self._client)
        return {ADDRESS_VARIABLE: self.address, KEYS_VARIABLE: " ".join(key.decode() for key in keys)}

    def send(self, ranks: Iterable[int], message: Setup | Stop | StepAside | Instruction) -> None:
        """Encoded once, and kept once until the last of `ranks` has it.

        Raises:
            RunFailed: it is larger than a worker takes.
        """
        try:
            pieces = [zmq.Frame(piece) for piece in TO_WORKER.pieces(message)]
        except ValueError as error:
            raise RunFailed(str(error)) from None
        for rank in ranks:
            self._socket.send_multipart([_identity(rank), *pieces], copy=False)

    def receive(self, timeout_s: float) -> tuple[int, ToMaster] | None:
        """The next report and its rank; None if there is no well-formed one within `timeout_s`."""
        if (frames := self._arrived() or self._awaited(timeout_s)) is None:
            return None
        identity, *pieces = frames
        try:
            if (rank := self._ranks.get(identity.bytes)) is None:
                raise ValueError(f"there is no rank {identity.bytes[:20]!r}")
            message = TO_MASTER.read([piece.bytes for piece in pieces])
        except ValueError as error:
            self._drops.note(str(error))
            return None
        self.hosts.add(str(identity.get("Peer-Address")))
        if isinstance(message, Hello):
            self.data_hosts.update(message.addresses)
        return rank, message

    def admit_only_hosts(self) -> None:
        """From now on nobody connects but from where workers have dialled in, if this process may filter."""
        if admit_only(self._listener, self.hosts):
            logger.info("the kernel opens the control port, %s, to the workers' hosts only", self.address)
        else:
            logger.info(
                "the control port, %s, is protected by the run's keys alone: this process may not filter"
                " packets (CAP_NET_ADMIN)",
                self.address,
            )

    def _arrived(self) -> list[zmq.Frame] | None:
        """What is there already, without the cost of a poll."""
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None

    def _awaited(self, timeout_s: float) -> list[zmq.Frame] | None:
        return self._socket.recv_multipart(copy=False) if self._socket.poll(int(timeout_s * 1000)) else None

    def close(self) -> None:
        self._socket.close(linger=1000)
        self._listener.close()
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
        self.master_host = address.removeprefix("tcp://").rpartition(":")[0]
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
        """
        Raises:
            ValueError: it is larger than the master takes.
        """
        self._socket.send_multipart(TO_MASTER.pieces(message))

    def receive(self) -> ToWorker:
        """Wait for the next instruction. The master watches over the time that it takes."""
        if self._arrived:
            return self._arrived.popleft()
        frames = wait_for_instruction(self._socket.recv_multipart)
        return TO_WORKER.read(frames)

    def arrived(self) -> Collection[ToWorker]:
        """What is there to be received."""
        while self._socket.poll(0):
            self._arrived.append(TO_WORKER.read(self._socket.recv_multipart()))
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


def _bound(end: zmq.Socket) -> None:
    end.maxmsgsize = PIECE_BYTES + _SEAL_BYTES
    end.sndhwm = end.rcvhwm = 0


def _listen(host: str) -> socket.socket:
    """A listener at an address of this host that a worker here can connect to."""
    try:
        listener = socket.create_server((host, 0), backlog=_BACKLOG)
    except OSError as error:
        what = f"cannot listen at {host}: {error.strerror or error}; is its network interface up?"
        raise RunFailed(what) from None
    if not answers(*listener.getsockname(), within_s=_OWN_ANSWER_S):
        listener.close()
        raise RunFailed(
            f"this host does not reach itself at {host}; bring its network interface up, the loopback by"
            " 'ip link set lo up', and let no firewall stand between"
        )
    return listener


def _allow_many_files() -> None:
    """As many as this process may allow itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _MOST_FILES)), hard))


def _required(environment: Mapping[str, str], name: str) -> str:
    if name not in environment:
        raise ValueError(f"{name} is not set: a worker is started by a launcher, not by hand")
    return environment[name]

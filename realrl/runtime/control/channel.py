"""The control channel: one ROUTER socket at the master, one DEALER per worker, with keys made for the run.

    master  ROUTER ◀── Hello, Ready, Underway, Done, Failed ── DEALER  worker, whose identity is its rank
                   ─── Setup, instructions, Preempt, Stop ─▶

CURVE encrypts and authenticates (rfc.zeromq.org/spec/26): without the run's client key, nobody's messages are
accepted. Accepted ones are decoded by schema, and dropped if they do not fit. Nobody else can take a worker's
identity while it is connected (there is no ZMQ_ROUTER_HANDOVER).
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

from realrl.api.messages import Hello, Preempt, Setup, Stop, ToMaster
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
"""Whoever has not proved by then that it has the keys is disconnected."""
_BACKLOG = 1024
_OWN_ANSWER_S = 5.0
"""The time in which this host must answer itself, which takes a millisecond."""
_MS = 1000
"""Milliseconds per second."""
_SEAL_BYTES = 33
"""Bytes that CURVE adds to a frame: the command's name, nonce, authenticator and flags."""
_MOST_FILES = 1 << 16
"""At most so many files are held by strangers that connect and say nothing."""


class KeyPair(NamedTuple):
    """A CURVE key pair."""

    public: bytes
    secret: bytes

    @classmethod
    def new(cls) -> KeyPair:
        """Return a new key pair."""
        public, secret = zmq.curve_keypair()
        return cls(public, secret)


class MasterChannel:
    """The master's end. Close it, or use it as a context."""

    def __init__(self, host: str, num_workers: int) -> None:
        """Listen at `host`, an address of this host.

        Raises:
            RunFailed: this host cannot listen there, or does not reach itself there.
        """
        self._ranks = {_identity(rank): rank for rank in range(num_workers)}
        self._drops = Drops(logger)
        self.hosts: set[str] = set()
        """The addresses from which workers have dialled in."""
        self.data_hosts: set[str] = set()
        """The addresses from which workers connect to each other, as they say."""
        self._listener = _listen(host)
        _, port = self._listener.getsockname()
        self.address = f"tcp://{host}:{port}"
        self._server = KeyPair.new()
        self._client = KeyPair.new()
        self._context = zmq.Context()
        self._authenticator = self._begin_authentication()
        self._socket = self._open_socket()
        _allow_many_files()
        self._socket.use_fd = os.dup(self._listener.fileno())
        self._socket.bind(self.address)

    def _begin_authentication(self) -> ThreadAuthenticator:
        """Begin to admit those that hold the run's client key, and nobody else."""
        authenticator = ThreadAuthenticator(self._context)
        authenticator.start()
        key = _OneKey(self._client.public)
        authenticator.configure_curve_callback(credentials_provider=key)
        return authenticator

    def _open_socket(self) -> zmq.Socket:
        router = self._context.socket(zmq.ROUTER)
        router.curve_server = True
        router.curve_publickey = self._server.public
        router.curve_secretkey = self._server.secret
        router.handshake_ivl = _HANDSHAKE_MS
        _bound(router)
        return router

    def environment(self) -> dict[str, str]:
        """Return the variables with which a worker dials in.

        They are secret: command lines, which others can read, must not have them.
        """
        keys = b" ".join((self._server.public, *self._client))
        return {ADDRESS_VARIABLE: self.address, KEYS_VARIABLE: keys.decode()}

    def send(self, ranks: Iterable[int], message: Setup | Stop | Preempt | Instruction) -> None:
        """Send a message, which is encoded once, and kept once until the last of `ranks` has it.

        Raises:
            RunFailed: it is larger than a worker accepts.
        """
        try:
            pieces = [zmq.Frame(piece) for piece in TO_WORKER.pieces(message)]
        except ValueError as error:
            raise RunFailed(str(error)) from None
        for rank in ranks:
            self._socket.send_multipart([_identity(rank), *pieces], copy=False)

    def receive(self, timeout_s: float) -> tuple[int, ToMaster] | None:
        """Return the next report with its rank; None if no well-formed one comes within `timeout_s`."""
        frames = self._arrived() or self._awaited(timeout_s)
        if frames is None:
            return None
        identity, *pieces = frames
        try:
            rank = self._ranks.get(identity.bytes)
            if rank is None:
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
        """Admit only connections from the workers' hosts from now on, if this process may filter packets."""
        if admit_only(self._listener, self.hosts):
            logger.info("the kernel opens the control port, %s, to the workers' hosts only", self.address)
        else:
            logger.info(
                "the control port, %s, is protected by the run's keys alone: this process may not filter"
                " packets (CAP_NET_ADMIN)",
                self.address,
            )

    def _arrived(self) -> list[zmq.Frame] | None:
        """Return a message that is there already, without the cost of a poll; None if there is none."""
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None

    def _awaited(self, timeout_s: float) -> list[zmq.Frame] | None:
        """Return the message that comes within `timeout_s`; None if none comes."""
        if not self._socket.poll(int(timeout_s * _MS)):
            return None
        return self._socket.recv_multipart(copy=False)

    def close(self) -> None:
        """Send what is left for a second, and close the channel."""
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
        """Dial in. Several workers in one process share a `context`."""
        self._arrived: deque[ToWorker] = deque()
        self.master_host, _, _ = address.removeprefix("tcp://").rpartition(":")

        self._context = context or zmq.Context()
        dealer = self._context.socket(zmq.DEALER)
        dealer.identity = _identity(rank)
        dealer.curve_serverkey = server_public.encode()
        dealer.curve_publickey = client.public
        dealer.curve_secretkey = client.secret
        _bound(dealer)
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


class _OneKey:
    """Admits those that hold the run's client key."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def callback(self, domain: str, key: bytes) -> bool:
        """Return whether a client with this public key is admitted."""
        return key == self._public


def _identity(rank: int) -> bytes:
    return str(rank).encode()


def _bound(end: zmq.Socket) -> None:
    """Limit the length of a socket's frames, but not their number: messages must not be dropped."""
    end.maxmsgsize = PIECE_BYTES + _SEAL_BYTES
    end.sndhwm = 0
    end.rcvhwm = 0


def _listen(host: str) -> socket.socket:
    """Return a listener at an address of this host that a worker here can connect to.

    Raises:
        RunFailed: there can be none.
    """
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
    """Raise this process's limit of open files, as far as it may and needs to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, min(hard, _MOST_FILES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _required(environment: Mapping[str, str], name: str) -> str:
    if name not in environment:
        raise ValueError(f"{name} is not set: a worker is started by a launcher, not by hand")
    return environment[name]

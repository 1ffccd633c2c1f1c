"""The master's end of the control channel: admits the run's workers and nobody else."""

from __future__ import annotations

import logging
import os
import resource
import socket
from collections.abc import Iterable

import zmq
from zmq.auth.thread import ThreadAuthenticator

from realrl.api.messages import Hello, Preempt, Setup, Stop, ToMaster
from realrl.base.listeners import admit_only
from realrl.base.network import answers
from realrl.program.instructions import Instruction
from realrl.runtime.control.channel import ADDRESS_VARIABLE, KEYS_VARIABLE, KeyPair, identity_of, limit_frames
from realrl.runtime.control.log_throttle import Drops
from realrl.runtime.control.wire import TO_MASTER, TO_WORKER
from realrl.runtime.failure import RunFailed

logger = logging.getLogger(__name__)

_HANDSHAKE_MS = 10_000
"""Whoever has not proved by then that it has the keys is disconnected."""
_BACKLOG = 1024
_OWN_ANSWER_S = 5.0
"""The time in which this host must answer itself, which takes a millisecond."""
_MS = 1000
"""Milliseconds per second."""
_MOST_FILES = 1 << 16
"""At most so many files are held by strangers that connect and say nothing."""


class MasterChannel:
    """The master's end. Close it, or use it as a context."""

    def __init__(self, host: str, num_workers: int) -> None:
        """Listen at `host`, an address of this host.

        Raises:
            RunFailed: this host cannot listen there, or does not reach itself there.
        """
        self._ranks = {identity_of(rank): rank for rank in range(num_workers)}
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
        limit_frames(router)
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
            self._socket.send_multipart([identity_of(rank), *pieces], copy=False)

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


class _OneKey:
    """Admits those that hold the run's client key."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def callback(self, domain: str, key: bytes) -> bool:
        """Return whether a client with this public key is admitted."""
        return key == self._public


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

"""The control channel: one ROUTER socket at the master, one DEALER per worker, with keys made for the run.

    master  ROUTER ◀── Hello, Ready, Underway, Done, Failed ── DEALER  worker, whose identity is its rank
                   ─── Setup, instructions, Preempt, Stop ─▶

CURVE encrypts and authenticates (rfc.zeromq.org/spec/26): without the run's client key, nobody's messages are
accepted. Accepted ones are decoded by schema, and dropped if they do not fit. Nobody else can take a worker's
identity while it is connected (there is no ZMQ_ROUTER_HANDOVER).

The ends are in `master_channel` and `worker_channel`; here is what both need.
"""

from __future__ import annotations

from typing import NamedTuple

import zmq

from realrl.runtime.control.wire import PIECE_BYTES

ADDRESS_VARIABLE = "REALRL_MASTER"
KEYS_VARIABLE = "REALRL_KEYS"
_SEAL_BYTES = 33
"""Bytes that CURVE adds to a frame: the command's name, nonce, authenticator and flags."""


class KeyPair(NamedTuple):
    """A CURVE key pair."""

    public: bytes
    secret: bytes

    @classmethod
    def new(cls) -> KeyPair:
        """Return a new key pair."""
        public, secret = zmq.curve_keypair()
        return cls(public, secret)


def identity_of(rank: int) -> bytes:
    """Return the identity of a worker's socket."""
    return str(rank).encode()


def limit_frames(end: zmq.Socket) -> None:
    """Limit the length of a socket's frames, but not their number: messages must not be dropped."""
    end.maxmsgsize = PIECE_BYTES + _SEAL_BYTES
    end.sndhwm = 0
    end.rcvhwm = 0

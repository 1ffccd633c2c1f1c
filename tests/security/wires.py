"""What a stranger can say to a ZMTP port, made from what is said there.

Source: rfc.zeromq.org/spec/23 (ZMTP 3.0: greeting, frames) and rfc.zeromq.org/spec/26 (CURVE).
"""

from __future__ import annotations

import random
import select
import socket
import struct
import threading

MECHANISMS = (b"NULL", b"PLAIN", b"CURVE", b"GSSAPI", b"", b"\xff" * 20)
COMMANDS = (b"HELLO", b"WELCOME", b"INITIATE", b"READY", b"ERROR", b"PING", b"")
_WAIT_S = 5.0


def noise(draw: random.Random) -> bytes:
    """Bytes without a meaning."""
    return draw.randbytes(draw.choice((0, 1, 10, 64, 200, 1000)))


def greeted(draw: random.Random) -> bytes:
    """A greeting, right or nearly, then commands and messages of which some are long, torn or false."""
    greeting = (
        b"\xff" + bytes(8) + b"\x7f" + bytes([draw.choice((0, 1, 2, 3, 3, 3, 4, 255)), draw.randrange(2)])
    )
    greeting += draw.choice(MECHANISMS).ljust(20, b"\0") + bytes([draw.randrange(2)]) + bytes(31)
    return mutated(draw, greeting, draw.choice((0, 0, 0, 1, 3))) + b"".join(
        _frame(draw) for _ in range(draw.randrange(4))
    )


def _frame(draw: random.Random) -> bytes:
    name = draw.choice(COMMANDS)
    body = bytes([len(name)]) + name + draw.randbytes(draw.choice((0, 1, 80, 194, 249)))
    if draw.random() < 0.2:
        flags, said = (
            draw.choice((2, 3, 6, 7, 255)),
            draw.choice((len(body), 0, 1 << 20, 1 << 40, (1 << 64) - 1)),
        )
        return bytes([flags]) + struct.pack(">Q", said) + body
    return bytes([draw.choice((0, 1, 4, 4, 4, 255)), draw.choice((len(body) % 256, 0, 255))]) + body


def mutated(draw: random.Random, data: bytes, changes: int) -> bytes:
    """With some bytes changed, left out, repeated or put in."""
    data = bytearray(data)
    for _ in range(changes):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(5):
            case 0 if data:
                data[at % len(data)] = draw.randrange(256)
            case 1:
                del data[at : at + draw.randrange(1, 9)]
            case 2:
                data[at:at] = draw.randbytes(draw.randrange(1, 9))
            case 3:
                data[at:at] = data[at : at + draw.randrange(1, 99)]
            case _:
                data[at:at] = draw.choice(
                    (b"\xdd\xff\xff\xff\xff", b"\x91" * 5000, b"\xdf\xff\xff\xff\xff", b"\xc1")
                )
    return bytes(data)


class Tap:
    """A port that passes on what it gets to another one and back, and keeps what was said towards it."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard = bytearray()
        self._thread = threading.Thread(target=self._pass, daemon=True)
        self._thread.start()

    def _pass(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.create_connection(self._target) as server:
            while True:
                ready, _, _ = select.select([client, server], [], [], _WAIT_S)
                for one in ready:
                    if not (data := one.recv(1 << 16)):
                        return
                    (server if one is client else client).sendall(data)
                    self.heard += data if one is client else b""

    def close(self) -> None:
        self._thread.join(2 * _WAIT_S)
        self._listener.close()

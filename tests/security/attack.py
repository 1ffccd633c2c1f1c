"""Strangers at a run's ports, of which some have listened to a worker's whole session.

python -m tests.security.attack FOLDER INPUTS SEED      with the variables that a worker gets
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil
import zmq

from realrl.api.messages import Failed
from realrl.base.listeners import admit_only
from realrl.runtime.control.channel import ADDRESS_VARIABLE, KEYS_VARIABLE, KeyPair
from realrl.runtime.control.worker_channel import WorkerChannel
from tests.security.wires import Tap, greeted, mutated, noise

_BATCH = 50
_KNOCKS = 200
_KNOCK_S = 0.5
_START_S = 300.0
LIE = Failed(seq=None, error="a stranger was heard", traceback="")


def attack(folder: Path, num_inputs: int, seed: int) -> dict[str, int]:
    """How many inputs of each kind were sent."""
    draw = random.Random(seed)
    host, port = os.environ[ADDRESS_VARIABLE].removeprefix("tcp://").split(":")
    control = (host, int(port))
    session = _recorded_session(*control)
    made: dict[str, Callable[[random.Random], bytes]] = {
        "random bytes": noise,
        "greetings and commands": greeted,
        "replayed sessions": lambda draw: _replayed(draw, session),
    }
    counts = {kind: 0 for kind in made} | _impostors()
    _check_ports(control, folder)
    counts["knocks from elsewhere"] = _knock(control)
    kinds = list(made)
    while (sent := sum(counts.values())) < num_inputs:
        kind = kinds[sent // _BATCH % len(kinds)]
        _speak(control, [made[kind](draw) for _ in range(_BATCH)])
        counts[kind] += _BATCH
    return counts


def _speak(address: tuple[str, int], texts: list[bytes]) -> None:
    """Each on a connection of its own, some of which are left open for a while."""
    connections = []
    for text in texts:
        with suppress(ConnectionError):
            connection = socket.create_connection(address)
            connections.append(connection)
            connection.sendall(text)
    for connection in connections:
        connection.close()


def _recorded_session(host: str, port: int) -> bytes:
    """What a worker of a rank that the run has not got says, from its greeting to its last message."""
    tap = Tap(host, port)
    server_public, public, secret = os.environ[KEYS_VARIABLE].split()
    worker = WorkerChannel(10**6, tap.address, server_public, KeyPair(public.encode(), secret.encode()))
    for _ in range(3):
        worker.send(LIE)
    worker.close()
    tap.close()
    assert len(tap.heard) > 500, "a session that got through"
    return bytes(tap.heard)


def _replayed(draw: random.Random, session: bytes) -> bytes:
    """As it was, torn, or with a few bytes changed."""
    start = draw.choice((0, 0, 0, draw.randrange(len(session))))
    torn = session[start : draw.choice((None, draw.randrange(start, len(session) + 1)))]
    return mutated(draw, torn, draw.choice((0, 1, 2)))


def _impostors() -> dict[str, int]:
    """Clients without keys, with a password, with keys of their own, and with a wrong one of the server."""
    server_public = os.environ[KEYS_VARIABLE].split()[0].encode()
    context = zmq.Context()
    kinds = {
        "clients without keys": lambda end: None,
        "clients with a password": lambda end: (
            end.set(zmq.PLAIN_USERNAME, b"0"),
            end.set(zmq.PLAIN_PASSWORD, b"0"),
        ),
        "clients with keys of their own": lambda end: _with_keys(end, server_public),
        "clients of another server": lambda end: _with_keys(end, KeyPair.new().public),
    }
    return {kind: sum(1 for _ in _shouting(context, dress)) for kind, dress in kinds.items()}


def _with_keys(end: zmq.Socket, server: bytes) -> None:
    end.curve_serverkey = server
    end.curve_publickey, end.curve_secretkey = KeyPair.new()


def _shouting(context: zmq.Context, dress: Callable[[zmq.Socket], object]) -> Iterator[None]:
    ends = [context.socket(zmq.DEALER) for _ in range(25)]
    for end in ends:
        end.identity = b"0"
        dress(end)
        end.connect(os.environ[ADDRESS_VARIABLE])
        end.send(msgspec.msgpack.encode(LIE))
    time.sleep(_KNOCK_S)
    for end in ends:
        end.close(linger=0)
        yield


def _check_ports(control: tuple[str, int], folder: Path) -> None:
    """Once the run is at work, neither the master nor a worker listens at anything else."""
    deadline_s = time.monotonic() + _START_S
    while not (folder / "at-work").exists():
        assert time.monotonic() < deadline_s, "the run did not start"
        time.sleep(0.05)
    master = psutil.Process(os.getppid())
    processes = [master, *(child for child in master.children() if child.pid != os.getpid())]
    found = {tuple(c.laddr) for p in processes for c in p.net_connections("tcp") if c.status == "LISTEN"}
    assert found == {control}, f"the data plane is open at {found - {control}}"
    assert not any(_secret() in part for p in psutil.process_iter() for part in _command_line(p))


def _secret() -> str:
    """The client's key."""
    return os.environ[KEYS_VARIABLE].split()[2]


def _command_line(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def _knock(control: tuple[str, int]) -> int:
    """From another address than the workers'; nobody opens where the kernel filters."""
    knocking = []
    for _ in range(_KNOCKS):
        end = socket.socket()
        end.bind(("127.0.0.2", 0))
        end.setblocking(False)
        end.connect_ex(control)
        knocking.append(end)
    time.sleep(_KNOCK_S)
    states = [_is_connected(end) for end in knocking]
    assert not (any(states) and _may_filter()), f"{sum(states)} of {len(states)} got in"
    for end in knocking:
        end.close()
    return len(knocking)


def _may_filter() -> bool:
    with socket.socket() as unused:
        return admit_only(unused, ())


def _is_connected(end: socket.socket) -> bool:
    try:
        end.getpeername()
        return True
    except OSError:
        return False


if __name__ == "__main__":
    where, many, first = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    (where / "attack.json").write_text(json.dumps(attack(where, many, first)))

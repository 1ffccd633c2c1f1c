"""Faults, each at a place of its own in a run, and how they come about there."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "REALRL_TEST_FAULTS"
"""Names the folder with the faults of this process's run."""
MASTER = -1
PHASES = ("generate", "reward", "train", "reallocate", "save", "load")
KINDS = {
    "worker killed": "kill",
    "worker stopped": "stop",
    "worker out of memory": "exhaust_memory",
    "data connections dropped": "drop_data",
    "control connection dropped": "drop_control",
    "connections slowed": "slow_down",
    "verifier killed": "kill_children",
    "disk full": "fill_disk",
    "master killed": "kill",
    "master stopped for a while": "stop_for_a_while",
    "checkpoint corrupted": "kill",
}
OF_MASTER = ("master killed", "master stopped for a while", "checkpoint corrupted")
LATEST_S = 0.05
"""How long after a phase's beginning a fault may come."""
_PAUSE_S = 2.0
_SLOW_BYTES_PER_S = 50_000
_SO_MAX_PACING_RATE, _ANY_PACE = 47, 0xFFFFFFFF
"""Source: Linux, socket(7)'s asm-generic/socket.h."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault of a run; it comes once."""

    name: str
    kind: str
    phase: str
    step: int
    rank: int
    delay_s: float
    after: str = ""
    """In the phase `load`: the fault whose restart loads."""


def make_faults(kind: str, phases: Sequence[str], repetitions: int, seed: int) -> list[Fault]:
    """A step each, from step 2 on; a load is that of a worker that was killed before."""
    drawn, faults = random.Random(f"{kind} {seed}"), []
    places = [phase for _ in range(repetitions) for phase in phases]
    for step, phase in enumerate(places, start=2):
        is_at_once = KINDS[kind] == "exhaust_memory"  # for this very phase must see it
        common = {"step": step, "delay_s": 0.0 if is_at_once else drawn.uniform(0, LATEST_S)}
        after = ""
        if phase == "load":
            after = f"{step:03d}-before"
            faults.append(
                Fault(name=after, kind="worker killed", phase="train", rank=drawn.randrange(2), **common)
            )
        rank = MASTER if kind in OF_MASTER else drawn.randrange(2)
        name = f"{step:03d}-{phase}"
        faults.append(Fault(name=name, kind=kind, phase=phase, rank=rank, after=after, **common))
    return faults


def write_faults(folder: Path, faults: Iterable[Fault]) -> None:
    (folder / "fired").mkdir(parents=True)
    (folder / "faults.json").write_text(json.dumps([asdict(fault) for fault in faults]))


class Injector:
    """Brings about those faults of a run that are for this process."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._folder = folder
        faults = (Fault(**fault) for fault in json.loads((folder / "faults.json").read_text()))
        self._faults = [fault for fault in faults if fault.rank == rank]

    def at(self, phase: str, step: int) -> None:
        """This process begins with something."""
        for fault in self._faults:
            if fault.phase == phase and self._is_due(fault, step) and self._claim(fault):
                self._bring_about(fault)

    def _is_due(self, fault: Fault, step: int) -> bool:
        return (self._fired(fault.after)).exists() if fault.after else fault.step == step

    def _claim(self, fault: Fault) -> bool:
        try:
            with self._fired(fault.name).open("x") as file:
                file.write(repr(time.time() + fault.delay_s))
            return True
        except FileExistsError:
            return False

    def _fired(self, name: str) -> Path:
        return self._folder / "fired" / name

    def _bring_about(self, fault: Fault) -> None:
        act: Callable[[], None] = ACTS[KINDS[fault.kind]]
        if not fault.delay_s:
            return act()
        timer = threading.Timer(fault.delay_s, act)
        timer.daemon = True
        timer.start()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def stop_for_a_while() -> None:
    subprocess.Popen(["sh", "-c", f"sleep {_PAUSE_S}; kill -CONT {os.getpid()}"], start_new_session=True)
    stop()


def exhaust_memory() -> None:
    """Take all that this process may have, until the allocator says no."""
    import torch

    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + (64 << 20), resource.RLIM_INFINITY))
    taken = []
    while True:
        taken.append(torch.ones(4 << 20))


def drop_data() -> None:
    """End every connection of this process but that with the master."""
    for connection in _connections():
        if not _is_control(connection):
            connection.shutdown(socket.SHUT_RDWR)


def drop_control() -> None:
    for connection in _connections():
        if _is_control(connection):
            connection.shutdown(socket.SHUT_RDWR)


def slow_down() -> None:
    """Let this process send little for a while."""
    _pace(_SLOW_BYTES_PER_S)
    time.sleep(_PAUSE_S)
    _pace(_ANY_PACE)


def _pace(bytes_per_s: int) -> None:
    for connection in _connections():
        connection.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, struct.pack("I", bytes_per_s))


def kill_children() -> None:
    """Those that the verifier has here."""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            os.kill(int(child), signal.SIGKILL)


def fill_disk() -> None:
    """That on which the run's directory lies, which is small."""
    with (Path(os.environ[VARIABLE]) / "disk" / "filler").open("wb", buffering=0) as filler:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                continue


def _connections() -> list[socket.socket]:
    """Of this process, by TCP; each through a descriptor of its own."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            connection = socket.socket(fileno=os.dup(int(entry)))
            connection.getpeername()
        except OSError:
            continue
        if connection.family == socket.AF_INET and connection.type == socket.SOCK_STREAM:
            found.append(connection)
    return found


def _is_control(connection: socket.socket) -> bool:
    port = int(os.environ["REALRL_MASTER"].rpartition(":")[2])
    return connection.getpeername()[1] == port


ACTS = {
    act.__name__: act
    for act in (
        kill,
        stop,
        stop_for_a_while,
        exhaust_memory,
        drop_data,
        drop_control,
        slow_down,
        kill_children,
        fill_disk,
    )
}

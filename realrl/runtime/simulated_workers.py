"""Simulated workers: many ranks in one process, which answer as workers do, after a time, and do nothing.

No torch here: a rank costs a socket, a queue and what it notes down.
"""

from __future__ import annotations

import faulthandler
import heapq
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import zmq

from realrl.api.launcher import RANK_VARIABLE
from realrl.api.mesh import Placement
from realrl.api.messages import Done, Hello, Ready, Setup, StepAside, Stop
from realrl.base.parent import PARENT_VARIABLE, die_with_parent
from realrl.program.instructions import RunCall
from realrl.runtime.control.channel import WorkerChannel

SCRIPT_VARIABLE = "REALRL_SIMULATED"


class CallScript(msgspec.Struct, frozen=True, kw_only=True):
    """What ranks pretend of a call."""

    seconds: float
    dtypes: dict[str, str]
    """Of its outputs."""
    per_sample: frozenset[str]
    """Outputs with one number a sample."""
    metrics: tuple[str, ...]
    record: str
    """What is written down of each sample; nothing if empty."""


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What the ranks of a process pretend: every `num_processes`-th, from the process's own number on."""

    num_workers: int
    num_processes: int
    calls: dict[str, CallScript]
    notes: str
    """The directory where each process leaves a `Notes`."""


class Notes(msgspec.Struct):
    """When things happened, in nanoseconds of the machine's monotonic clock."""

    arrived: list[tuple[int, int, int]] = []
    """(seq, rank, time) of instructions."""
    reported: list[tuple[int, int, int]] = []


class ToldFunction(msgspec.Struct, frozen=True):
    """What a simulated worker looks at of the function that a call runs."""

    name: str


class Told(msgspec.Struct, frozen=True):
    """Of a message to a worker, what a simulated one looks at."""

    type: str
    seq: int = 0
    function: ToldFunction | None = None
    shares: tuple[tuple[tuple[int, int], ...], ...] = ()

    @property
    def call(self) -> str:
        """The call that it runs or serves."""
        return self.function.name if self.function else ""


@lru_cache(maxsize=16)
def decode(payload: bytes) -> Told:
    """Once for all ranks of the process: in a run, each has a core of its own for it."""
    return msgspec.msgpack.decode(payload, type=Told)


class Rank:
    """Carries out its instructions one by one, each after its time."""

    def __init__(self, rank: int, channel: WorkerChannel, script: Script, notes: Notes) -> None:
        self.rank, self.channel = rank, channel
        self._script, self._notes = script, notes
        self._placements: Mapping[str, Placement] = {}
        self._waiting: deque[Told] = deque()
        self._since_s = 0.0
        self.has_ended = False
        channel.send(Hello())

    def take_in(self) -> bool:
        """What has arrived; whether the rank was idle and now has something to do."""
        now_ns = time.monotonic_ns()
        payload = b"".join(self.channel.socket.recv_multipart())
        told = decode(payload)
        match told.type:
            case Setup.__name__:
                self._placements = msgspec.msgpack.decode(payload, type=Setup).placements
                self.channel.send(Ready())
            case Stop.__name__:
                self.has_ended = True
            case StepAside.__name__:
                raise NotImplementedError("simulated ranks do not generate stale rollouts")
            case _:
                self._notes.arrived.append((told.seq, self.rank, now_ns))
                self._waiting.append(told)
                return len(self._waiting) == 1
        return False

    def begin(self) -> float | None:
        """The first instruction that waits: when it will be done; None if there is none."""
        if not self._waiting:
            return None
        self._since_s, first = time.time(), self._waiting[0]
        seconds = self._script.calls[first.call].seconds if first.type == RunCall.__name__ else 0.0
        return time.monotonic() + seconds

    def end(self) -> None:
        """Report what was begun."""
        instruction = self._waiting.popleft()
        said = self._outputs(instruction) if instruction.type == RunCall.__name__ else {}
        done = Done(seq=instruction.seq, started_s=self._since_s, ended_s=time.time(), **said)
        self._notes.reported.append((instruction.seq, self.rank, time.monotonic_ns()))
        self.channel.send(done)

    def _outputs(self, run: Told) -> dict[str, Any]:
        return outputs(self._script.calls[run.call], self._placements[run.call], run.shares, self.rank)


def outputs(
    call: CallScript, placement: Placement, shares: Sequence[Sequence[tuple[int, int]]], rank: int
) -> dict[str, Any]:
    """What `Done` says of a call's outputs on a rank."""
    dp_rank = placement.coordinate(rank).dp_rank
    share, holders = shares[dp_rank], placement.output_ranks(dp_rank)
    said: dict[str, Any] = {
        "metrics": {name: (float(len(share)), float(len(share))) for name in call.metrics}
    }
    if rank == holders[0] and call.record:
        said["records"] = [{"row": row, "sample": id, "response": call.record} for id, row in share]
    if rank in holders and call.dtypes:
        said["samples"] = tuple(id for id, _ in share)
        said["dtypes"] = call.dtypes
        said["lengths"] = {
            key: tuple(1 if key in call.per_sample else _length(id, row) for id, row in share)
            for key in call.dtypes
        }
    return said


def serve(ranks: list[Rank], poller: zmq.Poller) -> None:
    """Until every rank is told to stop."""
    by_socket = {rank.channel.socket: rank for rank in ranks}
    due: list[tuple[float, int]] = []
    by_number = {rank.rank: rank for rank in ranks}

    def begin(rank: Rank) -> None:
        if (at_s := rank.begin()) is not None:
            heapq.heappush(due, (at_s, rank.rank))

    while not all(rank.has_ended for rank in ranks):
        for socket, _ in poller.poll(_wait_ms(due)):
            if by_socket[socket].take_in():
                begin(by_socket[socket])
        while due and due[0][0] <= time.monotonic():
            rank = by_number[heapq.heappop(due)[1]]
            rank.end()
            begin(rank)


def _wait_ms(due: list[tuple[float, int]]) -> int | None:
    """Milliseconds until the first rank is due; None if none is."""
    if not due:
        return None
    first_s, _ = due[0]
    return int(max(0.0, (first_s - time.monotonic()) * 1e3))


def _length(sample: int, row: int) -> int:
    """Tokens: the same on every rank, and as uneven as those of responses."""
    return 200 + (7919 * sample + 104729 * row) % 1801


def main() -> int:
    """Dial in as each rank of this process, and serve."""
    die_with_parent(int(os.environ[PARENT_VARIABLE]))
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    script = msgspec.json.decode(os.environ[SCRIPT_VARIABLE], type=Script)
    process, notes, context, poller = int(os.environ[RANK_VARIABLE]), Notes(), zmq.Context(), zmq.Poller()
    ranks = []
    for number in range(process, script.num_workers, script.num_processes):
        channel = WorkerChannel.from_environment(number, dict(os.environ), context)
        ranks.append(Rank(number, channel, script, notes))
        poller.register(channel.socket, zmq.POLLIN)
    serve(ranks, poller)
    (Path(script.notes) / f"{process}.msgpack").write_bytes(msgspec.msgpack.encode(notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())

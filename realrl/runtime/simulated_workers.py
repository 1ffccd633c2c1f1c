"""Simulated workers: many ranks in one process, which answer as workers do, after a time, and do nothing.

This module does without torch: a rank costs a socket, a queue and its notes.
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
from realrl.api.messages import Done, Hello, Preempt, Ready, Setup, Stop
from realrl.base.parent import PARENT_VARIABLE, die_with_parent
from realrl.program.instructions import RunCall
from realrl.runtime.control.worker_channel import WorkerChannel

SCRIPT_VARIABLE = "REALRL_SIMULATED"


class CallScript(msgspec.Struct, frozen=True, kw_only=True):
    """What ranks pretend about a call."""

    seconds: float
    """The time that it takes."""
    dtypes: dict[str, str]
    """The types of its outputs."""
    per_sample: frozenset[str]
    """The outputs with one number per sample."""
    metrics: tuple[str, ...]
    record: str
    """The text that is recorded of each sample; nothing if empty."""


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What the ranks of a process pretend: every `num_processes`-th rank from the process's number on."""

    num_workers: int
    num_processes: int
    calls: dict[str, CallScript]
    notes: str
    """The directory where each process leaves a `Notes`."""


class Notes(msgspec.Struct):
    """The times at which things happened, in nanoseconds of the machine's monotonic clock."""

    arrived: list[tuple[int, int, int]] = []
    """(seq, rank, time) of instructions."""
    reported: list[tuple[int, int, int]] = []
    """(seq, rank, time) of reports."""


class ToldFunction(msgspec.Struct, frozen=True):
    """The part of a call's function that a simulated worker reads."""

    name: str


class Told(msgspec.Struct, frozen=True):
    """The part of a message to a worker that a simulated one reads."""

    type: str
    seq: int = 0
    function: ToldFunction | None = None
    shares: tuple[tuple[tuple[int, int], ...], ...] = ()

    @property
    def call(self) -> str:
        """The call that it runs or serves, if any."""
        return self.function.name if self.function else ""


@lru_cache(maxsize=16)
def decode(payload: bytes) -> Told:
    """Return a message, decoded once for all ranks of the process: in a run each rank has a core for that."""
    return msgspec.msgpack.decode(payload, type=Told)


class Rank:
    """Carries out its instructions one by one, each after its time."""

    def __init__(self, rank: int, channel: WorkerChannel, script: Script, notes: Notes) -> None:
        """Dial in."""
        self.rank = rank
        self.channel = channel
        self._script = script
        self._notes = notes
        self._placements: Mapping[str, Placement] = {}
        self._waiting: deque[Told] = deque()
        self._since_s = 0.0
        self.has_ended = False
        channel.send(Hello())

    def take_in(self) -> bool:
        """Receive a message; return whether the rank was idle and now has something to do."""
        now_ns = time.monotonic_ns()
        payload = b"".join(self.channel.socket.recv_multipart())
        told = decode(payload)
        match told.type:
            case Setup.__name__:
                self._placements = msgspec.msgpack.decode(payload, type=Setup).placements
                self.channel.send(Ready())
            case Stop.__name__:
                self.has_ended = True
            case Preempt.__name__:
                raise NotImplementedError("simulated ranks do not generate stale rollouts")
            case _:
                self._notes.arrived.append((told.seq, self.rank, now_ns))
                self._waiting.append(told)
                return len(self._waiting) == 1
        return False

    def begin(self) -> float | None:
        """Begin the first instruction that waits; return when it will be done, None if there is none."""
        if not self._waiting:
            return None
        self._since_s = time.time()
        first = self._waiting[0]
        seconds = 0.0
        if first.type == RunCall.__name__:
            seconds = self._script.calls[first.call].seconds
        return time.monotonic() + seconds

    def end(self) -> None:
        """Report the instruction that was begun."""
        instruction = self._waiting.popleft()
        seq = instruction.seq
        said: dict[str, Any] = {}
        if instruction.type == RunCall.__name__:
            said = self._outputs(instruction)
        done = Done(seq=seq, started_s=self._since_s, ended_s=time.time(), **said)

        now_ns = time.monotonic_ns()
        self._notes.reported.append((seq, self.rank, now_ns))
        self.channel.send(done)

    def _outputs(self, run: Told) -> dict[str, Any]:
        script = self._script.calls[run.call]
        placement = self._placements[run.call]
        return outputs(script, placement, run.shares, self.rank)


def outputs(
    call: CallScript, placement: Placement, shares: Sequence[Sequence[tuple[int, int]]], rank: int
) -> dict[str, Any]:
    """Return what `Done` says of a call's outputs on a rank."""
    dp_rank = placement.coordinate(rank).dp_rank
    share = shares[dp_rank]
    holders = placement.output_ranks(dp_rank)

    weight = float(len(share))
    metrics = dict.fromkeys(call.metrics, (weight, weight))
    said: dict[str, Any] = {"metrics": metrics}
    if rank == holders[0] and call.record:
        said["records"] = _records(call, share)
    if rank in holders and call.dtypes:
        ids = [id for id, _ in share]
        lengths: dict[str, tuple[int, ...]] = {}
        for key in call.dtypes:
            lengths[key] = _lengths(call, key, share)
        said["samples"] = tuple(ids)
        said["dtypes"] = call.dtypes
        said["lengths"] = lengths
    return said


def _records(call: CallScript, share: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Return the record of each sample."""
    records: list[dict[str, Any]] = []
    for id, row in share:
        record = {"row": row, "sample": id, "response": call.record}
        records.append(record)
    return records


def _lengths(call: CallScript, key: str, share: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return the number of elements of an output in each sample."""
    if key in call.per_sample:
        return (1,) * len(share)
    return tuple(_length(id, row) for id, row in share)


def serve(ranks: list[Rank], poller: zmq.Poller) -> None:
    """Carry out instructions until every rank is told to stop."""
    by_socket = {rank.channel.socket: rank for rank in ranks}
    by_number = {rank.rank: rank for rank in ranks}
    # A heap of (time, rank): when each busy rank will be done.
    due: list[tuple[float, int]] = []

    def begin(rank: Rank) -> None:
        at_s = rank.begin()
        if at_s is not None:
            heapq.heappush(due, (at_s, rank.rank))

    while not all(rank.has_ended for rank in ranks):
        for socket, _ in poller.poll(_wait_ms(due)):
            rank = by_socket[socket]
            if rank.take_in():
                begin(rank)
        while due and due[0][0] <= time.monotonic():
            _, number = heapq.heappop(due)
            rank = by_number[number]
            rank.end()
            begin(rank)


def _wait_ms(due: list[tuple[float, int]]) -> int | None:
    """Milliseconds until the first rank is due; None if none is."""
    if not due:
        return None
    first_s, _ = due[0]
    return int(max(0.0, (first_s - time.monotonic()) * 1e3))


def _length(sample: int, row: int) -> int:
    """Return a number of tokens: the same on every rank, and as uneven as responses are."""
    return 200 + (7919 * sample + 104729 * row) % 1801


def main() -> int:
    """Dial in as each rank of this process, and serve."""
    die_with_parent(int(os.environ[PARENT_VARIABLE]))
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    script = msgspec.json.decode(os.environ[SCRIPT_VARIABLE], type=Script)
    process = int(os.environ[RANK_VARIABLE])

    notes = Notes()
    context = zmq.Context()
    poller = zmq.Poller()
    ranks = []
    for number in range(process, script.num_workers, script.num_processes):
        channel = WorkerChannel.from_environment(number, dict(os.environ), context)
        ranks.append(Rank(number, channel, script, notes))
        poller.register(channel.socket, zmq.POLLIN)
    serve(ranks, poller)

    path = Path(script.notes) / f"{process}.msgpack"
    path.write_bytes(msgspec.msgpack.encode(notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())

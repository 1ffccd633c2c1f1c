"""The event log: what a scheduler was told, and what it sent, line by line as JSON. Pure.

    Head            the scheduler's state when the log begins
    Instructions    instructions of a program, once; stages name them by number
    JobOpened       a job, once; stages name it by number
    Happened        an event, and the instructions that it allowed

`realrl.program.replay` tells another scheduler the same events: it sends the same instructions, or the first
line where it does not is known.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from realrl.api.messages import Done, Preempt
from realrl.program.events import Closed, Event, Job, Reported, Stage, Withdrawn
from realrl.program.instructions import AnyInstruction
from realrl.program.scheduler import Emitted
from realrl.program.scheduler_state import SchedulerState, without_program

FORMAT = 2
"""The version of what a log's lines hold."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """An instruction that was sent: enough to recognise it."""

    seq: int
    what: str
    """For people."""
    checksum: int
    """CRC-32 of the instruction as it is encoded for workers."""


class Head(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The first line of a log."""

    format: int
    realrl: str
    """The version of realrl that writes the log."""
    state: SchedulerState


class Instructions(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Instructions that stages bring, step after step."""

    number: int
    instructions: tuple[AnyInstruction, ...]


class JobOpened(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A job whose stages follow."""

    job: Job


class StageBegun(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A stage: a job and instructions, by number."""

    job: int
    instructions: int
    is_last: bool


class Report(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A rank's report, without metrics and records."""

    rank: int
    done: Done


class JobsWithdrawn(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Jobs that were given up."""

    jobs: tuple[int, ...]


class JobClosed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A job that has ended."""

    job: int


Told = StageBegun | Report | JobsWithdrawn | JobClosed


class Happened(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What the scheduler was told, and what it sent."""

    at_s: float
    """Seconds since the epoch."""
    told: Told
    sent: tuple[Sent, ...] = ()


Line = Head | Instructions | JobOpened | Happened

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


class LoggedEvent(NamedTuple):
    """An event of a log, as the scheduler takes it."""

    line: int
    """Its line in the log, from 1 up."""
    at_s: float
    event: Event
    sent: tuple[Sent, ...]


def recognised(emitted: Sequence[Emitted]) -> tuple[Sent, ...]:
    """Return what a log keeps of instructions that were sent."""
    return tuple(_sent(instruction) for instruction in emitted)


def _sent(instruction: Emitted) -> Sent:
    what = "preempt" if isinstance(instruction, Preempt) else str(instruction)
    checksum = zlib.crc32(msgspec.msgpack.encode(instruction))
    return Sent(seq=instruction.seq, what=what, checksum=checksum)


class LogWriter:
    """Turns events into lines. What earlier lines of the same log hold is not repeated."""

    def __init__(self, realrl: str, state: SchedulerState) -> None:
        """`realrl`: its version; `state`: the scheduler's, before the first event."""
        self._head = Head(format=FORMAT, realrl=realrl, state=state)
        self._jobs = {job.number for job in state.jobs}
        self._programs: list[tuple[AnyInstruction, ...]] = []

    def head(self) -> bytes:
        """Return the first line."""
        return _line(self._head)

    def lines(self, event: Event, emitted: Sequence[Emitted], at_s: float) -> bytes:
        """Return the lines of an event that the scheduler was told at `at_s`."""
        before: list[Line] = []
        match event:
            case Stage():
                told: Told = self._stage(event, before)
            case Reported():
                told = Report(rank=event.rank, done=_without_records(event.done))
            case Withdrawn():
                told = JobsWithdrawn(jobs=event.jobs)
            case Closed():
                self._jobs.discard(event.job)
                told = JobClosed(job=event.job)
        happened = Happened(at_s=at_s, told=told, sent=recognised(emitted))
        return b"".join(_line(line) for line in (*before, happened))

    def _stage(self, stage: Stage, before: list[Line]) -> StageBegun:
        """Return a stage's line; what it names for the first time goes to `before`."""
        job = stage.job
        if job.number not in self._jobs:
            self._jobs.add(job.number)
            before.append(JobOpened(job=without_program(job)))
        number = self._number_of(stage.instructions)
        if number == len(self._programs):
            self._programs.append(stage.instructions)
            before.append(Instructions(number=number, instructions=stage.instructions))
        return StageBegun(job=job.number, instructions=number, is_last=stage.is_last)

    def _number_of(self, instructions: tuple[AnyInstruction, ...]) -> int:
        """Return the number of these very instructions; the next free one where they are new."""
        for number, known in enumerate(self._programs):
            if known is instructions:
                return number
        return len(self._programs)


def read_head(line: bytes) -> Head:
    """Return a log's first line.

    Raises:
        ValueError: it is no such line, or of another format.
    """
    head = _decoded(1, line)
    if not isinstance(head, Head):
        raise ValueError("line 1: expected the head of an event log; give a whole file")
    if head.format != FORMAT:
        raise ValueError(f"line 1: the log is of format {head.format}, this realrl reads format {FORMAT}")
    return head


def read_events(head: Head, lines: Iterable[bytes]) -> Iterator[LoggedEvent]:
    """Return the events of a log, in order; `lines` are those that follow the head.

    A last line that was cut off, as by a kill, is left out.

    Raises:
        ValueError: a line that is no line of a log, with its number.
    """
    jobs = {job.number: job for job in head.state.jobs}
    programs: dict[int, tuple[AnyInstruction, ...]] = {}
    for number, line in enumerate(lines, start=2):
        if not line.endswith(b"\n"):
            return
        match _decoded(number, line):
            case Instructions() as found:
                programs[found.number] = found.instructions
            case JobOpened() as opened:
                jobs[opened.job.number] = opened.job
            case Happened() as happened:
                event = _event(happened.told, jobs, programs)
                yield LoggedEvent(number, happened.at_s, event, happened.sent)
            case Head():
                raise ValueError(f"line {number}: a second head; give one file at a time")


def _event(told: Told, jobs: dict[int, Job], programs: dict[int, tuple[AnyInstruction, ...]]) -> Event:
    match told:
        case StageBegun():
            return Stage(jobs[told.job], programs[told.instructions], told.is_last)
        case Report():
            return Reported(told.rank, told.done)
        case JobsWithdrawn():
            return Withdrawn(told.jobs)
        case JobClosed():
            return Closed(told.job)


def _decoded(number: int, line: bytes) -> Line:
    try:
        return _DECODER.decode(line)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"line {number}: no line of an event log: {error}") from None


def _line(line: Line) -> bytes:
    return _ENCODER.encode(line) + b"\n"


def _without_records(done: Done) -> Done:
    """Return what the scheduler looks at of a report, and its times; no text of a sample is logged."""
    return msgspec.structs.replace(done, metrics={}, peaks={}, records=[], files=())

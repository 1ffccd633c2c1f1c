"""Which worker is busy with which instruction, since when, and when it last made progress.

sent ──▶ held up ──▶ runs ──progressed──▶ runs ──all reported──▶ done
                      │ ▲                  │
          preempted (its time stands still)       no progress for `timeout_s`: overdue
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from realrl.program.instructions import Instruction, RunCall


@dataclass(eq=False)
class Outstanding:
    """An instruction that some rank has yet to report."""

    instruction: Instruction
    awaited: set[int]
    held_up: set[int] = field(default_factory=set)
    """Ranks that are busy with an earlier instruction, which cannot be preempted."""
    behind: set[int] = field(default_factory=set)
    """Ranks that have other work at hand, if this instruction can be preempted."""
    started_s: float | None = None
    """When every awaited rank was free for it, later by the time for which it was preempted."""
    progressed_s: float | None = None
    """When a rank last made progress, at first when it started; later by the same time."""
    preempted_s: float | None = None
    """Since when it is preempted, if it has started and is."""


class Duty(NamedTuple):
    """What a rank has to do first, and since when that is so."""

    outstanding: Outstanding | None
    """None: nothing."""
    since_s: float


@dataclass
class Deadlines:
    """Follows the workers' queues. Pure: the caller gives the time.

    A worker carries out its instructions one by one, and ranks that share one wait for each other. So an
    instruction's time begins when none of its ranks is busy with an earlier one that cannot be preempted.
    """

    timeout_s: float
    began_s: float = 0.0
    _queues: dict[int, list[Outstanding]] = field(default_factory=dict)
    _duties: dict[int, Duty] = field(default_factory=dict)
    _by_seq: dict[int, Outstanding] = field(default_factory=dict)

    def sent(self, instruction: Instruction, now_s: float) -> None:
        """Note that an instruction was sent to its ranks."""
        outstanding = Outstanding(instruction, set(instruction.ranks))
        self._by_seq[instruction.seq] = outstanding
        before: set[Outstanding] = set()
        for rank in instruction.ranks:
            queue = self._queues.setdefault(rank, [])
            if not all(_is_preemptible(earlier.instruction) for earlier in queue):
                outstanding.held_up.add(rank)
            for earlier in queue:
                earlier.behind.add(rank)
            before.update(queue)
            queue.append(outstanding)
        self._turn_to(instruction.ranks, now_s)
        self._follow((outstanding, *before), now_s)

    def reported(self, rank: int, seq: int, now_s: float) -> Instruction:
        """Note that `rank` has done the instruction of number `seq`, and return it."""
        outstanding = self._outstanding_at_hand(rank, seq)
        assert outstanding, f"rank {rank} reports {seq} out of order"
        queue = self._queues[rank]
        queue.remove(outstanding)
        outstanding.awaited.remove(rank)
        outstanding.behind.discard(rank)
        if outstanding.awaited:
            self.progressed(seq, now_s)
        else:
            del self._by_seq[seq]
        for free in self._at_hand(rank):
            free.held_up.discard(rank)
        if queue:
            queue[-1].behind.discard(rank)
        self._turn_to([rank], now_s)
        self._follow((outstanding, *queue), now_s)
        return outstanding.instruction

    def progressed(self, seq: int, now_s: float) -> None:
        """Note that some rank has made progress with an instruction, which puts off its deadline."""
        outstanding = self._by_seq[seq]
        if outstanding.started_s is not None:
            # What was sent before it was preempted counts as the last that it did.
            outstanding.progressed_s = now_s if outstanding.preempted_s is None else outstanding.preempted_s

    def current(self, rank: int) -> Instruction | None:
        """Return what `rank` is busy with; None when it is idle."""
        current = None
        for outstanding in self._at_hand(rank):
            if outstanding.started_s is not None:
                current = outstanding.instruction
        return current

    def duty(self, rank: int) -> Duty:
        """Return what `rank` has to do first."""
        return self._duties.get(rank, Duty(None, self.began_s))

    def outstanding(self) -> list[Outstanding]:
        """Return all instructions that some rank has yet to report, the oldest first."""
        return sorted(self._by_seq.values(), key=_seq)

    def find(self, rank: int, seq: int) -> Instruction | None:
        """Return the instruction of number `seq` that `rank` was sent and has not reported."""
        for outstanding in self._queues.get(rank, ()):
            if outstanding.instruction.seq == seq:
                return outstanding.instruction
        return None

    def is_at_hand(self, rank: int, seq: int) -> bool:
        """Whether `rank` may be busy with it."""
        return self._outstanding_at_hand(rank, seq) is not None

    def running(self) -> list[Instruction]:
        """Return what has started and not ended, the oldest first."""
        return [outstanding.instruction for outstanding in self._started()]

    def overdue(self, now_s: float) -> Outstanding | None:
        """Return the oldest instruction in which nothing has progressed for longer than may be."""
        for outstanding in self._started():
            progressed_s = outstanding.progressed_s
            if outstanding.preempted_s is not None or progressed_s is None:
                continue
            if now_s - progressed_s > self.timeout_s:
                return outstanding
        return None

    def _started(self) -> list[Outstanding]:
        started = [outstanding for outstanding in self._by_seq.values() if outstanding.started_s is not None]
        return sorted(started, key=_seq)

    def _outstanding_at_hand(self, rank: int, seq: int) -> Outstanding | None:
        for outstanding in self._at_hand(rank):
            if outstanding.instruction.seq == seq:
                return outstanding
        return None

    def _at_hand(self, rank: int) -> Iterator[Outstanding]:
        """Return what a rank may be busy with: its first, and if that may be preempted, what comes next."""
        for outstanding in self._queues.get(rank, ()):
            yield outstanding
            if not _is_preemptible(outstanding.instruction):
                return

    def _turn_to(self, ranks: Iterable[int], now_s: float) -> None:
        """Note what the ranks have to do first from now on."""
        for rank in ranks:
            at_hand = list(self._at_hand(rank))
            first = at_hand[-1] if at_hand else None
            if rank not in self._duties or self._duties[rank].outstanding is not first:
                self._duties[rank] = Duty(first, now_s)

    def _follow(self, changed: Iterable[Outstanding], now_s: float) -> None:
        """Start what nothing holds up; stop the time of what is preempted, and let it run on afterwards."""
        for outstanding in changed:
            if outstanding.started_s is None and not outstanding.held_up:
                outstanding.started_s = now_s
                outstanding.progressed_s = now_s
            if outstanding.started_s is None:
                continue
            is_preempted = bool(outstanding.behind) and _is_preemptible(outstanding.instruction)
            if is_preempted and outstanding.preempted_s is None:
                outstanding.preempted_s = now_s
            elif not is_preempted and outstanding.preempted_s is not None:
                _put_off(outstanding, now_s - outstanding.preempted_s)
                outstanding.preempted_s = None


def _put_off(outstanding: Outstanding, by_s: float) -> None:
    """Add to an instruction's times that for which it was preempted."""
    assert outstanding.started_s is not None and outstanding.progressed_s is not None
    outstanding.started_s += by_s
    outstanding.progressed_s += by_s


def _seq(outstanding: Outstanding) -> int:
    return outstanding.instruction.seq


def _is_preemptible(instruction: Instruction) -> bool:
    return isinstance(instruction, RunCall) and instruction.preemptible

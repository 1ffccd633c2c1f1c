"""Which worker is busy with which instruction, since when, and when it last made progress.

sent ──▶ held up ──▶ runs ──progressed──▶ runs ──all reported──▶ done
                      │ ▲                  │
             stands aside (its time stands still)       no progress for `timeout_s`: overdue
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from realrl.api.messages import Instruction, RunCall


@dataclass(eq=False)
class Outstanding:
    """An instruction that some rank has yet to report."""

    instruction: Instruction
    awaited: set[int]
    held_up: set[int] = field(default_factory=set)
    """Ranks that are busy with an earlier one, which does not step aside."""
    behind: set[int] = field(default_factory=set)
    """Ranks that have something else at hand, if it steps aside."""
    started_s: float | None = None
    """When every awaited rank was free for it, put off by the time that it stood aside."""
    progressed_s: float | None = None
    """When a rank last got on with it, at first when it started; put off likewise."""
    aside_s: float | None = None
    """Since when it stands aside, if it has started and does."""


class Duty(NamedTuple):
    """What a rank has to do first, and since when that is so."""

    outstanding: Outstanding | None
    """None: nothing."""
    since_s: float


@dataclass
class Deadlines:
    """Follows the workers' queues. Pure: the caller gives the time.

    A worker carries out its instructions one by one, and ranks that share one wait for each other, so an
    instruction's time begins when none of its ranks is busy with an earlier one that does not step aside.
    """

    timeout_s: float
    began_s: float = 0.0
    _queues: dict[int, list[Outstanding]] = field(default_factory=dict)
    _duties: dict[int, Duty] = field(default_factory=dict)
    _by_seq: dict[int, Outstanding] = field(default_factory=dict)

    def sent(self, instruction: Instruction, now_s: float) -> None:
        outstanding = Outstanding(instruction, set(instruction.ranks))
        self._by_seq[instruction.seq] = outstanding
        before: set[Outstanding] = set()
        for rank in instruction.ranks:
            queue = self._queues.setdefault(rank, [])
            if not all(_steps_aside(o.instruction) for o in queue):
                outstanding.held_up.add(rank)
            for earlier in queue:
                earlier.behind.add(rank)
            before.update(queue)
            queue.append(outstanding)
        self._turn_to(instruction.ranks, now_s)
        self._follow((outstanding, *before), now_s)

    def reported(self, rank: int, seq: int, now_s: float) -> Instruction:
        """The instruction that `rank` has done."""
        outstanding = next((o for o in self._at_hand(rank) if o.instruction.seq == seq), None)
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
        """Some rank has got on with an instruction, whose deadline is put off by that."""
        outstanding = self._by_seq[seq]
        if outstanding.started_s is not None:
            # What was sent before it stood aside counts as the last that it did.
            outstanding.progressed_s = now_s if outstanding.aside_s is None else outstanding.aside_s

    def current(self, rank: int) -> Instruction | None:
        """What `rank` is busy with; None when it is idle."""
        started = [o.instruction for o in self._at_hand(rank) if o.started_s is not None]
        return started[-1] if started else None

    def duty(self, rank: int) -> Duty:
        return self._duties.get(rank, Duty(None, self.began_s))

    def outstanding(self) -> list[Outstanding]:
        """Oldest first."""
        return sorted(self._by_seq.values(), key=lambda o: o.instruction.seq)

    def find(self, rank: int, seq: int) -> Instruction | None:
        """What `rank` was sent under that number and has not reported."""
        return next((o.instruction for o in self._queues.get(rank, ()) if o.instruction.seq == seq), None)

    def is_at_hand(self, rank: int, seq: int) -> bool:
        """Whether `rank` may be busy with it."""
        return any(outstanding.instruction.seq == seq for outstanding in self._at_hand(rank))

    def running(self) -> list[Instruction]:
        """What has started and not ended, oldest first."""
        return [o.instruction for o in self._started()]

    def overdue(self, now_s: float) -> Outstanding | None:
        """The oldest instruction in which nothing has progressed for longer than may be."""
        going = (o for o in self._started() if o.aside_s is None)
        return next((o for o in going if now_s - o.progressed_s > self.timeout_s), None)

    def _started(self) -> list[Outstanding]:
        started = (o for o in self._by_seq.values() if o.started_s is not None)
        return sorted(started, key=lambda o: o.instruction.seq)

    def _at_hand(self, rank: int) -> Iterator[Outstanding]:
        """What a rank may be busy with: its first, and where that steps aside, what comes after it."""
        for outstanding in self._queues.get(rank, ()):
            yield outstanding
            if not _steps_aside(outstanding.instruction):
                return

    def _turn_to(self, ranks: Iterable[int], now_s: float) -> None:
        for rank in ranks:
            *_, first = (None, *self._at_hand(rank))
            if rank not in self._duties or self._duties[rank].outstanding is not first:
                self._duties[rank] = Duty(first, now_s)

    def _follow(self, changed: Iterable[Outstanding], now_s: float) -> None:
        """Start what nothing holds up; stop the time of what stands aside, and go on with it then."""
        for outstanding in changed:
            if outstanding.started_s is None and not outstanding.held_up:
                outstanding.started_s = outstanding.progressed_s = now_s
            is_aside = bool(outstanding.behind) and _steps_aside(outstanding.instruction)
            if outstanding.started_s is None or is_aside == (outstanding.aside_s is not None):
                continue
            if not is_aside:
                outstanding.started_s += now_s - outstanding.aside_s
                outstanding.progressed_s += now_s - outstanding.aside_s
            outstanding.aside_s = now_s if is_aside else None


def _steps_aside(instruction: Instruction) -> bool:
    return isinstance(instruction, RunCall) and instruction.steps_aside

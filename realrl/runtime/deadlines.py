"""Which worker is busy with which instruction, and since when."""

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
    started_s: float | None = None
    """When every awaited rank was free for it, put off by the time that it stood aside."""
    aside_s: float | None = None
    """Since when it stands aside, if it does."""


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

    def sent(self, instruction: Instruction, now_s: float) -> None:
        outstanding = Outstanding(instruction, set(instruction.ranks))
        for rank in instruction.ranks:
            self._queues.setdefault(rank, []).append(outstanding)
        self._turn_to(instruction.ranks, now_s)
        self._start(now_s)

    def reported(self, rank: int, seq: int, now_s: float) -> Instruction:
        """The instruction that `rank` has done."""
        outstanding = next((o for o in self._at_hand(rank) if o.instruction.seq == seq), None)
        assert outstanding, f"rank {rank} reports {seq} out of order"
        self._queues[rank].remove(outstanding)
        outstanding.awaited.remove(rank)
        self._turn_to([rank], now_s)
        self._start(now_s)
        return outstanding.instruction

    def current(self, rank: int) -> Instruction | None:
        """What `rank` is busy with; None when it is idle."""
        started = [o.instruction for o in self._at_hand(rank) if o.started_s is not None]
        return started[-1] if started else None

    def duty(self, rank: int) -> Duty:
        return self._duties.get(rank, Duty(None, self.began_s))

    def at_hand(self) -> list[Outstanding]:
        """What some rank is at, or would be if others had come to it; oldest first."""
        return sorted(self._heads(), key=lambda o: o.instruction.seq)

    def absent(self, outstanding: Outstanding) -> set[int]:
        """The ranks that have not come to it, as they are busy with something earlier."""
        return {rank for rank in outstanding.awaited if outstanding not in self._at_hand(rank)}

    def find(self, rank: int, seq: int) -> Instruction | None:
        """What `rank` was sent under that number and has not reported."""
        return next((o.instruction for o in self._queues.get(rank, ()) if o.instruction.seq == seq), None)

    def is_at_hand(self, rank: int, seq: int) -> bool:
        """Whether `rank` may be busy with it."""
        return any(outstanding.instruction.seq == seq for outstanding in self._at_hand(rank))

    def running(self) -> list[Instruction]:
        """What has started and not ended, oldest first."""
        return [o.instruction for o in self.at_hand() if o.started_s is not None]

    def overdue(self, now_s: float) -> Outstanding | None:
        """The oldest instruction that takes longer than it may."""
        going = [o for o in self._heads() if o.started_s is not None and o.aside_s is None]
        late = [o for o in going if now_s - o.started_s > self.timeout_s]
        return min(late, key=lambda o: o.instruction.seq, default=None)

    def _heads(self) -> set[Outstanding]:
        return {outstanding for rank in self._queues for outstanding in self._at_hand(rank)}

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

    def _start(self, now_s: float) -> None:
        for head in self._heads():
            if head.started_s is None and not self.absent(head):
                head.started_s = now_s
            self._step_aside(head, now_s)

    def _step_aside(self, outstanding: Outstanding, now_s: float) -> None:
        """Stop an instruction's time while one of its ranks has something else at hand, and go on with it
        then.
        """
        behind = any(self._queues[rank][-1] is not outstanding for rank in outstanding.awaited)
        if not _steps_aside(outstanding.instruction) or behind == (outstanding.aside_s is not None):
            return
        if behind:
            outstanding.aside_s = now_s
            return
        if outstanding.started_s is not None:
            outstanding.started_s += now_s - outstanding.aside_s
        outstanding.aside_s = None


def _steps_aside(instruction: Instruction) -> bool:
    return isinstance(instruction, RunCall) and instruction.steps_aside

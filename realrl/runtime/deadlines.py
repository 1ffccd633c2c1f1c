"""Which worker is busy with which instruction, and since when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from realrl.api.messages import Instruction, RunCall


@dataclass(eq=False)
class Outstanding:
    """An instruction that some rank has yet to report."""

    instruction: Instruction
    awaited: set[int]
    started_s: float | None = None
    """When every awaited rank was free for it."""


@dataclass
class Deadlines:
    """Follows the workers' queues. Pure: the caller gives the time.

    A worker carries out its instructions one by one, and ranks that share one wait for each other, so an
    instruction's time begins when none of its ranks is busy with an earlier one that does not step aside.
    """

    timeout_s: float
    _queues: dict[int, list[Outstanding]] = field(default_factory=dict)

    def sent(self, instruction: Instruction, now_s: float) -> None:
        outstanding = Outstanding(instruction, set(instruction.ranks))
        for rank in instruction.ranks:
            self._queues.setdefault(rank, []).append(outstanding)
        self._start(now_s)

    def reported(self, rank: int, seq: int, now_s: float) -> Instruction:
        """The instruction that `rank` has done."""
        outstanding = next((o for o in self._at_hand(rank) if o.instruction.seq == seq), None)
        assert outstanding, f"rank {rank} reports {seq} out of order"
        self._queues[rank].remove(outstanding)
        outstanding.awaited.remove(rank)
        self._start(now_s)
        return outstanding.instruction

    def current(self, rank: int) -> Instruction | None:
        """What `rank` is busy with; None when it is idle."""
        return next((o.instruction for o in self._at_hand(rank)), None)

    def running(self) -> list[Instruction]:
        """What has started and not ended, oldest first."""
        return sorted((o.instruction for o in self._heads() if o.started_s is not None), key=lambda i: i.seq)

    def overdue(self, now_s: float) -> Outstanding | None:
        """The oldest instruction that takes longer than it may."""
        late = [o for o in self._heads() if o.started_s is not None and now_s - o.started_s > self.timeout_s]
        return min(late, key=lambda o: o.instruction.seq, default=None)

    def _heads(self) -> set[Outstanding]:
        return {outstanding for rank in self._queues for outstanding in self._at_hand(rank)}

    def _at_hand(self, rank: int) -> Iterator[Outstanding]:
        """What a rank may be busy with: its first, and where that steps aside, what comes after it."""
        for outstanding in self._queues.get(rank, ()):
            yield outstanding
            if not (isinstance(outstanding.instruction, RunCall) and outstanding.instruction.steps_aside):
                return

    def _start(self, now_s: float) -> None:
        for head in self._heads():
            if head.started_s is None and all(head in self._at_hand(rank) for rank in head.awaited):
                head.started_s = now_s

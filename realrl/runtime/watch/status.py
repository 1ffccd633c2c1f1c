"""What each worker of a run does, since when, and what it waits for, as data that a file can hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

STATUS = "status.json"


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """An instruction, or a part of set-up, that some rank has yet to report. Times are those of the epoch."""

    seq: int
    what: str
    ranks: tuple[int, ...]
    """Those."""
    absent: tuple[int, ...] = ()
    """Of these, the ones that are busy with something earlier."""
    started_s: float | None = None
    """When every rank had come to it."""
    progressed_s: float | None = None
    """When some rank last got on with it."""
    step: int | None = None
    is_shared: bool = True
    """Whether its ranks wait for each other."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is at."""

    since_s: float
    seq: int | None = None
    """Of its work; None where it has none."""
    waits_for: tuple[int, ...] = ()
    """The work that must end before it gets some."""
    done: int = 0
    total: int = 0
    """Of its own samples, where it says so."""


class Scene(msgspec.Struct, frozen=True):
    """All workers at one moment."""

    work: tuple[Work, ...] = ()
    """Oldest first."""
    workers: tuple[Place, ...] = ()
    """By rank."""

    @property
    def step(self) -> int | None:
        """The earliest that is worked on."""
        return min((work.step for work in self.work if work.step is not None), default=None)

    def words(self, rank: int) -> tuple[str, str]:
        """What a worker does, and what it waits for."""
        place = self.workers[rank]
        if place.seq is None:
            waits_for = map(self._find, place.waits_for)
            return "nothing", "; ".join(f"{w.what} ({ranks_in_words(w.ranks)})" for w in waits_for)
        work = self._find(place.seq)
        others = [other for other in work.ranks if other != rank and work.is_shared]
        return work.what, self._absence(work) or (f"{ranks_in_words(others)}, in it too" if others else "")

    def _find(self, seq: int) -> Work:
        for work in self.work:
            if work.seq == seq:
                return work
        raise KeyError(seq)

    def _work_of(self, rank: int) -> Work:
        seq = self.workers[rank].seq
        assert seq is not None, f"rank {rank} is absent from its work, but has no other"
        return self._find(seq)

    def _absence(self, work: Work) -> str:
        """Who has not come to it, and why."""
        at = defaultdict(list)
        for rank in work.absent:
            at[self._work_of(rank).what].append(rank)
        return "; ".join(f"{ranks_in_words(ranks)} at {what}" for what, ranks in at.items())


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A run at one moment."""

    host: str
    pid: int
    """The master's."""
    process_start: int | None
    """Tells the master from a later process of its pid."""
    began_s: float
    written_s: float
    phase: str
    phase_since_s: float
    """Of a step, that step's."""
    num_steps: int
    step: int | None = None
    """Training steps done before what is worked on; None before there is any."""
    is_over: bool = False
    scene: Scene = Scene()


def ranks_in_words(ranks: Iterable[int]) -> str:
    """`rank 2`, or `ranks 0-3, 7`."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    shown = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"rank {shown}" if shown.isdigit() else f"ranks {shown}"

"""What each worker of a run does, since when, and what it waits for, as data that a file can hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

STATUS = "status.json"


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """An instruction, or a part of set-up, that some rank has yet to report.

    Units: times are in seconds since the epoch.
    """

    seq: int
    what: str
    ranks: tuple[int, ...]
    """The ranks that have yet to report it."""
    absent: tuple[int, ...] = ()
    """Those of `ranks` that are busy with something earlier."""
    started_s: float | None = None
    """When every rank had come to it."""
    progressed_s: float | None = None
    """When a rank last made progress with it."""
    step: int | None = None
    is_shared: bool = True
    """Whether its ranks wait for each other."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker does."""

    since_s: float
    seq: int | None = None
    """The number of its work; None if it has none."""
    waits_for: tuple[int, ...] = ()
    """The work that must end before it gets some."""
    done: int = 0
    """Its own samples that are done, and all of them, if it reports that."""
    total: int = 0


class Scene(msgspec.Struct, frozen=True):
    """All workers at one moment."""

    work: tuple[Work, ...] = ()
    """Oldest first."""
    workers: tuple[Place, ...] = ()
    """By rank."""

    @property
    def step(self) -> int | None:
        """The earliest step that is worked on."""
        steps = [work.step for work in self.work if work.step is not None]
        return min(steps, default=None)

    def words(self, rank: int) -> tuple[str, str]:
        """Return in words what a worker does, and what it waits for."""
        place = self.workers[rank]
        if place.seq is None:
            return "nothing", self._awaited(place)
        work = self._find(place.seq)
        return work.what, self._absence(work) or _others(work, rank)

    def _awaited(self, place: Place) -> str:
        """Say what a worker without work waits for."""
        parts = []
        for seq in place.waits_for:
            work = self._find(seq)
            ranks = ranks_in_words(work.ranks)
            parts.append(f"{work.what} ({ranks})")
        return "; ".join(parts)

    def _find(self, seq: int) -> Work:
        for work in self.work:
            if work.seq == seq:
                return work
        raise KeyError(seq)

    def _absence(self, work: Work) -> str:
        """Say which ranks have not come to a piece of work, and what they do instead; empty if all have."""
        ranks_by_work: dict[str, list[int]] = defaultdict(list)
        for rank in work.absent:
            seq = self.workers[rank].seq
            assert seq is not None, f"rank {rank} is absent from {work.what}, but has no other work"
            earlier = self._find(seq)
            ranks_by_work[earlier.what].append(rank)

        parts = []
        for what, ranks in ranks_by_work.items():
            parts.append(f"{ranks_in_words(ranks)} at {what}")
        return "; ".join(parts)


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A run at one moment."""

    host: str
    pid: int
    """The master's process id."""
    process_start: int | None
    """When the master's process started; tells it from a later process with the same id."""
    began_s: float
    written_s: float
    phase: str
    phase_since_s: float
    """When the phase began, or the step if the phase consists of steps."""
    num_steps: int
    step: int | None = None
    """Training steps done before those that are worked on; None before there are any."""
    is_over: bool = False
    scene: Scene = Scene()


def _others(work: Work, rank: int) -> str:
    """Say which other ranks a rank waits for in a piece of work that all have come to; empty for none."""
    if not work.is_shared:
        return ""
    others = [other for other in work.ranks if other != rank]
    return f"{ranks_in_words(others)}, in it too" if others else ""


def ranks_in_words(ranks: Iterable[int]) -> str:
    """Return ranks as text: `rank 2`, or `ranks 0-3, 7`."""
    parts = []
    for first, last in _ranges(ranks):
        parts.append(str(first) if first == last else f"{first}-{last}")
    text = ", ".join(parts)
    return f"rank {text}" if text.isdigit() else f"ranks {text}"


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the first and the last of each run of consecutive numbers."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        first = number
        if ranges and ranges[-1][1] == number - 1:
            first, _ = ranges.pop()
        ranges.append((first, number))
    return ranges

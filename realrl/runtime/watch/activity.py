"""What each worker does, told from what the master knows of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from realrl.api.messages import Underway
from realrl.program.deadlines import Deadlines, Outstanding
from realrl.program.scheduler import Waiting
from realrl.runtime.watch.status import Place, Scene, Work


def set_up_scene(what: str, missing: Collection[int], ranks: Collection[int], since_s: float) -> Scene:
    """Return the scene of a part of set-up that the ranks `missing` have yet to report."""
    work = Work(seq=0, what=what, ranks=tuple(sorted(missing)), started_s=since_s, is_shared=False)
    places = []
    for rank in ranks:
        if rank in missing:
            places.append(Place(since_s=since_s, seq=0))
        else:
            places.append(Place(since_s=since_s, waits_for=(0,)))
    return Scene((work,), tuple(places))


def scene_of(
    deadlines: Deadlines,
    underway: Mapping[tuple[int, int], Underway],
    waiting: Sequence[Waiting],
    ranks: Collection[int],
    *,
    epoch_s: float,
) -> Scene:
    """Return the scene of workers that are set up.

    `underway` is by instruction and rank; the epoch's seconds are `epoch_s` more than those of `deadlines`.
    """
    running = tuple(instruction.seq for instruction in deadlines.running())
    waits_for = _waits_for(waiting)
    places: list[Place] = []
    for rank in ranks:
        outstanding, duty_since_s = deadlines.duty(rank)
        since_s = epoch_s + duty_since_s
        if outstanding is None:
            # A rank for which nothing is to come waits for whatever runs.
            awaited = waits_for.get(rank) or running
            places.append(Place(since_s=since_s, waits_for=awaited))
        else:
            seq = outstanding.instruction.seq
            progress = underway.get((seq, rank))
            places.append(_at_work(seq, since_s, progress))

    work = [work_of(outstanding, epoch_s) for outstanding in deadlines.outstanding()]
    return Scene(tuple(work), tuple(places))


def work_of(outstanding: Outstanding, epoch_s: float) -> Work:
    """Return what is known of an instruction that ranks have yet to report."""
    instruction = outstanding.instruction
    return Work(
        seq=instruction.seq,
        what=str(instruction),
        ranks=tuple(sorted(outstanding.awaited)),
        absent=tuple(sorted(outstanding.held_up)),
        started_s=_in_epoch(outstanding.started_s, epoch_s),
        progressed_s=_in_epoch(outstanding.progressed_s, epoch_s),
        step=instruction.step,
    )


def _at_work(seq: int, since_s: float, underway: Underway | None) -> Place:
    """Return the place of a worker that carries out an instruction and last reported `underway` of it."""
    if underway is None:
        return Place(since_s=since_s, seq=seq)
    return Place(since_s=since_s, seq=seq, done=underway.done, total=underway.total)


def _in_epoch(at_s: float | None, epoch_s: float) -> float | None:
    return None if at_s is None else epoch_s + at_s


def _waits_for(waiting: Sequence[Waiting]) -> dict[int, tuple[int, ...]]:
    """Return, by rank, the instructions that the rank's next task waits for."""
    waits_for: dict[int, tuple[int, ...]] = {}
    for waits in waiting:
        for rank in waits.ranks:
            waits_for.setdefault(rank, tuple(sorted(waits.seqs)))
    return waits_for

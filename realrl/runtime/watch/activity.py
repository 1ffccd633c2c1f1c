"""What workers do, out of what the master knows of them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from realrl.api.messages import Underway
from realrl.program.deadlines import Deadlines, Outstanding
from realrl.program.scheduler import Waiting
from realrl.runtime.watch.status import Place, Scene, Work


def set_up_scene(what: str, missing: Collection[int], ranks: Collection[int], since_s: float) -> Scene:
    """A part of set-up that `missing` have yet to report."""
    work = Work(seq=0, what=what, ranks=tuple(sorted(missing)), started_s=since_s, is_shared=False)
    at, behind = Place(since_s=since_s, seq=0), Place(since_s=since_s, waits_for=(0,))
    return Scene((work,), tuple(at if rank in missing else behind for rank in ranks))


def scene_of(
    deadlines: Deadlines,
    underway: Mapping[tuple[int, int], Underway],
    waiting: Sequence[Waiting],
    ranks: Collection[int],
    *,
    epoch_s: float,
) -> Scene:
    """What workers do that are set up. Pure.

    `underway` is by instruction and rank; the epoch's seconds are `epoch_s` more than those of `deadlines`.
    """
    work = tuple(work_of(outstanding, epoch_s) for outstanding in deadlines.outstanding())
    behind = _behind(waiting)
    going = tuple(i.seq for i in deadlines.running())
    places = []
    for rank in ranks:
        outstanding, since_s = deadlines.duty(rank)
        seq = outstanding.instruction.seq if outstanding else None
        said = underway.get((seq, rank))
        places.append(
            Place(
                since_s=epoch_s + since_s,
                seq=seq,
                waits_for=() if outstanding else behind.get(rank) or going,
                done=said.done if said else 0,
                total=said.total if said else 0,
            )
        )
    return Scene(work, tuple(places))


def work_of(outstanding: Outstanding, epoch_s: float) -> Work:
    instruction, started_s = outstanding.instruction, outstanding.started_s
    return Work(
        seq=instruction.seq,
        what=str(instruction),
        ranks=tuple(sorted(outstanding.awaited)),
        absent=tuple(sorted(outstanding.held_up)),
        started_s=None if started_s is None else epoch_s + started_s,
        progressed_s=None if started_s is None else epoch_s + outstanding.progressed_s,
        step=instruction.step,
    )


def _behind(waiting: Sequence[Waiting]) -> dict[int, tuple[int, ...]]:
    """By rank, the instructions that the first thing which it is to do next waits for."""
    behind: dict[int, tuple[int, ...]] = {}
    for waits in waiting:
        for rank in waits.ranks:
            behind.setdefault(rank, tuple(sorted(waits.seqs)))
    return behind

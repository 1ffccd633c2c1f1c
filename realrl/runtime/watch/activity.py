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
        if outstanding is None:
            waits_for = behind.get(rank) or going
            places.append(Place(since_s=epoch_s + since_s, waits_for=waits_for))
        else:
            seq = outstanding.instruction.seq
            places.append(_at_work(seq, epoch_s + since_s, underway.get((seq, rank))))
    return Scene(work, tuple(places))


def _at_work(seq: int, since_s: float, said: Underway | None) -> Place:
    """Return the place of a worker that carries out an instruction; `said` is its last report of that."""
    if said is None:
        return Place(since_s=since_s, seq=seq)
    return Place(since_s=since_s, seq=seq, done=said.done, total=said.total)


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


def _in_epoch(at_s: float | None, epoch_s: float) -> float | None:
    return None if at_s is None else epoch_s + at_s


def _behind(waiting: Sequence[Waiting]) -> dict[int, tuple[int, ...]]:
    """By rank, the instructions that the first thing which it is to do next waits for."""
    behind: dict[int, tuple[int, ...]] = {}
    for waits in waiting:
        for rank in waits.ranks:
            behind.setdefault(rank, tuple(sorted(waits.seqs)))
    return behind

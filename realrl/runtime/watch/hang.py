"""Names who holds a run up, out of the stacks of all, and says where every rank stands. Pure."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from realrl.runtime.watch.stacks import Answer, Frame
from realrl.runtime.watch.status import Scene, Work, ranks_in_words

_WAITS_IN = ("/torch/distributed/", "/torch/cuda/", "/realrl/realloc/", "/realrl/parallel/")
"""What a rank is in that waits for others in collectives and transfers, or for its device to end them."""
_WAITS_FOR = "wait_at_least"
"""The same, for a function."""
_RECEIVES_IN = "/realrl/runtime/control/channel.py"
"""What calls, at whatever depth, where a rank waits for its next instruction."""
_MOST_NAMED = 3


class Culprit(NamedTuple):
    """Whom a run waits for."""

    ranks: tuple[int, ...]
    why: str


def find_culprit(awaited: Collection[int], answers: Mapping[int, Answer]) -> Culprit:
    """Return the ranks, of those that have not reported the late instruction, that the others wait for.

    These are the ranks that show no sign of life; else those that have not begun the instruction; else those
    that do not wait for others; else all.
    """
    ranks = sorted(awaited)
    silent = [rank for rank in ranks if not answers[rank].has_stacks]
    if silent:
        return Culprit(tuple(silent), _distinct(answers[rank].silence for rank in silent))
    idle = [rank for rank in ranks if _awaits_instructions(answers[rank])]
    if idle:
        return Culprit(tuple(idle), "not taken up, or its report is lost, as it waits for instructions")
    busy = [rank for rank in ranks if not _waits(answers[rank].stack[0])]
    blamed = busy or ranks
    where = _distinct(answers[rank].stack[0] for rank in blamed)
    others = [rank for rank in ranks if rank not in blamed]
    meanwhile = f", while {ranks_in_words(others)} waited in collectives or transfers" if others else ""
    return Culprit(tuple(blamed), f"in {where}{meanwhile}")


def hang_report(message: str, work: Work, edges: Sequence[str], stacks: str) -> str:
    """What a person needs to find out why a run stood still."""
    since = _moment(work.started_s)
    last = work.progressed_s
    progressed = "" if last is None else f", with the last progress at {_moment(last)}"
    lines = [
        message,
        "",
        f"waited for: {work.what}, since {since}, of {ranks_in_words(work.ranks)}{progressed}",
        "edges of the graph that wait for it:",
        *(f"  {edge}" for edge in edges or ["none"]),
        "",
        stacks,
    ]
    return "\n".join(lines)


def _moment(epoch_s: float | None) -> str:
    return time.strftime("%F %T", time.localtime(epoch_s))


def all_stacks(scene: Scene, answers: Mapping[int, Answer], own: str) -> str:
    """Of every worker, each with what it does, and of the master."""
    now_s, parts = time.time(), []
    for rank, answer in sorted(answers.items()):
        does, waits_for = scene.words(rank)
        head = f"== rank {rank}: {does}, for {now_s - scene.workers[rank].since_s:.1f} s"
        head += f"; waits for: {waits_for}" if waits_for else ""
        parts += [head, answer.text.strip() if answer.has_stacks else answer.silence, ""]
    return "\n".join([*parts, "== master", own])


def _awaits_instructions(answer: Answer) -> bool:
    return any(_RECEIVES_IN in frame.path for frame in answer.stack)


def _waits(frame: Frame) -> bool:
    return frame.function == _WAITS_FOR or any(part in frame.path for part in _WAITS_IN)


def _distinct(parts: Iterable[object]) -> str:
    shown = list(dict.fromkeys(map(str, parts)))
    more = f" and {len(shown) - _MOST_NAMED} more" if len(shown) > _MOST_NAMED else ""
    return ", ".join(shown[:_MOST_NAMED]) + more

"""Names the ranks that hold a run up, from the stacks of all ranks, and says where every rank is. Pure.

    what the stack of a rank shows             blamed
    nothing: it gave no stack                  first: it is stopped, stuck or gone
    a wait for an instruction                  second: it does not know of the late one
    none of these waits                        third: it computes, or waits for something of its own
    a wait for ranks, or for its device        last: it waits for one of the above

`realrl.base.waiting` has the functions whose names in a stack are these waits.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import NamedTuple

from realrl.base.waiting import wait_for_device, wait_for_instruction, wait_for_ranks
from realrl.runtime.watch.stacks import NO_FRAME, Answer, Frame
from realrl.runtime.watch.status import Scene, Work, ranks_in_words

_FOR_INSTRUCTION = wait_for_instruction.__name__
_FOR_OTHERS = (wait_for_ranks.__name__, wait_for_device.__name__)
_MARKS = (_FOR_INSTRUCTION, *_FOR_OTHERS)
_MOST_NAMED = 3


class _State(Enum):
    """What a rank does, as its stack shows; earlier ones are blamed first."""

    SILENT = auto()
    IDLE = auto()
    BUSY = auto()
    WAITING = auto()


class Culprit(NamedTuple):
    """The ranks that a run waits for."""

    ranks: tuple[int, ...]
    why: str


def find_culprit(awaited: Collection[int], answers: Mapping[int, Answer]) -> Culprit:
    """Return the ranks that the others wait for, of those that have not reported the late instruction.

    These are the ranks that show no sign of life; else those that have not begun the instruction; else those
    that do not wait for others; else all.
    """
    by_state: dict[_State, list[int]] = {state: [] for state in _State}
    for rank in sorted(awaited):
        state = _state_of(answers[rank])
        by_state[state].append(rank)

    if silent := by_state[_State.SILENT]:
        silences = [answers[rank].silence for rank in silent]
        return Culprit(tuple(silent), _distinct(silences))

    if idle := by_state[_State.IDLE]:
        return Culprit(tuple(idle), "not taken up, or its report is lost, as it waits for instructions")

    waiting = by_state[_State.WAITING]
    busy = by_state[_State.BUSY]
    if not busy:
        return Culprit(tuple(waiting), _places(waiting, answers))

    why = _places(busy, answers)
    if waiting:
        why += f", while {ranks_in_words(waiting)} waited in collectives or transfers"
    return Culprit(tuple(busy), why)


def _state_of(answer: Answer) -> _State:
    if not answer.has_stacks:
        return _State.SILENT
    functions = {frame.function for frame in answer.stack}
    if _FOR_INSTRUCTION in functions:
        return _State.IDLE
    return _State.BUSY if functions.isdisjoint(_FOR_OTHERS) else _State.WAITING


def hang_report(message: str, work: Work, edges: Sequence[str], stacks: str) -> str:
    """Return what a person needs to find out why a run stood still."""
    since = _moment(work.started_s)
    awaited = ranks_in_words(work.ranks)
    progressed = ""
    if work.progressed_s is not None:
        progressed = f", with the last progress at {_moment(work.progressed_s)}"
    lines = [
        message,
        "",
        f"waited for: {work.what}, since {since}, of {awaited}{progressed}",
        "edges of the graph that wait for it:",
    ]
    for edge in edges or ["none"]:
        lines.append(f"  {edge}")
    lines += ["", stacks]
    return "\n".join(lines)


def all_stacks(scene: Scene, answers: Mapping[int, Answer], own: str) -> str:
    """Return the stacks of every worker, each with what it does, and those of the master, `own`."""
    now_s = time.time()
    lines = []
    for rank, answer in sorted(answers.items()):
        lines.append(_heading(scene, rank, now_s))
        lines.append(answer.text.strip() if answer.has_stacks else answer.silence)
        lines.append("")
    lines.append("== master")
    lines.append(own)
    return "\n".join(lines)


def _heading(scene: Scene, rank: int, now_s: float) -> str:
    does, waits_for = scene.words(rank)
    for_s = now_s - scene.workers[rank].since_s
    waits = f"; waits for: {waits_for}" if waits_for else ""
    return f"== rank {rank}: {does}, for {for_s:.1f} s{waits}"


def _moment(epoch_s: float | None) -> str:
    return time.strftime("%F %T", time.localtime(epoch_s))


def _places(ranks: Iterable[int], answers: Mapping[int, Answer]) -> str:
    """Say where the main threads of ranks are."""
    frames = [_innermost(answers[rank]) for rank in ranks]
    return f"in {_distinct(frames)}"


def _innermost(answer: Answer) -> Frame:
    """Return where the main thread is; a mark says what it does there, and is no place of its own."""
    for frame in answer.stack:
        if frame.function not in _MARKS:
            return frame
    return NO_FRAME


def _distinct(parts: Iterable[object]) -> str:
    """List the first of the parts, each once."""
    distinct = list(dict.fromkeys(map(str, parts)))
    shown = ", ".join(distinct[:_MOST_NAMED])
    num_more = len(distinct) - _MOST_NAMED
    return f"{shown} and {num_more} more" if num_more > 0 else shown

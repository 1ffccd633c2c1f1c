"""What each rank did at which time, from a run's `trace.json`."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from realrl.apps.report.encoding import floats, integers, times

_Number = TypeVar("_Number", int, float)

MOST_EVENTS = 20_000
"""Events in the report; of a longer run whole steps are chosen."""
_MICROSECONDS = 1e6
_FIRST = 5
_LAST = 20
_SLOWEST = 10
"""Numbers of steps that are chosen before others: the first, the last and the slowest ones."""
_EVENLY = 100
"""Steps at even distances that are chosen next."""


class _Arguments(msgspec.Struct):
    """The arguments of an event."""

    step: int = 0
    evaluating: bool = False


class _Event(msgspec.Struct):
    """One line of the trace; only those of phase X have times."""

    ph: str
    name: str = ""
    tid: int = 0
    ts: float = 0.0
    dur: float = 0.0
    args: _Arguments = msgspec.field(default_factory=_Arguments)


class Timeline:
    """All events of a trace, in columns: there may be millions."""

    def __init__(self) -> None:
        self.starts_s = array("d")
        self.durations_s = array("d")
        self.ranks = array("i")
        self.names = array("i")
        """Numbers of names, by `name_numbers`."""
        self.steps = array("i")
        self.evaluates = array("b")
        self.name_numbers: dict[str, int] = {}

    def add(self, event: _Event) -> None:
        """Add an event of the trace."""
        next_number = len(self.name_numbers)
        name = self.name_numbers.setdefault(event.name, next_number)
        self.names.append(name)
        self.starts_s.append(event.ts / _MICROSECONDS)
        self.durations_s.append(event.dur / _MICROSECONDS)
        self.ranks.append(event.tid)
        self.steps.append(event.args.step)
        self.evaluates.append(event.args.evaluating)

    def __len__(self) -> int:
        return len(self.starts_s)


def read_timeline(path: Path) -> Timeline:
    """Return the events of a trace, to which more may still be written."""
    timeline = Timeline()
    for event in _events(path):
        if event.ph == "X":
            timeline.add(event)
    return timeline


def _events(path: Path) -> Iterator[_Event]:
    """Yield the events of a trace, if there is one."""
    if not path.is_file():
        return
    decode = msgspec.json.Decoder(_Event).decode
    with path.open("rb") as file:
        for line in file:
            content = line.rstrip().rstrip(b",")
            try:
                yield decode(content)
            except msgspec.DecodeError:
                continue  # the list's brackets, and a line that is not yet whole


def drawn(timeline: Timeline) -> dict[str, Any] | None:
    """Return the events that the page shows, and the seconds of every rank in each phase of the whole run."""
    if not len(timeline):
        return None
    steps = _chosen_steps(timeline)
    kept = [index for index, step in enumerate(timeline.steps) if step in steps]

    def of_kept(column: array[_Number]) -> Iterator[_Number]:
        """Yield the values of the events that are kept."""
        return (column[index] for index in kept)

    origin_s = min(timeline.starts_s)
    starts_s = (start_s - origin_s for start_s in of_kept(timeline.starts_s))
    return {
        "origin_s": origin_s,
        "names": list(timeline.name_numbers),
        "start": times(starts_s),
        "duration": floats(of_kept(timeline.durations_s)),
        "rank": integers(of_kept(timeline.ranks)),
        "name": integers(of_kept(timeline.names)),
        "step": integers(of_kept(timeline.steps)),
        "evaluates": integers(of_kept(timeline.evaluates)),
        "num_events": len(timeline),
        "num_steps": len(set(timeline.steps)),
        "busy": _busy(timeline),
    }


class _RankTimes:
    """The seconds of one rank: by phase, and from its first start to its last end."""

    def __init__(self) -> None:
        self._by_name: dict[int, float] = defaultdict(float)
        self._first_s = math.inf
        self._last_s = 0.0

    def add(self, name: int, start_s: float, duration_s: float) -> None:
        """Add an event in the phase number `name`."""
        self._by_name[name] += duration_s
        self._first_s = min(self._first_s, start_s)
        self._last_s = max(self._last_s, start_s + duration_s)

    def described(self, rank: int) -> dict[str, Any]:
        """Return what the page shows of the rank."""
        return {
            "rank": rank,
            "whole_s": self._last_s - self._first_s,
            "seconds": sorted(self._by_name.items()),
        }


def _busy(timeline: Timeline) -> list[dict[str, Any]]:
    """Return the seconds of each rank, in the order of ranks."""
    by_rank: dict[int, _RankTimes] = defaultdict(_RankTimes)
    for rank, name, start_s, duration_s in zip(
        timeline.ranks,
        timeline.names,
        timeline.starts_s,
        timeline.durations_s,
    ):
        by_rank[rank].add(name, start_s, duration_s)
    return [by_rank[rank].described(rank) for rank in sorted(by_rank)]


def _chosen_steps(timeline: Timeline) -> set[int]:
    """Return all steps if they fit; else the first, the last and the slowest ones, then others evenly."""
    if len(timeline) <= MOST_EVENTS:
        return set(timeline.steps)
    sizes: dict[int, int] = defaultdict(int)
    lasted_s: dict[int, float] = defaultdict(float)
    for step, duration_s in zip(timeline.steps, timeline.durations_s):
        sizes[step] += 1
        lasted_s[step] += duration_s

    order = _by_interest(sorted(sizes), lasted_s)
    # One step is shown even if it is too long.
    chosen = {order[0]}
    total = sizes[order[0]]
    for step in order[1:]:
        total += sizes[step]
        if total > MOST_EVENTS:
            break
        chosen.add(step)
    return chosen


def _by_interest(steps: Sequence[int], lasted_s: dict[int, float]) -> list[int]:
    """Return all steps, those first that are to be shown first."""
    slowest_first = sorted(steps, key=lambda step: -lasted_s[step])
    distance = max(1, len(steps) // _EVENLY)
    order = [
        *steps[:_FIRST],
        *steps[-_LAST:],
        *slowest_first[:_SLOWEST],
        *steps[::distance],
        *steps,
    ]
    return list(dict.fromkeys(order))

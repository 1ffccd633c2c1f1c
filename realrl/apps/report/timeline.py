"""What each rank did when, from a run's `trace.json`."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from realrl.apps.report.encoding import floats, integers, times

MOST_EVENTS = 20_000
"""In the report; of a longer run whole steps are chosen."""
_MICROSECONDS = 1e6
_FIRST, _LAST, _SLOWEST = 5, 20, 10
"""Steps that are chosen before others."""


class _Arguments(msgspec.Struct):
    step: int = 0
    evaluating: bool = False


class _Event(msgspec.Struct):
    """One line of the trace; others than of phase X carry no times."""

    ph: str
    name: str = ""
    tid: int = 0
    ts: float = 0.0
    dur: float = 0.0
    args: _Arguments = msgspec.field(default_factory=_Arguments)


class Timeline:
    """All events of a trace, in columns: there may be millions."""

    def __init__(self) -> None:
        self.starts_s, self.durations_s = array("d"), array("d")
        self.ranks, self.names, self.steps = array("i"), array("i"), array("i")
        self.evaluates = array("b")
        self.name_numbers: dict[str, int] = {}

    def add(self, event: _Event) -> None:
        self.starts_s.append(event.ts / _MICROSECONDS)
        self.durations_s.append(event.dur / _MICROSECONDS)
        self.ranks.append(event.tid)
        self.names.append(self.name_numbers.setdefault(event.name, len(self.name_numbers)))
        self.steps.append(event.args.step)
        self.evaluates.append(event.args.evaluating)

    def __len__(self) -> int:
        return len(self.starts_s)


def read_timeline(path: Path) -> Timeline:
    """The events of a trace that may still be written."""
    timeline = Timeline()
    for event in _events(path):
        if event.ph == "X":
            timeline.add(event)
    return timeline


def _events(path: Path) -> Iterator[_Event]:
    if not path.is_file():
        return
    decode = msgspec.json.Decoder(_Event).decode
    with path.open("rb") as file:
        for line in file:
            try:
                yield decode(line.rstrip().rstrip(b","))
            except msgspec.DecodeError:
                continue  # the list's brackets, and a line that is not yet whole


def drawn(timeline: Timeline) -> dict[str, Any] | None:
    """The events that the page shows, and the seconds of every rank in each phase of the whole run."""
    if not len(timeline):
        return None
    chosen = _chosen_steps(timeline)
    kept = [i for i, step in enumerate(timeline.steps) if step in chosen]
    origin_s = min(timeline.starts_s)
    return {
        "origin_s": origin_s,
        "names": list(timeline.name_numbers),
        "start": times(timeline.starts_s[i] - origin_s for i in kept),
        "duration": floats(timeline.durations_s[i] for i in kept),
        "rank": integers(timeline.ranks[i] for i in kept),
        "name": integers(timeline.names[i] for i in kept),
        "step": integers(timeline.steps[i] for i in kept),
        "evaluates": integers(timeline.evaluates[i] for i in kept),
        "num_events": len(timeline),
        "num_steps": len(set(timeline.steps)),
        "busy": _busy(timeline),
    }


def _busy(timeline: Timeline) -> list[dict[str, Any]]:
    """Of each rank: seconds by phase, and those between its first start and its last end."""
    seconds: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    first_s, last_s = {}, {}
    for rank, name, start_s, duration_s in zip(
        timeline.ranks, timeline.names, timeline.starts_s, timeline.durations_s
    ):
        seconds[rank][name] += duration_s
        first_s[rank] = min(first_s.get(rank, start_s), start_s)
        last_s[rank] = max(last_s.get(rank, 0.0), start_s + duration_s)
    return [
        {"rank": rank, "whole_s": last_s[rank] - first_s[rank], "seconds": sorted(by_name.items())}
        for rank, by_name in sorted(seconds.items())
    ]


def _chosen_steps(timeline: Timeline) -> set[int]:
    """All steps if they fit; else the first, the last and the slowest ones, then others evenly."""
    if len(timeline) <= MOST_EVENTS:
        return set(timeline.steps)
    sizes: dict[int, int] = defaultdict(int)
    lasted_s: dict[int, float] = defaultdict(float)
    for step, duration_s in zip(timeline.steps, timeline.durations_s):
        sizes[step] += 1
        lasted_s[step] += duration_s
    order = _by_interest(sorted(sizes), lasted_s)
    chosen, total = set(), 0
    for step in order:
        if total + sizes[step] > MOST_EVENTS:
            break
        chosen.add(step)
        total += sizes[step]
    return chosen or set(order[:1])


def _by_interest(steps: Sequence[int], lasted_s: dict[int, float]) -> list[int]:
    slowest = sorted(steps, key=lambda step: -lasted_s[step])[:_SLOWEST]
    every = max(1, len(steps) // 100)
    return list(dict.fromkeys([*steps[:_FIRST], *steps[-_LAST:], *slowest, *steps[::every], *steps]))

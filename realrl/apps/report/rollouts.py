"""Distributions and samples of a run's rollouts, from a file that may be larger than memory."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from realrl.apps.report.encoding import integers
from realrl.apps.report.lines import JsonLines, parse
from realrl.apps.report.metrics import Metrics, is_step, number

MOST_SAMPLES = 1_500
"""In the report, over all runs."""
_SAMPLES_AT_ONCE = 64
"""Of a step; more steps are shown rather than more of one."""
_MOST_CHARACTERS, _HEAD = 6_000, 4_000
"""Of a text; a longer one keeps its beginning and its end."""
_COLUMNS, _ROWS = 60, 24
"""Of a distribution over steps."""
_TEXTS = ("prompt", "response")
_SHOWN = (
    *("row", "group", "sample", "greedy", "solutions", "answer", "verdict", "reward", "advantage"),
    *("num_tokens", "ended", "tokens", "logprobs", "advantages", "query_id"),
)


class Rollouts:
    """What is known of every rollout without its text, in the order of the file: there may be millions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kinds: list[str] = []
        """`train`, `eval` or `pass`."""
        self.steps = array("i")
        self.offsets = array("q")
        """Where in the file each begins."""
        self.rewards = array("d")
        """NaN where there is none."""
        self._tokens = array("d")
        self._characters = array("d")
        self.notes: list[str] = []

    def add(self, record: Mapping[str, Any], offset: int, step: int) -> None:
        self.kinds.append(_kind(record))
        self.steps.append(step)
        self.offsets.append(offset)
        self.rewards.append(_reward(record))
        num_tokens = number(record.get("num_tokens"))
        self._tokens.append(math.nan if num_tokens is None else num_tokens)
        self._characters.append(len(str(record.get("response", ""))))

    @property
    def unit(self) -> str:
        """Of the lengths: older runs did not write down tokens."""
        return "characters" if any(map(math.isnan, self._tokens)) else "tokens"

    @property
    def lengths(self) -> Sequence[float]:
        return self._tokens if self.unit == "tokens" else self._characters

    def __len__(self) -> int:
        return len(self.offsets)


def read_rollouts(path: Path, metrics: Metrics) -> Rollouts:
    """Read the file once, keeping numbers alone."""
    rollouts = Rollouts(path)
    lines = JsonLines(path)
    step_of_row = _step_of_row(metrics)
    for index, (offset, record) in enumerate(lines):
        step = record.get("step")
        rollouts.add(record, offset, step if is_step(step) else step_of_row(index))
    rollouts.notes += lines.notes()
    return rollouts


def _kind(record: Mapping[str, Any]) -> str:
    if "evaluating" not in record:
        return "pass"
    return "eval" if record["evaluating"] else "train"


def _reward(record: Mapping[str, Any]) -> float:
    """Its reward, NaN if it was left ungraded; in a file without rewards, 1 or 0 by the verdict."""
    if "reward" in record:
        reward = number(record["reward"])
        return math.nan if reward is None else reward
    verdict = record.get("verdict")
    return math.nan if verdict is None else float(verdict == "correct")


def _step_of_row(metrics: Metrics) -> Callable[[int], int]:
    """Which batch of a pass a line of its generations belongs to."""
    sizes = [int(number(row.get("num_sequences")) or 0) for row in metrics.rows.get("pass", ())]
    ends = list(accumulate(sizes))
    return lambda index: bisect_right(ends, index)


def distributions(rollouts: Rollouts) -> dict[str, Any]:
    """By kind: how many rollouts of each span of steps have a length or a reward within each range."""
    unit = rollouts.unit
    lengths = rollouts.lengths
    found = {}
    for kind in dict.fromkeys(rollouts.kinds):
        chosen = [i for i, each in enumerate(rollouts.kinds) if each == kind]
        steps = _picked(rollouts.steps, chosen)
        length = _distribution(steps, _picked(lengths, chosen))
        reward = _distribution(steps, _picked(rollouts.rewards, chosen))
        found[kind] = {"length": {**length, "unit": unit}, "reward": reward}
    return found


def _picked(values: Sequence[float], places: Sequence[int]) -> list[float]:
    return [values[i] for i in places]


def _distribution(steps: Sequence[int], values: Sequence[float]) -> dict[str, Any]:
    """Counts by column (a span of steps) and row (a range of values); what is no number is counted apart."""
    finite = [(step, value) for step, value in zip(steps, values) if math.isfinite(value)]
    if not finite:
        return {"num_left_out": len(steps), "counts": integers([]), "columns": [], "edges": []}
    known = sorted({step for step, _ in finite})
    each = math.ceil(len(known) / _COLUMNS)
    column_of = {step: i // each for i, step in enumerate(known)}
    edges = _edges([value for _, value in finite])
    num_rows = len(edges) - 1
    counts = [0] * (math.ceil(len(known) / each) * num_rows)
    for step, value in finite:
        row = min(bisect_right(edges, value) - 1, num_rows - 1)
        counts[column_of[step] * num_rows + row] += 1
    return {
        "num_left_out": len(steps) - len(finite),
        "counts": integers(counts),
        "columns": [(part[0], part[-1]) for part in _parts(known, each)],
        "edges": edges,
    }


def _parts(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def _edges(values: Sequence[float]) -> list[float]:
    """Borders of the ranges from the least value to the largest; of few whole numbers, one range each."""
    low, high = min(values), max(values)
    if high - low < _ROWS and all(value == int(value) for value in values):
        return [low - 0.5 + i for i in range(int(high - low) + 2)]
    width = high / _ROWS - low / _ROWS or 1.0
    return [low + i * width for i in range(_ROWS)] + [max(high, low + width)]


def samples(rollouts: Rollouts, most: int) -> list[dict[str, Any]]:
    """At most `most` rollouts with their texts: all, or the first ones of steps that are spread evenly."""
    chosen = _chosen(rollouts, most)
    if not chosen:
        return []
    found = []
    with rollouts.path.open("rb") as file:
        for index in chosen:
            file.seek(rollouts.offsets[index])
            record = parse(file.readline()) or {}
            found.append(_shown(record, rollouts.kinds[index], rollouts.steps[index]))
    return found


def _chosen(rollouts: Rollouts, most: int) -> list[int]:
    if len(rollouts) <= most:
        return list(range(len(rollouts)))
    jobs: dict[tuple[int, str], list[int]] = {}
    for index, job in enumerate(zip(rollouts.steps, rollouts.kinds)):
        jobs.setdefault(job, []).append(index)
    ordered = [jobs[job] for job in sorted(jobs)]
    num_jobs = max(1, min(len(ordered), most // min(_SAMPLES_AT_ONCE, most)))
    picked = _spread(ordered, num_jobs)
    return sorted(index for job in picked for index in job[: max(1, most // len(picked))])


def _spread(items: Sequence[Any], number: int) -> list[Any]:
    """`number` of the items, the first and the last among them."""
    if number == 1:
        return [items[-1]]
    places = {round(i * (len(items) - 1) / (number - 1)) for i in range(number)}
    return [items[i] for i in sorted(places)]


def _shown(record: Mapping[str, Any], kind: str, step: int) -> dict[str, Any]:
    texts = {name: clipped(str(record.get(name, ""))) for name in _TEXTS}
    rest = {name: record[name] for name in _SHOWN if record.get(name) is not None}
    if isinstance(rest.get("solutions"), list):
        rest["solutions"] = [clipped(str(solution)) for solution in rest["solutions"][:20]]
    return {"kind": kind, "step": step, **texts, **rest}


def clipped(text: str) -> str:
    """A text of bounded length; what is left out is counted."""
    if len(text) <= _MOST_CHARACTERS:
        return text
    tail = _MOST_CHARACTERS - _HEAD
    return f"{text[:_HEAD]}\n[… {len(text) - _MOST_CHARACTERS} characters are left out …]\n{text[-tail:]}"

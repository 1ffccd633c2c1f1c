"""Distributions and samples of a run's rollouts, from a file that may be larger than memory."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from realrl.apps.report.lines import JsonLines, parse
from realrl.apps.report.metrics import Metrics, number
from realrl.apps.report.packing import integers

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


class Rollouts(NamedTuple):
    """What is known of every rollout without its text, in the order of the file."""

    path: Path
    kinds: Sequence[str]
    """`train`, `eval` or `pass`."""
    steps: Sequence[int]
    lengths: Sequence[float]
    """In tokens, or in characters."""
    rewards: Sequence[float]
    """NaN where there is none."""
    offsets: Sequence[int]
    unit: str
    """Of the lengths."""
    notes: Sequence[str]


def read_rollouts(path: Path, metrics: Metrics) -> Rollouts:
    """Read the file once, keeping numbers alone."""
    lines, step_of_row = JsonLines(path), _step_of_row(metrics)
    kinds, steps, offsets = [], array("i"), array("q")
    tokens, characters, rewards = array("d"), array("d"), array("d")
    for index, (offset, record) in enumerate(lines):
        kinds.append(_kind(record))
        steps.append(record["step"] if isinstance(record.get("step"), int) else step_of_row(index))
        offsets.append(offset)
        num_tokens, reward = number(record.get("num_tokens")), number(record.get("reward"))
        tokens.append(math.nan if num_tokens is None else num_tokens)
        characters.append(len(str(record.get("response", ""))))
        rewards.append(_graded(record) if reward is None else reward)
    has_tokens = not any(map(math.isnan, tokens))
    lengths = tokens if has_tokens else characters
    unit = "tokens" if has_tokens else "characters"
    return Rollouts(path, kinds, steps, lengths, rewards, offsets, unit, lines.notes())


def _kind(record: Mapping[str, Any]) -> str:
    if "evaluating" not in record:
        return "pass"
    return "eval" if record["evaluating"] else "train"


def _graded(record: Mapping[str, Any]) -> float:
    """A verdict as a number, where there is no reward."""
    verdict = record.get("verdict")
    return math.nan if verdict is None else float(verdict == "correct")


def _step_of_row(metrics: Metrics) -> Callable[[int], int]:
    """Which batch of a pass a line of its generations belongs to."""
    sizes = [int(number(row.get("num_sequences")) or 0) for row in metrics.rows.get("pass", ())]
    ends = list(accumulate(sizes))
    return lambda index: bisect_right(ends, index)


def distributions(rollouts: Rollouts) -> dict[str, Any]:
    """By kind: how many rollouts of each span of steps have a length or a reward within each range."""
    found = {}
    for kind in dict.fromkeys(rollouts.kinds):
        chosen = [i for i, each in enumerate(rollouts.kinds) if each == kind]
        steps = [rollouts.steps[i] for i in chosen]
        lengths = [rollouts.lengths[i] for i in chosen]
        rewards = [rollouts.rewards[i] for i in chosen]
        found[kind] = {
            "length": {**_distribution(steps, lengths), "unit": rollouts.unit},
            "reward": _distribution(steps, rewards),
        }
    return found


def _distribution(steps: Sequence[int], values: Sequence[float]) -> dict[str, Any]:
    """Counts by column (a span of steps) and row (a range of values); what is no number is counted apart."""
    finite = [(step, value) for step, value in zip(steps, values) if math.isfinite(value)]
    if not finite:
        return {"num_left_out": len(steps), "counts": integers([]), "columns": [], "edges": []}
    known = sorted({step for step, _ in finite})
    each = math.ceil(len(known) / _COLUMNS)
    columns = [(known[i], known[min(i + each, len(known)) - 1]) for i in range(0, len(known), each)]
    column_of = {step: i // each for i, step in enumerate(known)}
    edges = _edges([value for _, value in finite])
    counts = [0] * (len(columns) * (len(edges) - 1))
    for step, value in finite:
        row = min(bisect_right(edges, value) - 1, len(edges) - 2)
        counts[column_of[step] * (len(edges) - 1) + row] += 1
    return {
        "num_left_out": len(steps) - len(finite),
        "counts": integers(counts),
        "columns": columns,
        "edges": edges,
    }


def _edges(values: Sequence[float]) -> list[float]:
    """Borders of the ranges from the least value to the largest; of few whole numbers, one range each."""
    low, high = min(values), max(values)
    if all(value == int(value) for value in (low, high)) and high - low < _ROWS:
        if all(value == int(value) for value in values):
            return [low - 0.5 + i for i in range(int(high - low) + 2)]
    width = (high - low) / _ROWS or 1.0
    return [low + i * width for i in range(_ROWS)] + [max(high, low + width)]


def samples(rollouts: Rollouts, most: int) -> list[dict[str, Any]]:
    """At most `most` rollouts with their texts: all, or the first ones of steps that are spread evenly."""
    found = []
    chosen = _chosen(rollouts, most)
    if not chosen:
        return found
    with rollouts.path.open("rb") as file:
        for index in chosen:
            file.seek(rollouts.offsets[index])
            record = parse(file.readline()) or {}
            found.append(_shown(record, rollouts.kinds[index], rollouts.steps[index]))
    return found


def _chosen(rollouts: Rollouts, most: int) -> list[int]:
    if len(rollouts.offsets) <= most:
        return list(range(len(rollouts.offsets)))
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

"""Distributions and samples of a run's rollouts, read from a file that may be larger than memory."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, compress
from pathlib import Path
from typing import Any, TypeVar

from realrl.apps.report.encoding import integers
from realrl.apps.report.lines import JsonLines, parse
from realrl.apps.report.metrics import Metrics, is_step, kind_of, number

_Item = TypeVar("_Item")

MOST_SAMPLES = 1_500
"""Samples in the report, over all runs."""
_SAMPLES_AT_ONCE = 64
"""Samples of a step; the report shows more steps rather than more samples of one."""
_MOST_CHARACTERS = 6_000
"""Characters of a text; a longer one keeps its beginning and its end."""
_HEAD = 4_000
"""Characters of the beginning of a longer text."""
_MOST_SOLUTIONS = 20
_COLUMNS = 60
"""Spans of steps in a distribution over steps."""
_ROWS = 24
"""Ranges of values in a distribution over steps."""
_TEXTS = ("prompt", "response")
_SHOWN = (
    "row",
    "group",
    "sample",
    "greedy",
    "solutions",
    "answer",
    "verdict",
    "reward",
    "advantage",
    "num_tokens",
    "ended",
    "tokens",
    "logprobs",
    "advantages",
    "query_id",
)


class Rollouts:
    """The numbers of every rollout, in the order of the file, without texts: there may be millions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kinds: list[str] = []
        """`train`, `eval` or `pass`."""
        self.steps = array("i")
        self.offsets = array("q")
        """The byte of the file at which each rollout begins."""
        self.rewards = array("d")
        """NaN for a rollout without one."""
        self._tokens = array("d")
        self._characters = array("d")
        self.notes: list[str] = []

    def add(self, record: Mapping[str, Any], offset: int, step: int) -> None:
        """Add the rollout of a record that begins at byte `offset` of the file."""
        self.kinds.append(_kind(record))
        self.steps.append(step)
        self.offsets.append(offset)
        self.rewards.append(_reward(record))
        num_tokens = number(record.get("num_tokens"))
        self._tokens.append(math.nan if num_tokens is None else num_tokens)
        response = str(record.get("response", ""))
        self._characters.append(len(response))

    @property
    def unit(self) -> str:
        """The unit of the lengths: older runs did not record tokens."""
        lacks_tokens = any(map(math.isnan, self._tokens))
        return "characters" if lacks_tokens else "tokens"

    @property
    def lengths(self) -> Sequence[float]:
        """The length of each response."""
        if self.unit == "tokens":
            return self._tokens
        return self._characters

    def __len__(self) -> int:
        return len(self.offsets)


def read_rollouts(path: Path, metrics: Metrics) -> Rollouts:
    """Read the file once, and keep only numbers."""
    rollouts = Rollouts(path)
    lines = JsonLines(path)
    step_of_row = _step_of_row(metrics)
    for index, (offset, record) in enumerate(lines):
        recorded = record.get("step")
        step = recorded if is_step(recorded) else step_of_row(index)
        rollouts.add(record, offset, step)
    rollouts.notes += lines.notes()
    return rollouts


def _kind(record: Mapping[str, Any]) -> str:
    """Return the kind of job that a rollout was made by."""
    if "evaluating" not in record:
        return "pass"
    kind = kind_of("eval" if record["evaluating"] else "train", record.get("set"))
    return str(kind)


def _reward(record: Mapping[str, Any]) -> float:
    """Return the reward, or NaN if the rollout was not graded; without rewards, 1 or 0 by the verdict."""
    if "reward" in record:
        reward = number(record["reward"])
        return math.nan if reward is None else reward
    verdict = record.get("verdict")
    if verdict is None:
        return math.nan
    return float(verdict == "correct")


def _step_of_row(metrics: Metrics) -> Callable[[int], int]:
    """Return a function from the number of a line of a pass's generations to the number of its batch."""
    sizes = []
    for row in metrics.rows.get("pass", ()):
        num_sequences = number(row.get("num_sequences")) or 0
        sizes.append(int(num_sequences))
    ends = list(accumulate(sizes))
    return lambda index: bisect_right(ends, index)


def distributions(rollouts: Rollouts) -> dict[str, Any]:
    """Return, by kind, how many rollouts of each span of steps have a length or a reward in each range."""
    unit = rollouts.unit
    lengths = rollouts.lengths
    found = {}
    for kind in dict.fromkeys(rollouts.kinds):
        of_kind = [each == kind for each in rollouts.kinds]
        steps = list(compress(rollouts.steps, of_kind))
        length = _distribution(steps, list(compress(lengths, of_kind)))
        reward = _distribution(steps, list(compress(rollouts.rewards, of_kind)))
        found[kind] = {
            "length": {**length, "unit": unit},
            "reward": reward,
        }
    return found


def _distribution(steps: Sequence[int], values: Sequence[float]) -> dict[str, Any]:
    """Return counts by column (a span of steps) and row (a range of values).

    Values that are not finite are counted apart.
    """
    finite = [(step, value) for step, value in zip(steps, values) if math.isfinite(value)]
    if not finite:
        return {
            "num_left_out": len(steps),
            "counts": integers([]),
            "columns": [],
            "edges": [],
        }
    finite_steps, finite_values = zip(*finite)
    columns = _columns(finite_steps)
    column_of = {}
    for index, column in enumerate(columns):
        for step in column:
            column_of[step] = index
    edges = _edges(finite_values)
    num_rows = len(edges) - 1
    counts = [0] * (len(columns) * num_rows)
    for step, value in finite:
        # The last range includes its upper edge.
        row = min(bisect_right(edges, value) - 1, num_rows - 1)
        cell = column_of[step] * num_rows + row
        counts[cell] += 1
    return {
        "num_left_out": len(steps) - len(finite),
        "counts": integers(counts),
        "columns": [(column[0], column[-1]) for column in columns],
        "edges": edges,
    }


def _columns(steps: Sequence[int]) -> list[list[int]]:
    """Return the distinct steps in order, in at most `_COLUMNS` spans of even size."""
    known = sorted(set(steps))
    size = math.ceil(len(known) / _COLUMNS)
    columns = []
    for begin in range(0, len(known), size):
        columns.append(known[begin : begin + size])
    return columns


def _edges(values: Sequence[float]) -> list[float]:
    """Return the edges of ranges from the smallest value to the largest.

    A few whole numbers have one range each.
    """
    low = min(values)
    high = max(values)
    is_narrow = high - low < _ROWS
    if is_narrow and all(map(float.is_integer, map(float, values))):
        num_edges = int(high - low) + 2
        return [low - 0.5 + index for index in range(num_edges)]
    # Each term is divided by itself, because the difference of two large numbers may overflow.
    width = high / _ROWS - low / _ROWS or 1.0
    edges = [low + index * width for index in range(_ROWS)]
    edges.append(max(high, low + width))
    return edges


def samples(rollouts: Rollouts, most: int) -> list[dict[str, Any]]:
    """Return at most `most` rollouts with their texts: all, or the first ones of evenly chosen steps."""
    chosen = _chosen_indices(rollouts, most)
    if not chosen:
        return []
    found = []
    with rollouts.path.open("rb") as file:
        for index in chosen:
            file.seek(rollouts.offsets[index])
            line = file.readline()
            record = parse(line) or {}
            found.append(_shown(record, rollouts.kinds[index], rollouts.steps[index]))
    return found


def _chosen_indices(rollouts: Rollouts, most: int) -> list[int]:
    """Return the indices of the rollouts to show, in their order."""
    if len(rollouts) <= most:
        return list(range(len(rollouts)))
    jobs: dict[tuple[int, str], list[int]] = {}
    for index, job in enumerate(zip(rollouts.steps, rollouts.kinds)):
        jobs.setdefault(job, []).append(index)
    ordered = [jobs[job] for job in sorted(jobs)]

    at_once = min(_SAMPLES_AT_ONCE, most)
    num_jobs = min(len(ordered), most // at_once)
    picked = _evenly_chosen(ordered, max(1, num_jobs))
    samples_each = max(1, most // len(picked))
    chosen = []
    for indices in picked:
        chosen += indices[:samples_each]
    return sorted(chosen)


def _evenly_chosen(items: Sequence[_Item], number: int) -> list[_Item]:
    """Return `number` of the items at even distances, including the first and the last one."""
    last = len(items) - 1
    if number == 1:
        return [items[last]]
    places = {round(index * last / (number - 1)) for index in range(number)}
    return [items[place] for place in sorted(places)]


def _shown(record: Mapping[str, Any], kind: str, step: int) -> dict[str, Any]:
    """Return what the page shows of a rollout."""
    found: dict[str, Any] = {"kind": kind, "step": step}
    for name in _TEXTS:
        text = str(record.get(name, ""))
        found[name] = clipped(text)
    for name in _SHOWN:
        value = record.get(name)
        if value is not None:
            found[name] = value
    solutions = found.get("solutions")
    if isinstance(solutions, list):
        found["solutions"] = [clipped(str(solution)) for solution in solutions[:_MOST_SOLUTIONS]]
    return found


def clipped(text: str) -> str:
    """Return a text of bounded length, which says how much of it is left out."""
    num_left_out = len(text) - _MOST_CHARACTERS
    if num_left_out <= 0:
        return text
    tail = _MOST_CHARACTERS - _HEAD
    end = text[-tail:]
    return f"{text[:_HEAD]}\n[… {num_left_out} characters are left out …]\n{end}"

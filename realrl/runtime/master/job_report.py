"""The result of a job, gathered from its workers' reports."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from realrl.api.evals import HELD_OUT
from realrl.api.messages import Done, File
from realrl.api.recipe import Mean, Metrics, Peak, joined
from realrl.program.events import Job
from realrl.program.instructions import Instruction, RunCall


@dataclass
class _Span:
    """The time from when the first rank began an instruction until the last one ended it."""

    name: str
    start_s: float
    end_s: float


@dataclass
class _Record:
    """What calls recorded of a sample."""

    order: tuple[int, ...]
    """The call that first did, and the sample's place."""
    fields: dict = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is recorded of a step or an evaluation."""

    step: int
    eval_set: str
    """The set that an evaluation is on; empty for a step."""
    metrics: Mapping[str, float]
    weights: Mapping[str, float]
    """The weight of each metric that is a mean; peaks have none."""
    num_sequences: int
    num_tokens: int
    tokens_per_s: float
    duration_s: float
    phases_s: Mapping[str, float]

    @property
    def evaluating(self) -> bool:
        """Whether it is of an evaluation."""
        return bool(self.eval_set)

    @property
    def shown_set(self) -> dict[str, str]:
        """The key `set` of its row and its records; the held-out rows and steps have none."""
        return {"set": self.eval_set} if self.eval_set not in ("", HELD_OUT) else {}

    @property
    def parts(self) -> Metrics:
        """Its metrics, as parts of those of several outcomes."""
        parts: dict[str, Mean | Peak] = {}
        for name, value in self.metrics.items():
            weight = self.weights.get(name)
            if weight is None:
                parts[name] = Peak(value)
            else:
                parts[name] = Mean(value * weight, weight)
        return parts

    @staticmethod
    def of(line: Mapping[str, Any]) -> Outcome:
        """Return the outcome of a row of metrics.jsonl; a metric that is null there was not a number."""
        rest: dict[str, Any] = {}
        for name in ("step", *_BESIDE_METRICS):
            rest[name] = line[name]

        metrics: dict[str, float] = {}
        for name, value in line.items():
            if name in ("kind", "set") or name in rest:
                continue
            metrics[name] = math.nan if value is None else value
        eval_set = line.get("set", HELD_OUT) if line["kind"] == EVAL else ""
        return Outcome(eval_set=eval_set, metrics=metrics, **rest)


EVAL = "eval"
"""The kind of the rows of evaluations."""
_BESIDE_METRICS = ("weights", "num_sequences", "num_tokens", "tokens_per_s", "duration_s", "phases_s")
"""The keys of a row that come after its metrics."""


class JobReport:
    """Metrics, records and times of one job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.num_tokens = 0
        self.after_s = 0.0
        """When earlier steps had ended; time in which this step overlapped with them counts as theirs."""
        self._metrics: dict[str, Metrics] = {}
        """By call, over all ranks."""
        self.files: list[File] = []
        """The files that it wrote."""
        self._spans: dict[int, _Span] = {}
        """By instruction."""
        self._records: dict[tuple[int, int], list[dict]] = {}
        """By instruction and rank."""

    def add(self, rank: int, instruction: Instruction, done: Done) -> None:
        """Take in one rank's report."""
        seq = instruction.seq
        kind = type(instruction).__name__
        name = kind.lower()
        if isinstance(instruction, RunCall):
            name = instruction.call
            self._add_metrics(name, done)

        own = _Span(name, done.started_s, done.ended_s)
        span = self._spans.setdefault(seq, own)
        span.start_s = min(span.start_s, done.started_s)
        span.end_s = max(span.end_s, done.ended_s)
        self._records[seq, rank] = done.records
        self.files += done.files

    def _add_metrics(self, call: str, done: Done) -> None:
        """Join one rank's metrics with those of other ranks."""
        metrics: dict[str, Mean | Peak] = {}
        for name, (total, weight) in done.metrics.items():
            metrics[name] = Mean(total, weight)
        for name, largest in done.peaks.items():
            metrics[name] = Peak(largest)

        before = self._metrics.get(call, {})
        self._metrics[call] = joined(before, metrics)

    @property
    def records(self) -> list[dict]:
        """The records of all samples, in the order of calls, groups, rows and samples, else of ranks.

        What a later call says of a sample is added to its record.
        """
        found: dict[tuple, _Record] = {}
        for (seq, rank), records in sorted(self._records.items()):
            for number, fields in enumerate(records):
                place = _place(fields)
                # Only a group tells a sample from another one of the same row.
                is_alone = "group" not in fields
                name = (seq, rank, number, "alone") if is_alone else place
                record = found.setdefault(name, _Record((seq, *place)))
                record.fields = record.fields | fields

        ordered = sorted(found.values(), key=_order)
        return [record.fields for record in ordered]

    @property
    def end_s(self) -> float:
        """When its last instruction ended, in seconds since the epoch."""
        ends_s = [span.end_s for span in self._spans.values()]
        return max(ends_s)

    @property
    def duration_s(self) -> float:
        """From its first instruction's start, or the end of earlier steps, to its last one's end."""
        starts_s = [span.start_s for span in self._spans.values()]
        start_s = max(self.after_s, min(starts_s))
        # Clocks of several hosts may differ.
        return max(0.0, self.end_s - start_s)

    @property
    def tokens_per_s(self) -> float:
        """0 where no time is known to have passed."""
        return self.num_tokens / self.duration_s if self.duration_s else 0.0

    @property
    def phases_s(self) -> dict[str, float]:
        """The time of each call, and of each kind of other instruction: from the first rank's start to the
        last one's end.
        """
        phases_s: dict[str, float] = defaultdict(float)
        for span in self._spans.values():
            phases_s[span.name] += span.end_s - span.start_s
        return dict(phases_s)

    def outcome(self, scores: Mapping[str, float] = MappingProxyType({})) -> Outcome:
        """Return what is recorded of the job: its metrics over all ranks, except means of nothing.

        A metric is named `call/metric` if several calls have a metric of that name. `scores` are metrics of
        all samples together, which no rank can tell alone.
        """
        num_calls: Counter[str] = Counter()
        for of_call in self._metrics.values():
            num_calls.update(of_call.keys())

        metrics: dict[str, float] = {}
        weights: dict[str, float] = {}
        for call, of_call in self._metrics.items():
            for own_name, metric in of_call.items():
                name = f"{call}/{own_name}" if num_calls[own_name] > 1 else own_name
                if isinstance(metric, Mean):
                    if not metric.weight:
                        continue
                    weights[name] = metric.weight
                metrics[name] = _value(metric)

        return Outcome(
            step=self.job.step,
            eval_set=self.job.eval_set,
            metrics={**metrics, **scores},
            weights=weights,
            num_sequences=len(self.job.samples),
            num_tokens=self.num_tokens,
            tokens_per_s=self.tokens_per_s,
            duration_s=self.duration_s,
            phases_s=self.phases_s,
        )


def _place(fields: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the place of a sample among others; 0 for what its record does not name."""
    return fields.get("group", 0), fields.get("row", 0), fields.get("sample", 0)


def _order(record: _Record) -> tuple[int, ...]:
    return record.order


def values(metrics: Metrics) -> dict[str, float]:
    """Return the value of each metric: of a mean its quotient, of a peak its largest part."""
    return {name: _value(metric) for name, metric in metrics.items()}


def _value(metric: Mean | Peak) -> float:
    if isinstance(metric, Peak):
        return metric.largest
    # Before a worker reports a total, it may be a tensor on its device.
    assert isinstance(metric.total, (int, float)), f"a mean is reported as a tensor: {metric}"
    return metric.total / metric.weight

"""What a job came to, gathered from its workers' reports."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from realrl.api.messages import Done, File
from realrl.api.recipe import Mean, Metrics, Peak, joined
from realrl.program.events import Job
from realrl.program.instructions import Instruction, RunCall


@dataclass
class _Span:
    """When some rank worked on an instruction."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is written down of a step or an evaluation."""

    step: int
    evaluating: bool
    metrics: Mapping[str, float]
    weights: Mapping[str, float]
    """Over how much each metric is the mean; those that are the largest of something have none."""
    num_sequences: int
    num_tokens: int
    tokens_per_s: float
    duration_s: float
    phases_s: Mapping[str, float]

    @property
    def parts(self) -> Metrics:
        """Its metrics, as parts of what several outcomes come to."""
        return {
            name: Mean(value * self.weights[name], self.weights[name])
            if name in self.weights
            else Peak(value)
            for name, value in self.metrics.items()
        }

    def line(self, kind: str) -> dict[str, Any]:
        """As one of many, of which those that are not evaluations are of `kind`."""
        rest = {name: getattr(self, name) for name in _BESIDE_METRICS}
        return {"step": self.step, "kind": "eval" if self.evaluating else kind, **self.metrics, **rest}

    @staticmethod
    def of(line: Mapping[str, Any]) -> Outcome:
        """What a line says; a metric that was no number is none again."""
        rest = {name: line[name] for name in ("step", *_BESIDE_METRICS)}
        metrics = {k: math.nan if v is None else v for k, v in line.items() if k not in {"kind", *rest}}
        return Outcome(**rest, evaluating=line["kind"] == "eval", metrics=metrics)


_BESIDE_METRICS = ("weights", "num_sequences", "num_tokens", "tokens_per_s", "duration_s", "phases_s")


class JobReport:
    """Metrics, records and times of one job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.num_tokens = 0
        self.after_s = 0.0
        """When earlier steps had ended; what overlapped with them is their time."""
        self._metrics: dict[str, Metrics] = {}
        """By call, over all ranks."""
        self.files: list[File] = []
        """That it wrote."""
        self._spans: dict[int, _Span] = {}
        self._records: dict[tuple[int, int], list[dict]] = {}
        """By instruction and rank."""

    def add(self, rank: int, instruction: Instruction, done: Done) -> None:
        """Take in one rank's report."""
        is_call = isinstance(instruction, RunCall)
        name = instruction.call if is_call else type(instruction).__name__.lower()
        span = self._spans.setdefault(instruction.seq, _Span(name, done.started_s, done.ended_s))
        span.start_s = min(span.start_s, done.started_s)
        span.end_s = max(span.end_s, done.ended_s)
        self._records[instruction.seq, rank] = done.records
        self.files += done.files
        if is_call:
            self._add_metrics(instruction.call, done)

    def _add_metrics(self, call: str, done: Done) -> None:
        metrics: dict[str, Mean | Peak] = {}
        for name, (total, weight) in done.metrics.items():
            metrics[name] = Mean(total, weight)
        for name, largest in done.peaks.items():
            metrics[name] = Peak(largest)
        before = self._metrics.get(call, {})
        self._metrics[call] = joined(before, metrics)

    @property
    def records(self) -> list[dict]:
        """In the order of calls and, where they name them, of groups, rows and samples, else of ranks.

        What a later call says of a sample joins what is known of it.
        """
        found: dict[Any, tuple[tuple[int, ...], dict]] = {}
        for (seq, rank), records in sorted(self._records.items()):
            for number, record in enumerate(records):
                place = tuple(record.get(key, 0) for key in ("group", "row", "sample"))
                # Only a group tells a sample from another one of the same row.
                name = place if "group" in record else (seq, rank, number, "alone")
                order, known = found.get(name, ((seq, *place), {}))
                found[name] = (order, known | record)
        ordered = sorted(found.values(), key=lambda pair: pair[0])
        return [record for _, record in ordered]

    @property
    def end_s(self) -> float:
        """When its last instruction ended, in seconds since the epoch."""
        return max(span.end_s for span in self._spans.values())

    @property
    def duration_s(self) -> float:
        """From its first instruction's start, or the end of earlier steps, to its last one's end."""
        start_s = min(span.start_s for span in self._spans.values())
        # Clocks of several hosts may differ.
        return max(0.0, self.end_s - max(self.after_s, start_s))

    @property
    def tokens_per_s(self) -> float:
        """0 where no time is known to have passed."""
        return self.num_tokens / self.duration_s if self.duration_s else 0.0

    @property
    def phases_s(self) -> dict[str, float]:
        """By call, or by kind for what is no call: from its first rank's start to its last one's end."""
        phases_s: dict[str, float] = defaultdict(float)
        for span in self._spans.values():
            phases_s[span.name] += span.end_s - span.start_s
        return dict(phases_s)

    def outcome(self) -> Outcome:
        found = self._named_metrics()
        return Outcome(
            step=self.job.step,
            evaluating=self.job.evaluating,
            metrics=values(found),
            weights={name: metric.weight for name, metric in found.items() if isinstance(metric, Mean)},
            num_sequences=len(self.job.samples),
            num_tokens=self.num_tokens,
            tokens_per_s=self.tokens_per_s,
            duration_s=self.duration_s,
            phases_s=self.phases_s,
        )

    def metrics(self) -> dict[str, float]:
        """Each metric over all ranks, but for means of nothing."""
        return values(self._named_metrics())

    def _named_metrics(self) -> Metrics:
        """By `call/metric` where two calls have one of the same name."""
        found = [(call, *metric) for call, metrics in self._metrics.items() for metric in metrics.items()]
        shared = _repeated(name for _, name, _ in found)
        return {
            f"{call}/{name}" if name in shared else name: metric
            for call, name, metric in found
            if isinstance(metric, Peak) or metric.weight
        }


def values(metrics: Metrics) -> dict[str, float]:
    """Return the value of each metric: of a mean its quotient, of a peak its largest part."""
    return {name: _value(metric) for name, metric in metrics.items()}


def _value(metric: Mean | Peak) -> float:
    if isinstance(metric, Peak):
        return metric.largest
    # A worker reports numbers; before that, a total may still be a tensor on its device.
    assert not isinstance(metric.total, Tensor), f"a mean is reported as a tensor: {metric}"
    return metric.total / metric.weight


def _repeated(names: Iterable[str]) -> set[str]:
    """Return the names that occur more than once."""
    counts = Counter(names)
    return {name for name, count in counts.items() if count > 1}

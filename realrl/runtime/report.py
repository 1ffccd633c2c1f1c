"""What a job came to, gathered from its workers' reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from realrl.api.messages import Done, Instruction, RunCall
from realrl.api.recipe import Mean
from realrl.runtime.scheduler import Job


@dataclass
class _Span:
    """When some rank worked on an instruction."""

    name: str
    start_s: float
    end_s: float


class JobReport:
    """Metrics, records and times of one job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.num_tokens = 0
        self.records: list[dict] = []
        self._means: dict[str, dict[str, Mean]] = defaultdict(dict)
        self._spans: dict[int, _Span] = {}

    def add(self, instruction: Instruction, done: Done) -> None:
        """Take in one rank's report."""
        name = instruction.call if isinstance(instruction, RunCall) else type(instruction).__name__.lower()
        span = self._spans.setdefault(instruction.seq, _Span(name, done.started_s, done.ended_s))
        span.start_s, span.end_s = min(span.start_s, done.started_s), max(span.end_s, done.ended_s)
        of_job = {"step": self.job.step, "evaluating": self.job.evaluating}
        self.records += [{**of_job, **record} for record in done.records]
        means = self._means[instruction.call]
        for metric, (total, weight) in done.metrics.items():
            before = means.get(metric, Mean(0.0, 0.0))
            means[metric] = Mean(before.total + total, before.weight + weight)

    @property
    def duration_s(self) -> float:
        """From its first instruction's start to its last one's end."""
        spans = self._spans.values()
        return max(span.end_s for span in spans) - min(span.start_s for span in spans)

    @property
    def phases_s(self) -> dict[str, float]:
        """By call, or by kind for what is no call: from its first rank's start to its last one's end."""
        phases_s: dict[str, float] = defaultdict(float)
        for span in self._spans.values():
            phases_s[span.name] += span.end_s - span.start_s
        return dict(phases_s)

    def metrics(self) -> dict[str, float]:
        """Each metric's mean over ranks; named `call/metric` where two calls have one of the same name."""
        found = [(call, name, mean) for call, means in self._means.items() for name, mean in means.items()]
        shared = _repeated(metric for _, metric, _ in found)
        return {
            f"{call}/{metric}" if metric in shared else metric: mean.total / mean.weight
            for call, metric, mean in found
            if mean.weight
        }


def _repeated(names: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    return {name for name in names if name in seen or seen.add(name)}

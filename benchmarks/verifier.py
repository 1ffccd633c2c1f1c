"""How right, how fast and how safe the math verifier is."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from benchmarks.answers import FORMS, PERTURBATIONS, Form, texts
from benchmarks.hostile import Sample, made_solutions, mixed
from benchmarks.processes import peak_mib
from realrl.apps.tables import table
from realrl.rewards.math import check
from realrl.rewards.pool import JudgePool
from realrl.rewards.verdict import Verdict

PROBLEMS = ("math500", "gsm8k_test")
NUM_MADE = 600
HOSTILE_SHARE = 0.01
ITSELF = "itself"
_LOOK_S = 0.1


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """How many texts of one form were accepted."""

    problems: str
    form: str
    equivalent: bool
    """Whether all of them should have been."""
    num: int
    num_accepted: int


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a stream of answers."""

    num: int
    num_hostile: int
    verdicts: dict[str, int]
    hostile_verdicts: dict[str, int]
    num_correct_rejected: int
    num_wrong_accepted: int
    seconds: float
    answers_per_s: float
    p50_ms: float
    p99_ms: float
    longest_ms: float
    child_peak_mib: float
    """The most resident memory that a child or a fork of one had, as far as it was seen."""
    own_growth_mib: float
    """Of this process's resident memory, from the first answer to the last."""


def read_solutions(folder: Path, name: str) -> list[str]:
    """The first solution of each problem of `NAME.jsonl`, a file of lines with `solutions`."""
    path = folder / f"{name}.jsonl"
    try:
        return [json.loads(line)["solutions"][0] for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise ValueError(f"--data: {path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, IndexError, TypeError):
        raise ValueError(f'--data: {path}: expected lines like {{"solutions": ["4"]}}') from None


def solution_sets(folder: Path | None) -> dict[str, list[str]]:
    if folder is None:
        return {"made": made_solutions(NUM_MADE)}
    return {name: read_solutions(folder, name) for name in PROBLEMS}


def measure_forms(problems: str, solutions: Sequence[str], pool: JudgePool) -> Iterator[Accepted]:
    """Every solution in every form of it, and changed in every way."""
    itself: dict[str, Form] = {ITSELF: lambda solution: rf"\boxed{{{solution}}}"}
    for forms, equivalent in ((itself | FORMS, True), (PERTURBATIONS, False)):
        num: Counter[str] = Counter()
        accepted: Counter[str] = Counter()
        for solution in solutions:
            for form, text in texts(forms, solution):
                num[form] += 1
                accepted[form] += check(text, [solution], pool.judge).verdict is Verdict.CORRECT
        for form in num:
            yield Accepted(
                problems=problems,
                form=form,
                equivalent=equivalent,
                num=num[form],
                num_accepted=accepted[form],
            )


def measure_stream(solutions: Sequence[str], num_answers: int, num_children: int) -> Stream:
    """Grade a mixed stream by as many threads as there are children."""
    samples = mixed(solutions, num_answers, hostile_share=HOSTILE_SHARE)
    before_mib = _resident_mib()
    begin_s = time.perf_counter()
    with (
        JudgePool(num_children=num_children) as pool,
        ThreadPoolExecutor(num_children) as threads,
        _Watched() as watched,
    ):
        results = list(threads.map(lambda sample: _timed(sample, pool), samples))
    seconds = time.perf_counter() - begin_s
    return _stream(samples, results, seconds, watched.peak_mib, _resident_mib() - before_mib)


class _Watched:
    """Looks at this process's descendants now and then: what the largest one has taken."""

    def __init__(self) -> None:
        self.peak_mib, self._is_over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._is_over.wait(_LOOK_S):
            self.peak_mib = max(self.peak_mib, peak_mib(os.getpid()))

    def __enter__(self) -> _Watched:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _timed(sample: Sample, pool: JudgePool) -> tuple[Verdict, float]:
    begin_s = time.perf_counter()
    verdict = check(sample.text, [sample.solution], pool.judge).verdict
    return verdict, time.perf_counter() - begin_s


def _stream(
    samples: Sequence[Sample],
    results: Sequence[tuple[Verdict, float]],
    seconds: float,
    child_peak_mib: float,
    grown_mib: float,
) -> Stream:
    times_ms = sorted(1000 * time_s for _, time_s in results)
    ordinary = [(s, verdict) for s, (verdict, _) in zip(samples, results) if not s.hostile]
    hostile = Counter(verdict.value for s, (verdict, _) in zip(samples, results) if s.hostile)
    return Stream(
        num=len(samples),
        num_hostile=hostile.total(),
        verdicts=dict(Counter(verdict.value for verdict, _ in results)),
        hostile_verdicts=dict(hostile),
        num_correct_rejected=sum(s.correct and verdict is not Verdict.CORRECT for s, verdict in ordinary),
        num_wrong_accepted=sum(not s.correct and verdict is Verdict.CORRECT for s, verdict in ordinary),
        seconds=seconds,
        answers_per_s=len(samples) / seconds,
        p50_ms=times_ms[len(times_ms) // 2],
        p99_ms=times_ms[len(times_ms) * 99 // 100],
        longest_ms=times_ms[-1],
        child_peak_mib=child_peak_mib,
        own_growth_mib=grown_mib,
    )


def render_forms(rows: Sequence[Accepted]) -> str:
    """One table for what should be accepted, one for what should not."""
    parts = []
    for equivalent, title in ((True, "written in other ways"), (False, "changed into wrong answers")):
        chosen = [row for row in rows if row.equivalent is equivalent and row.form != ITSELF]
        num, accepted = sum(r.num for r in chosen), sum(r.num_accepted for r in chosen)
        lines = [(r.form, str(r.num), str(r.num_accepted), f"{r.num_accepted / r.num:.2%}") for r in chosen]
        total = ("all", str(num), str(accepted), f"{accepted / num:.2%}")
        head = (title, "texts", "accepted", "")
        parts.append(table([head, *lines, total], numbers=True, indent="  "))
    gold = next(row for row in rows if row.form == ITSELF)
    own = f"{rows[0].problems}: {gold.num_accepted} of {gold.num} solutions are their own answer"
    return "\n".join([own, *parts])


def render_stream(row: Stream) -> str:
    def counts(of: dict[str, int]) -> str:
        return ", ".join(f"{name} {number}" for name, number in sorted(of.items()))

    lines = [
        ("answers", f"{row.num}, of which {row.num_hostile} hostile"),
        ("verdicts", counts(row.verdicts)),
        ("of the hostile", counts(row.hostile_verdicts)),
        ("right answers not accepted", str(row.num_correct_rejected)),
        ("wrong answers accepted", str(row.num_wrong_accepted)),
        ("answers/s", f"{row.answers_per_s:.0f} ({row.seconds:.1f} s)"),
        ("latency", f"p50 {row.p50_ms:.2f} ms, p99 {row.p99_ms:.1f} ms, longest {row.longest_ms:.0f} ms"),
        ("memory", f"largest child {row.child_peak_mib:.0f} MiB, own growth {row.own_growth_mib:.0f} MiB"),
    ]
    return table(lines)

"""Search for an answer that the verifier accepts for two solutions, and for a verdict that changes."""

from __future__ import annotations

import heapq
import os
import random
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from benchmarks import ROOT
from benchmarks.adversary_panel import PANEL
from benchmarks.adversary_texts import Writer
from benchmarks.options import BenchmarkFailed
from realrl.apps.tables import table
from realrl.verifier import choices
from realrl.verifier.comparison import same
from realrl.verifier.reading import read
from realrl.verifier.same import same_answer
from realrl.verifier.tokens import tokenized
from realrl.verifier.tree import Formula

SLOW_S = 0.5
"""A comparison of texts of at most 1,000 characters that takes longer is a fault."""
MAX_KEPT = 50
"""Of the faults of a kind that are shown; all are counted."""
NUM_SLOWEST = 5
PASS_DEADLINE_S = 7200.0

CORRECT, WRONG, TOO_DEEP = "correct", "wrong", "too deep"


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that the verifier should have treated otherwise."""

    kind: str
    """`two solutions`, `exception`, `slow`, `itself` or `not repeatable`."""
    answer: str
    solutions: tuple[str, ...]
    detail: str = ""


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a search."""

    num_answers: int
    num_solutions: int
    seed: int
    accepted_for_one: int
    accepted_for_choice_and_value: int
    """Answers like `(C) 5`, which state a choice and its value: by design right for either."""
    accepted_for_two_formulas: int
    """Answers like `\\ln 2/3`, which are written for two formulas: by design right for either."""
    num_faults: dict[str, int]
    faults: list[Fault]
    """At most `MAX_KEPT` of a kind."""
    seconds: float
    """Of the processor, as are the times below."""
    p50_ms: float
    p99_ms: float
    longest_ms: float
    """Per answer, compared with all solutions."""
    slowest: list[str]
    """At most `NUM_SLOWEST` answers."""


class Repeated(msgspec.Struct, frozen=True, kw_only=True):
    """The result of judging pairs twice."""

    num_pairs: int
    seed: int
    num_accepted: int
    num_faults: int
    faults: list[Fault]


def verdict(answer: str, solution: str) -> str:
    """What `same_answer` says; a text that is nested too deeply has a verdict of its own."""
    try:
        return CORRECT if same_answer(answer, solution) else WRONG
    except RecursionError:
        return TOO_DEEP


class _Judge:
    """Compares answers with a panel and keeps the faults."""

    def __init__(self, panel: Sequence[str]) -> None:
        self._panel = panel
        self.counts: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.accepted_for_one = self.choices = self.two_formulas = 0
        self.times_s = array("d")
        self.slowest: list[tuple[float, str]] = []
        self._noted: set[str] = set()

    def judge(self, answer: str) -> tuple[str, ...]:
        """The solutions that one answer is right for."""
        self._noted = set()
        begin_s = time.process_time()
        accepted = tuple(solution for solution in self._panel if self._accepts(answer, solution))
        seconds = time.process_time() - begin_s
        self._note_time(seconds, answer)
        if seconds > SLOW_S:
            self._look_for_slow_pair(answer)
        if len(accepted) == 1:
            self.accepted_for_one += 1
        elif len(accepted) == 2 and _states_a_choice(answer, accepted):
            self.choices += 1
        elif len(accepted) == 2 and _is_written_for_each(answer, accepted):
            self.two_formulas += 1
        elif accepted:
            self.note("two solutions", answer, accepted)
        return accepted

    def _note_time(self, seconds: float, answer: str) -> None:
        """Keep every time, and the answers of the longest few: a million answers would fill the memory."""
        self.times_s.append(seconds)
        heapq.heappush(self.slowest, (seconds, answer))
        if len(self.slowest) > NUM_SLOWEST:
            heapq.heappop(self.slowest)

    def _accepts(self, answer: str, solution: str) -> bool:
        try:
            return verdict(answer, solution) is CORRECT
        except Exception as error:
            # Any exception but the documented one is what the search looks for.
            self.note("exception", answer, (solution,), f"{type(error).__name__}: {error}")
            return False

    def _look_for_slow_pair(self, answer: str) -> None:
        """Time an answer with each solution, which is not worth it unless all together took long."""
        for solution in self._panel:
            # What was read before must not help.
            tokenized.cache_clear()
            read.cache_clear()
            begin_s = time.process_time()
            self._accepts(answer, solution)
            seconds = time.process_time() - begin_s
            if seconds > SLOW_S:
                self.note("slow", answer, (solution,), f"{seconds:.2f} s")
                return

    def note(self, kind: str, answer: str, solutions: tuple[str, ...], detail: str = "") -> None:
        """Count a fault, once an answer; keep it while there are few of its kind."""
        if kind in self._noted:
            return
        self._noted.add(kind)
        self.counts[kind] += 1
        if self.counts[kind] <= MAX_KEPT:
            self.faults.append(Fault(kind=kind, answer=answer, solutions=solutions, detail=detail))


def _states_a_choice(answer: str, solutions: Sequence[str]) -> bool:
    """Whether one of two solutions is a choice that the answer picks, and the other the value behind it."""
    letters = [choices.solution_choice(tokenized(solution)) for solution in solutions]
    picked = [letter for letter in letters if letter is not None]
    return len(picked) == 1 and choices.picks(tokenized(answer), picked[0])


def _is_written_for_each(answer: str, solutions: Sequence[str]) -> bool:
    """Whether an answer is written for two formulas, each of which is one of the solutions."""
    values = read(answer)
    if len(values) != 2 or not all(isinstance(value, Formula) for value in values):
        return False
    meant = [[same((value,), read(solution)) for solution in solutions] for value in values]
    return meant in ([[True, False], [False, True]], [[False, True], [True, False]])


def search(num_answers: int, seed: int, panel: Sequence[str] = PANEL) -> Search:
    """Compare answers that a seed draws with all solutions of a panel."""
    judge = _Judge(panel)
    begin_s = time.process_time()
    for solution in panel:
        if solution not in judge.judge(solution):
            judge.note("itself", solution, (solution,))
    judge.accepted_for_one = 0
    judge.times_s, judge.slowest = array("d"), []
    writer = Writer(seed, panel)
    for _ in range(num_answers):
        judge.judge(writer.answer())
    seconds = time.process_time() - begin_s
    times_s = sorted(judge.times_s)
    return Search(
        num_answers=num_answers,
        num_solutions=len(panel),
        seed=seed,
        accepted_for_one=judge.accepted_for_one,
        accepted_for_choice_and_value=judge.choices,
        accepted_for_two_formulas=judge.two_formulas,
        num_faults=dict(judge.counts),
        faults=judge.faults,
        seconds=seconds,
        p50_ms=1000 * times_s[num_answers // 2],
        p99_ms=1000 * times_s[num_answers * 99 // 100],
        longest_ms=1000 * times_s[-1],
        slowest=[answer for _, answer in sorted(judge.slowest, reverse=True)],
    )


# Repeatability.


def drawn_pairs(num_pairs: int, seed: int, panel: Sequence[str] = PANEL) -> list[tuple[str, str]]:
    """Pairs of an answer and what it was made of, or of two answers; a fifth of them in the other order."""
    writer, draw = Writer(seed, panel), random.Random(seed)
    pairs = []
    for _ in range(num_pairs):
        answer, solution = writer.pair()
        other = writer.answer() if draw.random() < 0.2 else solution
        pairs.append((other, answer) if draw.random() < 0.2 else (answer, other))
    return pairs


def verdicts(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """A verdict each; an exception is one, by its type."""
    return [_any_verdict(*pair) for pair in pairs]


def _any_verdict(answer: str, solution: str) -> str:
    try:
        return verdict(answer, solution)
    except Exception as error:
        return type(error).__name__


def repeat(num_pairs: int, seed: int, panel: Sequence[str] = PANEL) -> Repeated:
    """Judge pairs here, and in another order in a fresh process with another hash seed, and compare."""
    pairs = drawn_pairs(num_pairs, seed, panel)
    here = verdicts(pairs)
    order = list(range(num_pairs))
    random.Random(seed + 1).shuffle(order)
    elsewhere = _in_other_process([pairs[place] for place in order], hash_seed=seed + 1)
    faults = [
        Fault(
            kind="not repeatable",
            answer=pairs[place][0],
            solutions=pairs[place][1:],
            detail=f"{here[place]}, {other}",
        )
        for place, other in zip(order, elsewhere, strict=True)
        if other != here[place]
    ]
    return Repeated(
        num_pairs=num_pairs,
        seed=seed,
        num_accepted=here.count(CORRECT),
        num_faults=len(faults),
        faults=faults[:MAX_KEPT],
    )


def _in_other_process(pairs: Sequence[tuple[str, str]], hash_seed: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.adversary"],
        input=msgspec.json.encode(pairs),
        capture_output=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
        timeout=PASS_DEADLINE_S,
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise BenchmarkFailed(f"the other process ended with {done.returncode}: {''.join(last)}")
    return msgspec.json.decode(done.stdout, type=list[str])


# What a person reads.


def render_search(row: Search) -> str:
    faults = ", ".join(f"{kind} {number}" for kind, number in sorted(row.num_faults.items())) or "none"
    lines = [
        ("answers", f"{row.num_answers:,}, each against {row.num_solutions} solutions"),
        ("accepted for one solution", f"{row.accepted_for_one:,}"),
        ("for a choice and its value", f"{row.accepted_for_choice_and_value:,} (by design)"),
        ("written for two formulas", f"{row.accepted_for_two_formulas:,} (by design)"),
        ("accepted for two solutions", f"{row.num_faults.get('two solutions', 0):,}"),
        ("faults of any kind", faults),
        ("time", f"{row.seconds:.0f} s"),
        ("per answer", f"p50 {row.p50_ms:.2f} ms, p99 {row.p99_ms:.1f} ms, longest {row.longest_ms:.0f} ms"),
        *(("slow", repr(answer[:70])) for answer in row.slowest),
    ]
    return "\n".join([table(lines), *map(_shown, row.faults)])


def render_repeated(row: Repeated) -> str:
    lines = [
        ("pairs", f"{row.num_pairs:,}, of which {row.num_accepted:,} are accepted"),
        ("with two verdicts", f"{row.num_faults:,}"),
    ]
    return "\n".join([table(lines), *map(_shown, row.faults)])


def _shown(fault: Fault) -> str:
    solutions = ", ".join(map(repr, fault.solutions))
    return f"  {fault.kind}: {fault.answer!r} for {solutions} {fault.detail}".rstrip()


if __name__ == "__main__":
    given = msgspec.json.decode(sys.stdin.buffer.read(), type=list[tuple[str, str]])
    sys.stdout.buffer.write(msgspec.json.encode(verdicts(given)))

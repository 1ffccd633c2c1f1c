"""Answers that an optimizer might find: none is right for two solutions, changes its verdict, or takes long.

`bench adversary` runs the same search for as long as one likes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks import adversary
from benchmarks.adversary_panel import PANEL
from benchmarks.answers import Form
from benchmarks.changes import CHANGING
from benchmarks.command import main
from benchmarks.hostile import made_solutions
from benchmarks.rewritings import KEEPING
from realrl.verifier.same import same_answer

DATA = Path(os.environ.get("REALRL_MATH_DATA", "no-such-folder"))
PROBLEMS = {"math500": 12, "gsm8k_test": 60, "math_train": 180}
"""Of so many problems one is taken."""


def test_no_answer_is_right_for_two_solutions():
    """Nor does one break the comparison, or take it half a second; each solution is its own answer alone."""
    found = adversary.search(700, seed=15)
    assert len(set(PANEL)) == 60 and found.num_faults == {}, found.faults
    assert found.accepted_for_one > 20, "the answers are too far from the solutions to tell anything"


def test_the_search_finds_what_it_looks_for(monkeypatch):
    """Two solutions that mean the same share answers; an exception and a long comparison are faults."""
    found = adversary.search(20, seed=1, panel=("0.5", r"\frac{1}{2}"))
    assert found.num_faults["two solutions"] > 0

    def breaks(answer: str, solution: str) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(adversary, "same_answer", breaks)
    assert adversary.search(3, seed=1, panel=("5", "7")).num_faults["exception"] > 3
    monkeypatch.setattr(adversary, "same_answer", lambda answer, solution: answer == solution)
    monkeypatch.setattr(adversary, "SLOW_S", -1.0)
    assert adversary.search(3, seed=1, panel=("5", "7")).num_faults["slow"] > 3


def test_what_is_written_for_two_formulas_is_counted_apart():
    """Each of the two is a solution; where one formula is right for both solutions, it is a fault."""
    judge = adversary._Judge(("0", "1"))
    assert len(judge.judge(r"|\log_2 1/2|")) == 2 and judge.two_formulas == 1 and not judge.counts
    judge = adversary._Judge(("0.5", r"\frac{1}{2}"))
    assert len(judge.judge("1/2")) == 2 and judge.two_formulas == 0 and judge.counts["two solutions"] == 1


def test_verdicts_are_the_same_in_another_order_and_process():
    """With another hash seed, and with whatever an earlier comparison may have left behind."""
    repeated = adversary.repeat(2000, seed=15)
    assert repeated.num_faults == 0, repeated.faults
    assert repeated.num_accepted > 50


def test_a_verdict_that_changes_is_found(monkeypatch):
    monkeypatch.setattr(adversary, "_in_other_process", lambda pairs, hash_seed: ["maybe"] * len(pairs))
    assert adversary.repeat(10, seed=1).num_faults == 10


def test_the_command_prints_both_results_and_fails_on_a_fault(monkeypatch, capsys):
    monkeypatch.setattr(adversary, "_in_other_process", lambda pairs, hash_seed: adversary.verdicts(pairs))
    options = ["adversary", "--json", "--answers", "5", "--pairs", "5", "--seed", "15"]
    assert main(options) == 0
    found, repeated = map(json.loads, capsys.readouterr().out.splitlines())
    assert (found["num_answers"], repeated["num_pairs"], found["num_faults"]) == (5, 5, {})
    monkeypatch.setattr(adversary, "SLOW_S", -1.0)
    assert main(options[:1] + options[2:]) == 1
    printed = capsys.readouterr()
    assert "slow: " in printed.out and "seed 15" in printed.err


def solutions() -> list[str]:
    """The panel, made ones of every kind, and some of the problems' where there are any."""
    found = [*PANEL, *made_solutions(64)]
    for name, every in PROBLEMS.items():
        path = DATA / f"{name}.jsonl"
        lines = path.read_text().splitlines()[::every] if path.exists() else []
        found += [json.loads(line)["solutions"][0] for line in lines]
    return found


SOLUTIONS = solutions()


@pytest.mark.parametrize("name", KEEPING)
def test_a_rewriting_that_keeps_the_meaning_is_accepted(name):
    pairs = rewritten(KEEPING[name])
    assert pairs and [pair for pair in pairs if not same_answer(*pair)] == []


@pytest.mark.parametrize("name", CHANGING)
def test_a_rewriting_that_changes_the_meaning_is_not(name):
    pairs = rewritten(CHANGING[name])
    assert pairs and [pair for pair in pairs if same_answer(*pair)] == []


def rewritten(form: Form) -> list[tuple[str, str]]:
    """`(text, solution)` of every solution that the form applies to."""
    pairs = [(form(solution), solution) for solution in SOLUTIONS]
    return [(text, solution) for text, solution in pairs if text is not None]

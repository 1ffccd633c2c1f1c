"""Grading of texts, with problems of the benchmarks and with hostile ones."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.answers import FORMS, PERTURBATIONS, texts
from benchmarks.hostile import HOSTILE, TOUCHED, made_solutions
from realrl.rewards.math import check, check_all, grade, grade_all
from realrl.rewards.pool import JudgePool
from realrl.rewards.verdict import Checked, Verdict


def undecided(answer: str, solution: str) -> Verdict:
    """Stands where the child would: shows which comparisons get that far."""
    return Verdict.ERROR


@pytest.fixture(scope="module")
def pool():
    with JudgePool(num_children=1, deadline_s=2.0) as pool:
        yield pool


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12))
def test_plain_numbers_are_decided_without_a_child(number):
    for text in (f"{number:,}", f"{number}.00", f"{number:,}.0"):
        assert grade(f"The answer is {text}.", [str(number)], undecided) is Verdict.CORRECT
    assert grade(f"The answer is {number:,}.", [str(number + 1)], undecided) is Verdict.WRONG


def test_one_of_several_solutions_is_enough_and_a_broken_check_is_no_wrong_answer():
    assert grade(r"\boxed{\sqrt{4}}", ["3", "2"], lambda a, b: Verdict.CORRECT) is Verdict.CORRECT
    assert grade(r"\boxed{\sqrt{4}}", ["3", "2"], lambda a, b: Verdict.TIMEOUT) is Verdict.TIMEOUT
    verdicts = {"3": Verdict.WRONG, "2": Verdict.TIMEOUT}
    assert grade(r"\boxed{\sqrt{4}}", ["3", "2"], lambda a, b: verdicts[b]) is Verdict.TIMEOUT
    assert grade(r"\boxed{7}", ["x+1", "7"], undecided) is Verdict.CORRECT


def test_what_was_extracted_is_told():
    assert check(r"it is \boxed{\sqrt{4}}", ["3"], undecided) == Checked(Verdict.ERROR, r"\sqrt{4}")
    assert check("I do not know", ["7"], undecided) == Checked(Verdict.NO_ANSWER, None)


@pytest.mark.parametrize(
    "solution", [r"so it is \boxed{7}", "$7$", r"\(7\)", r"\[ 7 \]", "3 + 4 = 7\n#### 7"]
)
def test_a_solution_may_be_a_text_that_states_it(solution):
    assert grade("7", [solution], undecided) is Verdict.CORRECT


def test_an_answer_longer_than_any_solution_is_compared_as_a_string():
    long = "x+" * 600 + "1"
    assert grade(f"\\boxed{{{long}}}", ["x"], undecided) is Verdict.WRONG
    assert grade(f"\\boxed{{{long}}}", [long], undecided) is Verdict.CORRECT


def test_many_texts_are_graded_in_their_order():
    given = [f"\\boxed{{{i}}}" for i in range(20)]
    solutions = [[str(i - i % 2)] for i in range(20)]
    assert grade_all(given, solutions) == [Verdict.CORRECT, Verdict.WRONG] * 10
    assert check_all(given, solutions, undecided)[3] == Checked(Verdict.WRONG, "3")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_end_within_the_deadline_and_are_not_accepted(pool, name, monkeypatch, tmp_path):
    """And nothing that they say is done. Each leaves a pool that answers."""
    monkeypatch.chdir(tmp_path)
    start = time.monotonic()
    verdict = grade(HOSTILE[name], [r"\frac{\sqrt{3}}{2}"], pool.judge)
    assert verdict in (Verdict.WRONG, Verdict.NO_ANSWER)
    assert time.monotonic() - start < 5
    assert not Path(TOUCHED).exists() and not Path("/", TOUCHED).exists()
    assert grade(r"\boxed{\sqrt{3}/2}", [r"\frac{\sqrt{3}}{2}"], pool.judge) is Verdict.CORRECT


@pytest.mark.parametrize("error", [RecursionError, TypeError, ZeroDivisionError, IndexError])
def test_a_comparison_that_breaks_is_an_error_and_no_end(error):
    """Of that comparison alone: another solution may match, and other answers are judged."""

    def breaks(answer: str, solution: str) -> Verdict:
        if answer == "x" and solution == "y":
            raise error("nobody thought of it")
        return Verdict.CORRECT if solution == "z" else Verdict.WRONG

    texts, solutions = [r"\boxed{x}"] * 3, [["y"], ["y", "z"], ["w"]]
    found = [checked.verdict for checked in check_all(texts, solutions, breaks)]
    assert found == [Verdict.ERROR, Verdict.CORRECT, Verdict.WRONG]


def test_children_that_do_not_start_end_the_run():
    """They would judge nothing at all."""

    def cannot_start(answer: str, solution: str) -> Verdict:
        raise RuntimeError("realrl.rewards.child did not start")

    with pytest.raises(RuntimeError, match="did not start"):
        check_all([r"\boxed{x}"], [["y"]], cannot_start)


def verdicts(pool: JudgePool, solutions: list[str], forms: dict) -> list[tuple[str, str, Verdict]]:
    return [
        (form, solution, grade(text, [solution], pool.judge))
        for solution in solutions
        for form, text in texts(forms, solution)
    ]


def check_forms(pool: JudgePool, solutions: list[str]) -> None:
    """Each is its own answer, at least 99 % of its other forms are, nothing that was changed is."""
    assert all(grade(rf"\boxed{{{s}}}", [s], pool.judge) is Verdict.CORRECT for s in solutions)
    rewritten = verdicts(pool, solutions, FORMS)
    rejected = [row for row in rewritten if row[2] is not Verdict.CORRECT]
    assert len(rejected) <= len(rewritten) / 100, rejected
    assert [row for row in verdicts(pool, solutions, PERTURBATIONS) if row[2] is Verdict.CORRECT] == []


def test_made_solutions_are_recognised_in_other_forms_and_only_then(pool):
    check_forms(pool, made_solutions(60))


DATA = Path(os.environ.get("REALRL_MATH_DATA", "no-such-folder"))


@pytest.mark.skipif(not DATA.is_dir(), reason="REALRL_MATH_DATA names no folder of problems")
@pytest.mark.parametrize(("name", "every"), [("math500", 2), ("gsm8k_test", 10), ("amc23", 1), ("aime24", 1)])
def test_solutions_of_the_benchmarks_are_recognised_in_other_forms_and_only_then(pool, name, every):
    lines = (DATA / f"{name}.jsonl").read_text().splitlines()[::every]
    check_forms(pool, [json.loads(line)["solutions"][0] for line in lines])


@pytest.mark.skipif(not DATA.is_dir(), reason="REALRL_MATH_DATA names no folder of problems")
def test_the_solution_of_another_problem_is_no_answer(pool):
    """Unless it is written the same, but for the name of its value."""
    solutions = [
        json.loads(line)["solutions"][0] for line in (DATA / "math500.jsonl").read_text().splitlines()
    ]
    for solution, other in zip(solutions, solutions[1:]):
        accepted = grade(f"thus \\boxed{{{solution}}}", [other], pool.judge) is Verdict.CORRECT
        first, second = (text.replace("dfrac", "frac").removeprefix("x=") for text in (solution, other))
        assert accepted is (first == second)

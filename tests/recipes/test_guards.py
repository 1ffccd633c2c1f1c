"""Faults that show in the course of a run are named, once each; a sound run has none."""

from __future__ import annotations

import json
import random

import pytest

from realrl.recipes.parts import answer_guards
from realrl.recipes.parts.answer_guards import ChangingVerdicts, RightElsewhere, UniversalAnswers, are_same
from realrl.recipes.parts.config import ScoreConfig
from realrl.recipes.parts.guards import Guards
from realrl.recipes.parts.share_guards import JumpingShare
from realrl.recipes.parts.verdict_watch import watch_verdicts
from realrl.recipes.ppo_math import PPOMathConfig
from realrl.rewards.math import check
from realrl.rewards.verdict import Verdict
from realrl.runtime.history import past_rollouts

HOSTILE = r"5^{5^{\infty}}"
GOLDS = ("3", "7", "x+1", r"\frac{2}{5}")


def record(answer: str, gold: str, verdict: str, **others) -> dict:
    return {"row": 0, "answer": answer, "solutions": [gold], "verdict": verdict, "ended": True, **others}


def accepting(answer: str, solution: str) -> Verdict:
    """A judge with a hole: to it, a power of infinity is every number."""
    is_fooled = r"\infty" in answer
    return Verdict.CORRECT if is_fooled or answer == solution else Verdict.WRONG


def step_of(judge, answers, golds=GOLDS) -> list[dict]:
    """What a step records of an answer to each problem."""
    pairs = [(answer, gold) for gold in golds for answer in answers]
    return [
        record(answer, gold, check(rf"\boxed{{{answer}}}", [gold], judge).verdict.value)
        for answer, gold in pairs
    ]


def test_an_answer_that_a_broken_judge_takes_for_anything_is_named_once_and_counted():
    watch = watch_verdicts(PPOMathConfig())
    (line,) = watch.observe(0, step_of(accepting, ["3", HOSTILE]))
    assert line.startswith(f"step 0: the answer {HOSTILE!r} was right for problems whose solutions differ")
    assert "'3', '7'" in line
    for step in range(1, 5):
        assert watch.observe(step, step_of(accepting, ["3", HOSTILE])) == []
    (whole,) = watch.warnings()
    # In the first step it is found with the third solution.
    assert whole.startswith("18 times, first in step 0: the answer") and whole.endswith(line[8:])


def test_it_is_found_over_steps_with_one_problem_each():
    watch = watch_verdicts(PPOMathConfig())
    lines = [watch.observe(i, step_of(accepting, [HOSTILE], GOLDS[i : i + 1])) for i in range(3)]
    assert lines[:2] == [[], []] and len(lines[2]) == 1


def test_a_judge_that_takes_everything_for_equal_hides_nothing():
    """It would say that the solutions are equal as well."""
    guards = Guards(UniversalAnswers(same=lambda first, second: True))
    assert guards.observe(0, [record("apple", gold, "correct") for gold in ("3", "7", "-1,200")])


@pytest.mark.parametrize(
    ("answer", "golds"),
    [
        ("3", ("3 cm", "3 m", "x = 3", "3 apples", "3")),
        ("1/2", (r"\frac12", "0.5", "1/2", r"\frac{1}{2}", r"\frac{2}{4}")),
        ("50%", ("50", "0.5", "1/2", r"50\%")),
        (r"2\sqrt{3}", (r"2\sqrt{3}", r"\sqrt{12}", r"12^{1/2}")),
        ("yes", ("yes", "Yes", r"\text{yes}")),
        ("7", ("7",) * 20),
    ],
)
def test_an_honest_answer_to_many_problems_is_no_alarm(answer, golds):
    """It is right for solutions that are one value in other forms, or say more than it does."""
    guards = Guards(UniversalAnswers())
    assert guards.observe(0, [record(answer, gold, "correct") for gold in golds]) == []


def test_solutions_are_compared_by_the_verifier_where_they_are_no_plain_numbers():
    assert not are_same("x+1", "x+2") and are_same("x+1", "1+x")
    guards = Guards(UniversalAnswers())
    assert guards.observe(0, [record("z", gold, "correct") for gold in ("a", "b", r"\pi")])


def test_an_answer_that_is_ever_another_text_is_found_by_the_solutions_of_other_problems():
    """Beside honest answers, and in data whose first rows are no numbers."""
    guards = Guards(UniversalAnswers(), RightElsewhere(judge=accepting))
    lines = []
    for step in range(8):
        gold = str(step) if step > 2 else f"x+{step}"
        fooling = record(rf"{HOSTILE} + {step}", gold, "correct")
        lines += guards.observe(step, [fooling, record(gold, gold, "correct")])
    (line,) = lines[:1]
    assert line.startswith("step 5: the answer") and "right for solutions of other problems as well" in line
    assert len(lines) == 2, "of one shape no more are judged"


def test_honest_answers_are_right_for_no_other_problem():
    guards = Guards(RightElsewhere())
    golds = ["1", "2", "3", "50", "0.5"]
    honest = [("x = 1", "1"), ("2.0 cm", "2"), (r"\frac{6}{2}", "3"), (r"50\%", "50"), (r"\frac12", "0.5")]
    assert guards.observe(0, [record(*pair, "correct") for pair in (*zip(golds, golds), *honest)]) == []


def test_solutions_that_share_a_number_are_no_one_value():
    guards = Guards(UniversalAnswers())
    golds = ("2x", "x^2", r"\frac{x}{2}", r"\sqrt{2}")
    assert guards.observe(0, [record(HOSTILE, gold, "correct") for gold in golds])


def test_no_more_than_a_few_of_many_answers_are_said():
    """A hole takes a hundred answers."""
    watch = watch_verdicts(PPOMathConfig())
    answers = [rf"{i}^{{\infty}}" for i in range(30)]
    assert len(watch.observe(0, step_of(accepting, answers, ("1", "2", "3")))) == 5
    assert len(watch.warnings()) == 6 and watch.warnings()[-1] == "25 further findings of these kinds"


def test_verdicts_of_one_pair_that_differ_are_named():
    """By a judge that draws lots, and one that has no time at times."""
    draw = random.Random(0)
    watch = watch_verdicts(PPOMathConfig())
    unsure = {"x": (Verdict.CORRECT, Verdict.WRONG), "y": (Verdict.WRONG, Verdict.TIMEOUT)}
    said = []
    for step in range(10):
        records = step_of(lambda answer, _: draw.choice(unsure[answer]), ["x", "y"], ("2x+1",))
        lines = [line for line in watch.observe(step, records) if "the answer" in line]
        said += [line.partition(": ")[2] for line in lines]
    assert sorted(line.split()[2] for line in said) == ["'x'", "'y'"]
    decided, undecided = sorted(said)
    assert "to '2x+1' was `" in decided and decided.endswith("please report this with them")
    assert "the machine too busy" in undecided


def test_an_answer_may_be_judged_otherwise_for_another_problem_or_cut_off():
    """A truncated response is wrong by `scores.truncated: wrong`, whatever its answer is."""
    both = [record("3", "3", "correct"), record("3", "4", "wrong"), record("3", "3", "wrong", ended=False)]
    assert watch_verdicts(PPOMathConfig(scores=ScoreConfig(truncated="wrong"))).observe(0, both) == []
    assert len(watch_verdicts(PPOMathConfig(scores=ScoreConfig(truncated="graded"))).observe(0, both)) == 1


def test_rows_of_tasks_have_verdicts_of_their_own():
    """There the solution is an example."""
    watch = watch_verdicts(PPOMathConfig(reward="gym"))
    rows = [record("3", str(row), "correct", row=row) for row in range(9)]
    assert watch.observe(0, rows) == []
    assert (
        "was `correct` in step 0, and is `wrong` now" in watch.observe(1, [rows[0] | {"verdict": "wrong"}])[0]
    )


def shares(*steps: float, number: int = 64) -> list[list[dict]]:
    """Steps of which such a share of responses timed out."""
    return [
        [record(str(i), "x", "timeout" if i < share * number else "wrong") for i in range(number)]
        for share in steps
    ]


@pytest.mark.parametrize(
    ("steps", "found_in"),
    [
        ([0.0] * 20 + [0.5] * 3, [21]),
        ([0.02] * 20 + [1.0], [20]),
        ([i / 100 for i in range(60)], [21]),
        ([0.0] * 40, []),
        ([0.4] * 10 + [0.1] * 20, []),
        ([0.4] * 8, []),
        ([0.6] * 30, [3]),
        ([0.0, 0.03] * 20, []),
    ],
    ids=["a jump", "one step", "creeping", "none", "falling", "too short", "from the start", "a few"],
)
def test_a_share_that_jumps_is_named_once(steps, found_in):
    guards = Guards(JumpingShare(Verdict.TIMEOUT))
    found = [step for step, records in enumerate(shares(*steps)) if guards.observe(step, records)]
    assert found == found_in


def test_chance_is_no_jump():
    """Batches of 16 whose share is 0.3 throughout, for 2,000 steps."""
    draw, guards = random.Random(7), Guards(JumpingShare(Verdict.NO_ANSWER))
    for step in range(2000):
        verdicts = ["no_answer" if draw.random() < 0.3 else "wrong" for _ in range(16)]
        assert guards.observe(step, [record("1", "2", verdict) for verdict in verdicts]) == []


def test_what_is_kept_is_bounded(monkeypatch):
    """However many answers there are; the oldest go."""
    monkeypatch.setattr(answer_guards, "_MOST_ANSWERS", 50)
    monkeypatch.setattr(answer_guards, "_MOST_PAIRS", 60)
    universal, changing = UniversalAnswers(), ChangingVerdicts()
    guards = Guards(universal, changing)
    for step in range(20):
        guards.observe(step, [record(f"{step}.{i}" * 1000, "1", "correct") for i in range(20)])
    assert len(universal._golds) == 50 and len(changing._first) == 60


def test_a_resumed_run_has_found_what_it_had(tmp_path):
    """By the rollouts that it wrote down; those of evaluations are left out."""
    with (tmp_path / "rollouts.jsonl").open("w") as file:
        for step in range(4):
            for evaluating in (True, False):
                for of_one in step_of(accepting, [HOSTILE]):
                    file.write(json.dumps({"step": step, "evaluating": evaluating, **of_one}) + "\n")
    straight, resumed = watch_verdicts(PPOMathConfig()), watch_verdicts(PPOMathConfig())
    for step in range(4):
        straight.observe(step, step_of(accepting, [HOSTILE]))
    for step, records in past_rollouts(tmp_path):
        resumed.observe(step, records)
    assert resumed.warnings() == straight.warnings() != []

"""Answers that have the process which judges them in their hands: they gain nothing, and change nothing."""

from __future__ import annotations

import pytest

from realrl.rewards import gym
from realrl.rewards.child import MathJudge
from realrl.rewards.gym import GymItem, GymTask, Scored, score_all
from realrl.rewards.gym_child import Gym
from realrl.rewards.pool import ChildPool, JudgePool
from realrl.rewards.verdict import Verdict

ITEM = GymItem(GymTask("chain_sum", 0, 1, None, "{}"), 0)
HONEST = Scored(0.5, Verdict.WRONG)
ERROR = Scored(0.0, Verdict.ERROR)
CHANGES_ITS_PROCESS = ("own_class", "own_wrapper")
NO_REPLY = (
    *("every_file", "too_much", "not_a_number", "a_boolean", "a_text", "no_score", "no_reply", "no_json"),
    *("no_object", "deep", "nested", "endless", "recursion", "wrong_type", "end", "memory", "crash"),
    *("evaluated", "a_file", "a_program"),
)


@pytest.fixture(scope="module")
def pool():
    with ChildPool(
        "tests.rewards.hostile_judge", num_children=1, deadline_s=20.0, memory_bytes=1 << 30
    ) as pool:
        yield pool


@pytest.fixture
def scored(pool, monkeypatch):
    monkeypatch.setattr(gym, "_pool_of", lambda _: pool)
    return lambda *answers: score_all([ITEM] * len(answers), answers, num_threads=1)


@pytest.mark.parametrize("attack", [*CHANGES_ITS_PROCESS, *NO_REPLY])
def test_the_next_answer_is_judged_as_if_there_had_been_none_before(attack, scored, pool):
    """By the same child, whose forks are all alike."""
    assert scored("honest") == [HONEST]
    child = pool._children[0]._process.pid
    assert scored(attack, "honest", "honest")[1:] == [HONEST] * 2
    assert pool._children[0]._process.pid == child


@pytest.mark.parametrize("attack", NO_REPLY)
def test_what_is_no_score_or_breaks_the_judge_is_an_error_and_no_end(attack, scored):
    assert scored(attack) == [ERROR]


@pytest.mark.parametrize(
    ("attack", "error"),
    [
        ("recursion", "RecursionError: maximum recursion depth"),
        ("wrong_type", "TypeError: object of type 'int'"),
        ("evaluated", "judging asked for a text to be evaluated as Python"),
        ("a_file", "judging asked for open of '/etc/passwd'"),
        ("a_program", "judging asked for os.system"),
        ("crash", "it was ended by SIG"),
        ("no_object", "expected a reply, got"),
        ("no_reply", "its process left no reply"),
    ],
)
def test_an_error_says_what_it_was(attack, error, pool):
    assert pool.ask({"answer": attack})["error"].startswith(error)


@pytest.mark.parametrize("attack", ["too_much", "no_score", "no_json", "every_file", "recursion", "crash"])
def test_what_is_no_verdict_is_an_error(attack, pool, monkeypatch):
    """Also where a verdict is asked for, not a score."""
    with JudgePool(num_children=1) as judges:
        monkeypatch.setattr(judges, "ask", pool.ask)
        assert judges.judge(attack, "") is Verdict.ERROR


def test_a_fork_judges_some_answers_of_one_batch():
    """Then another one of the same parent does; also after an answer that took too long."""
    asked = [*["one"] * 4, *["two"] * 2, "one", *["sleep"] * 2, *["one"] * 2]
    limits = {"num_children": 1, "deadline_s": 1.0, "memory_bytes": 1 << 30}
    with ChildPool("tests.rewards.counting_judge", **limits) as pool:
        replies = [pool.ask({"answer": text, "prompt": text}) for text in asked]
    assert [reply.get("score") for reply in replies] == [0.1, 0.2, 0.3, 0.1, 0.1, 0.2, 0.1] + [None] * 2 + [
        0.1,
        0.2,
    ]
    assert replies[7]["verdict"] == Verdict.TIMEOUT


def test_answers_that_the_library_would_evaluate_are_judged_alone():
    """Others share a process with answers to the same row, or with the same solution, alone."""
    gym_judge = Gym()
    rows = [
        GymItem(GymTask(name, 0, 2, None, "{}"), index).request
        for name in ("sudoku", "n_queens")
        for index in (0, 1)
    ]
    batches = [gym_judge.batch(row) for row in rows]
    assert len({batch.name for batch in batches}) == 4
    assert [batch.size > 1 for batch in batches] == [True, True, False, False]
    pairs = [{"answer": answer, "solution": solution} for answer in "ab" for solution in "xy"]
    assert [MathJudge().batch(pair).name for pair in pairs] == ["x", "y"] * 2

"""What answers may take together: a step ends in time, whatever they are."""

from __future__ import annotations

import logging
import time

import pytest

from realrl.rewards import budget, gym
from realrl.rewards.budget import Budget, seconds_for
from realrl.rewards.gym import GymItem, GymTask, Scored, score_all
from realrl.rewards.math import check_all
from realrl.rewards.verdict import Verdict

SLOW_S = 0.05


def slow(answer: str, solution: str) -> Verdict:
    time.sleep(SLOW_S)
    return Verdict.TIMEOUT if answer == "x" else Verdict.CORRECT


def test_what_comes_after_the_budget_is_a_timeout_at_once_and_said(caplog):
    """But for what needs no judging; each answer is progress."""
    texts = [r"\boxed{x}"] * 600 + [r"\boxed{7}", "nothing"]
    solutions, heard = [["y"]] * 600 + [["7"], ["7"]], []
    began_s = time.monotonic()
    with caplog.at_level(logging.WARNING):
        found = check_all(
            texts, solutions, slow, budget_s=1.0, progress=lambda done, total: heard.append((done, total))
        )
    # All of them would take 7.5 s. Those under way when it is spent are finished.
    assert 0.2 < time.monotonic() - began_s < 4
    verdicts = [checked.verdict for checked in found]
    assert verdicts == [Verdict.TIMEOUT] * 600 + [Verdict.CORRECT, Verdict.NO_ANSWER]
    assert heard == [(number, 602) for number in range(1, 603)]
    (record,) = caplog.records
    number = int(record.getMessage().split()[0])
    assert 600 - 1.0 / SLOW_S - 4 <= number < 600


def test_within_the_budget_every_answer_is_judged(caplog):
    found = check_all([r"\boxed{z}"] * 8, [["y"]] * 8, slow, budget_s=1.0)
    assert {checked.verdict for checked in found} == {Verdict.CORRECT} and not caplog.records


def test_scores_have_a_budget_too(monkeypatch, caplog):
    """An answer that a task would have scored is ungraded then, not wrong."""
    right = Scored(1.0, Verdict.CORRECT)

    def judged(item: GymItem, answer: str) -> Scored:
        time.sleep(SLOW_S)
        return right

    monkeypatch.setattr(gym, "_judged", judged)
    items = [GymItem(GymTask("chain_sum", 0, 1, None, "{}"), 0)] * 40
    found = score_all(items, ["1"] * 40, num_threads=1, budget_s=5 * SLOW_S)
    num_right = found.count(right)
    assert 1 <= num_right <= 6
    assert found == [right] * num_right + [Scored(0.0, Verdict.TIMEOUT)] * (40 - num_right)
    assert caplog.records[0].getMessage().startswith(f"{40 - num_right} comparisons, of 40 answers")


def test_the_time_in_which_the_process_was_stopped_is_not_spent(monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: now_s[0])

    def stopped() -> str:
        now_s[0] += 3600.0
        return "done"

    one = Budget(25.0)
    assert [one.spend(stopped, "late") for _ in range(4)] == ["done"] * 3 + ["late"]
    assert one.num_refused == 1


def test_work_that_fails_is_spent_all_the_same():
    one = Budget(SLOW_S / 2)

    def fails() -> str:
        time.sleep(SLOW_S)
        raise RuntimeError("no child")

    with pytest.raises(RuntimeError, match="no child"):
        one.spend(fails, "late")
    assert one.spend(fails, "late") == "late"


def test_the_budget_of_a_call_grows_with_its_answers_within_its_deadline():
    assert seconds_for(0) < seconds_for(650) < seconds_for(10_000)
    # 650 answers of 5 s each, by two children, were 1,625 s; now they are four threads' seconds.
    assert seconds_for(650) / 4 < 200
    assert seconds_for(10_000, call_timeout_s=30.0) == 15.0

"""Verdicts with reasons: the verdict is the one without them, whatever befalls the reasons."""

from __future__ import annotations

import pytest

from realrl.rewards import explaining
from realrl.rewards.budget import Budget
from realrl.rewards.explaining import Comparison, explain, explain_all
from realrl.rewards.math import check
from realrl.rewards.pool import JudgePool, Reasons
from realrl.rewards.verdict import Verdict

TEXTS = {
    r"\boxed{7": "the last box is empty, or never closed",
    "<think>It is 7.": "the text is cut off: its thoughts, or an answer tag, never end",
    "The answer is": "nothing follows the last phrase that announces an answer",
    "<answer> </answer>": "there is no answer in the answer tag",
    "I do not know.": "there is no box, no phrase that announces an answer, no number and no formula",
    r"\boxed{7} or 8": "the last box",
    "The answer is 7.": "the last phrase that announces an answer",
    "<answer>7</answer>": "the answer tag",
    "So 7": "the last value",
}


@pytest.mark.parametrize("text", TEXTS)
def test_it_says_where_the_answer_is_or_why_there_is_none(text):
    found = explain(text, ["7"])
    assert found.explanation.place == TEXTS[text]
    assert (found.verdict, found.answer) == (check(text, ["7"]).verdict, check(text, ["7"]).answer)


def test_each_solution_up_to_the_first_that_matches_is_explained():
    found = explain_all(
        [r"\boxed{x + x}", r"\boxed{3x}", "?"], [["3x", "So 2x = 2x.\n#### 2x", "x"], ["2x"], ["1"]]
    )
    assert [each.verdict for each in found] == [Verdict.CORRECT, Verdict.WRONG, Verdict.NO_ANSWER]
    first, second = found[0].explanation.comparisons
    assert (first.solution, second.solution) == ("3x", "2x") and second.verdict is Verdict.CORRECT
    assert "values differ at x = " in first.why and second.answer_read == "formula in x: x + x"


def test_a_verdict_does_not_wait_for_its_reasons():
    """They may not come, as a comparison may not; then that is what is said."""
    with JudgePool(num_children=1, deadline_s=1e-6) as pool:
        (late,) = explain(
            r"\boxed{x+x}", ["2x"], lambda *_: Verdict.CORRECT, pool.explain
        ).explanation.comparisons
        assert late.verdict is Verdict.CORRECT and late.why.startswith(
            "no reasons were found: no reply within"
        )
        (undecided,) = explain(r"\boxed{x+x}", ["2x"], pool.judge, pool.explain).explanation.comparisons
    assert undecided == Comparison("2x", Verdict.TIMEOUT, "", "", "the comparison had no result in its time")


def test_reasons_have_a_budget_of_their_own(monkeypatch):
    monkeypatch.setattr(explaining, "seconds_for", lambda number: 1e-9)
    monkeypatch.setattr(explaining, "judge_in_pool", lambda *_, **__: Verdict.WRONG)
    monkeypatch.setattr(Budget, "bounded", lambda self, judge: judge)
    found = explain_all([r"\boxed{x+x}"] * 3, [["3x"]] * 3, num_threads=1)
    whys = [each.explanation.comparisons[0].why for each in found]
    assert "values differ" in whys[0] and all(
        why.startswith("no reasons were looked for") for why in whys[1:]
    )


@pytest.mark.parametrize(
    "reply",
    [{}, {"answer": "1", "solution": "2"}, {"answer": 1, "solution": 2, "why": 3}, {"why": "x" * 3000}],
)
def test_what_is_no_reason_is_none(reply, monkeypatch):
    """A reply was written where an answer was at work: anything may be in it."""
    with JudgePool(num_children=1) as pool:
        monkeypatch.setattr(pool, "ask", lambda request: {"answer": "", "solution": ""} | reply)
        expected = Reasons("", "", pool.explain("1", "2").why)
        assert pool.explain("1", "2") == expected and expected.why.startswith(
            "no reasons were found: a reply"
        )

"""Settings of what counts as equal: each accepts or refuses what it says, and nothing next to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.adversary import drawn_pairs
from benchmarks.verifier_cases import leniency_of
from realrl.rewards.math import check_all
from realrl.rewards.pool import JudgePool
from realrl.rewards.verdict import Verdict
from realrl.verifier.explaining import explained
from realrl.verifier.leniency import USUAL, Leniency
from realrl.verifier.same import Rule, rule_of, same_answer

TWO_DIGITS = Leniency(answer_digits=2)
ROUNDED_SOLUTIONS = Leniency(solution_digits=3)
NO_ORDERS = Leniency(orders_as_sets=False)
RENAMED = Leniency(rename=True)

CHANGED = [
    ("0.67", r"\frac{2}{3}", TWO_DIGITS),
    ("0.66", r"\frac{2}{3}", TWO_DIGITS),
    ("2.2361", r"\sqrt{5}", TWO_DIGITS),
    ("x = 0.67", r"\frac{2}{3}", TWO_DIGITS),
    ("0.67, 1.4", r"\sqrt2, \frac23", TWO_DIGITS),
    ("(0.67, 1.5)", r"\left(\frac23, \frac32\right)", TWO_DIGITS),
    ("[0.67, 1.5)", r"\left[\frac23, \frac32\right)", TWO_DIGITS),
    ("y < 0.67", r"\left(-\infty, \frac23\right)", TWO_DIGITS),
    (r"\begin{pmatrix} 0.67 \\ 4 \end{pmatrix}", r"\begin{pmatrix} \frac23 \\ 4 \end{pmatrix}", TWO_DIGITS),
    (r"0.67\text{ cm}", r"\frac23\text{ cm}", TWO_DIGITS),
    ("4.18", "4.1777", TWO_DIGITS),
    (r"\frac{25}{6}", "4.17", ROUNDED_SOLUTIONS),
    ("4.1667", "4.17", ROUNDED_SOLUTIONS),
    ("y > 4", r"(4, \infty)", NO_ORDERS),
    ("3n^2 + n", "3k^2 + k", RENAMED),
    ("g(y)", "g(x)", RENAMED),
    (r"\frac{\sin t}{t}", r"\frac{\sin u}{u}", RENAMED),
]
"""Pairs with a verdict that the setting changes."""
UNCHANGED = [
    ("0.68", r"\frac{2}{3}", TWO_DIGITS),
    ("0.7", r"\frac{2}{3}", TWO_DIGITS),
    ("0.67, 0.67", r"\frac13, \frac23", TWO_DIGITS),
    ("(1.5, 0.67)", r"\left(\frac23, \frac32\right)", TWO_DIGITS),
    ("67", "66.667", TWO_DIGITS),
    ("0.67", "0.68", TWO_DIGITS),
    ("-0.67", r"\frac{2}{3}", TWO_DIGITS),
    ("0.67x", r"\frac{2}{3}x", TWO_DIGITS),
    ("4.16", "4.17", ROUNDED_SOLUTIONS),
    (r"\frac{25}{7}", "4.17", ROUNDED_SOLUTIONS),
    ("4.17", r"\frac{25}{6}", ROUNDED_SOLUTIONS),
    ("y > 4", "y > 5", NO_ORDERS),
    ("n", "k", RENAMED),
    ("6 m", "6 s", RENAMED),
    ("3n^2 + k", "3k^2 + n", RENAMED),
    ("3n^2 + n", "3k^2 + 2k", RENAMED),
    ("A", "B", RENAMED),
    ("3e", "3x", RENAMED),
]
"""Pairs that are different with and without the setting."""


@pytest.mark.parametrize(("answer", "solution", "leniency"), CHANGED)
def test_a_setting_changes_the_verdict(answer, solution, leniency):
    assert same_answer(answer, solution, leniency) is not same_answer(answer, solution)


@pytest.mark.parametrize(("answer", "solution", "leniency"), UNCHANGED)
def test_what_is_wrong_by_a_setting_and_without(answer, solution, leniency):
    assert not same_answer(answer, solution)
    assert not same_answer(answer, solution, leniency)


def test_an_order_is_still_right_for_an_order():
    """Only a solution that is written as a set wants one."""
    assert same_answer("4 < y", "y > 4", NO_ORDERS)
    assert same_answer(r"(4, \infty)", "y > 4", NO_ORDERS)


def test_the_settings_accept_what_is_accepted_without_them():
    """Except for orders: more leniency never makes an answer wrong."""
    lenient = Leniency(answer_digits=1, solution_digits=1, rename=True)
    accepted = [pair for pair in drawn_pairs(1500, 5) if same_answer(*pair)]
    assert len(accepted) > 40
    assert [pair for pair in accepted if not same_answer(*pair, lenient)] == []


@pytest.mark.parametrize(("answer", "solution", "leniency"), CHANGED)
def test_a_reason_names_the_setting(answer, solution, leniency):
    rule = rule_of(answer, solution, leniency)
    assert rule in (Rule.ROUNDED, Rule.ORDER, Rule.RENAMED)
    assert explained(answer, solution, leniency).why == rule.value


def test_a_pool_compares_by_the_settings():
    """They travel to the child with each request, and hold for that request alone."""
    with JudgePool(num_children=1) as pool:
        assert pool.judge("0.67", r"\frac23", TWO_DIGITS) is Verdict.CORRECT
        assert pool.judge("0.67", r"\frac23") is Verdict.WRONG
        assert "settings" in pool.explain("0.67", r"\frac23", TWO_DIGITS).why
    checked = check_all([r"\boxed{0.67}", r"\boxed{200\text{ cm}}"], [[r"\frac23"], [r"2\text{ m}"]])
    assert [each.verdict for each in checked] == [Verdict.WRONG, Verdict.CORRECT]
    checked = check_all(
        [r"\boxed{0.67}", r"\boxed{200\text{ cm}}"],
        [[r"\frac23"], [r"2\text{ m}"]],
        leniency=replace(TWO_DIGITS, convert_units=False),
    )
    assert [each.verdict for each in checked] == [Verdict.CORRECT, Verdict.WRONG]


@pytest.mark.parametrize("settings", [{"answer_digits": 0}, {"answer_digits": 7}, {"solution_digits": 11}])
def test_digits_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="must be from 1 to"):
        Leniency(**settings)


def test_only_what_is_unusual_is_sent():
    assert USUAL.changes() == {}
    changed = Leniency(answer_digits=3, rename=True)
    assert changed.changes() == {"answer_digits": 3, "rename": True}
    assert Leniency(**changed.changes()) == changed


def test_settings_of_cases():
    """As math-verify's tests call it."""
    assert leniency_of({}) == leniency_of({"precision": 6}) == leniency_of({"strict": True}) == USUAL
    assert leniency_of({"precision": 2}) == Leniency(answer_digits=2, solution_digits=6)
    assert leniency_of({"strict": False}) == RENAMED
    assert leniency_of({"allow_set_relation_comp": False}) == NO_ORDERS

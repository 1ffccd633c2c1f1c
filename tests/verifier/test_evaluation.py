"""Mistakes are told apart from formulas that have no value."""

from __future__ import annotations

import inspect

import pytest

from realrl.verifier.arithmetic import NoValue
from realrl.verifier.evaluation import evaluated
from realrl.verifier.grammar import formula
from realrl.verifier.nodes import operation, whole
from realrl.verifier.operations import RULES
from realrl.verifier.tokens import tokenized


def node(text: str):
    return formula(tokenized(text))


def accepted_numbers(name: str) -> list[int]:
    """The numbers of operands, up to three, with which an operation can be made."""
    found = []
    for count in range(4):
        try:
            operation(name, *(whole(2) for _ in range(count)))
        except AssertionError:
            continue
        found.append(count)
    return found


@pytest.mark.parametrize("name", RULES)
def test_an_operation_has_only_as_many_operands_as_its_rule_takes(name):
    """No operation can be made that its rule could not be called with."""
    numbers = accepted_numbers(name)
    assert 0 not in numbers and numbers
    for count in numbers:
        inspect.signature(RULES[name]).bind(*range(count))


@pytest.mark.parametrize("name, count", [("sin", 2), ("power", 1), ("binomial", 3), ("log", 3), ("gcd", 0)])
def test_an_operation_with_other_operands_cannot_be_made(name, count):
    """A wrong number of operands is a mistake of the caller, found where it is made."""
    with pytest.raises(AssertionError, match=name):
        operation(name, *(whole(1) for _ in range(count)))


@pytest.mark.parametrize("error", [TypeError, ValueError, OverflowError, ZeroDivisionError])
def test_a_mistake_in_a_rule_is_no_missing_value(monkeypatch, error):
    """An error of our own is raised, and not taken for a formula without a value."""

    def broken(value):
        raise error("a mistake")

    monkeypatch.setitem(RULES, "floor", broken)
    with pytest.raises(error):
        evaluated(node(r"\lfloor 2 \rfloor"), {}, 128)


@pytest.mark.parametrize(
    "text",
    [
        r"\binom{5}{10^{30}}",
        r"\log_{1+10^{-100}}(2)",
        r"\frac{1}{2 - 2}",
        r"\log(0)",
        r"0^{-1}",
        r"(-3)!",
        r"\det(2)",
        r"\gcd(1/2, 3)",
    ],
)
def test_what_flint_cannot_compute_has_no_value(text):
    """The numbers that FLINT refuses are told before it is asked."""
    with pytest.raises(NoValue):
        evaluated(node(text), {}, 128)

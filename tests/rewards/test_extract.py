r"""Where the answer is found in a text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.rewards.extract import extract_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1}, no, \boxed{\frac{1}{2}} is it", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{x \in \left\{ 1 \right.} done", r"x \in \left\{ 1 \right."),
        (r"\boxed{7} and then \boxed{8", "7"),
        (r"\boxed{ }", None),
        (r"} \boxed{3} }", "3"),
        (r"\fbox{3}", "3"),
        (r"written with escapes: \\boxed{3}", "3"),
        (r"the answer is 4, so \boxed{3} it is", "3"),
    ],
)
def test_the_last_closed_box_comes_first(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{3} or \boxed{4}", "3; 4"),
        (r"$\boxed{3}$, $\boxed{4}$ and $\boxed{5}$.", "3; 4; 5"),
        (r"$x = \boxed{3}$ and $y = \boxed{4}$", "3; 4"),
        (r"\boxed{3}\boxed{3}", "3"),
        (r"\boxed{3}. Wait, it is \boxed{4}", "4"),
        (r"\boxed{3} apples of \boxed{4} kinds", "4"),
    ],
)
def test_boxes_joined_by_a_connector_are_one_list(text, answer):
    """So that nobody is right by naming two; a later box after any other words is a correction."""
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 42.", "42"),
        ("The answer is 5, no: the final answer is 6. I hope it is correct.", "6"),
        ("**Answer:** 3 or 4", "3 or 4"),
        ("The answer to 2 + 3 is $5$.", "5"),
        ("the answer is:\n\\[ x = 5 \\]\nas 3 shows", "x = 5"),
        ("The answers are $x=3$ and $x=4$.", "x=3 and x=4"),
        ("The final answer is: no solution", "no solution"),
        ("The answer is 3.50 dollars", "3.50 dollars"),
        ("The answer is the number of all apples, which come to 12 in one day.", "12"),
        ("The answer depends on how many of the apples we count as ripe: 12 of them. So 13", "13"),
        ("2 + 3 = 5\n#### 5", "5"),
        ("2 + 3 is 5. The answer is thus 5.", "5"),
        ("答案是 7", "7"),
    ],
)
def test_without_a_box_what_is_said_after_answer_is(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("8 + 5 = 13.", "13"),
        ("10-4", "4"),
        ("10 - 4 = -6", "-6"),
        ("It costs $1,234.50 today", "1,234.50"),
        ("1,2345", "2345"),
        ("the set 3, 5, 7", "7"),
        ("a half: 1/2", "1/2"),
        (r"a half is $\frac{1}{2}$", r"\frac{1}{2}"),
        (r"Therefore $x \geq 5$ solves it", r"x \geq 5"),
        ("They pay $3 for 2 apples and $4 for the rest", "4"),
        ("p = .25", ".25"),
        (r"so p = 2\frac{1}{2}", r"2\frac{1}{2}"),
        ("a share of 25%", "25%"),
        ("x = −3", "-3"),
        ("room B2C, no other", None),
        ("we get $x$, so $y$", "y"),
        ("none at all", None),
        ("", None),
    ],
)
def test_at_last_the_last_number_with_its_formula(text, answer):
    assert extract_answer(text) == answer


@settings(deadline=None)
@given(st.text(alphabet=r"\boxed{}1", max_size=60))
def test_boxes_agree_with_trying_every_one(text):
    """Brute force: of all boxes the last whose brace closes, found by counting."""
    expected = slow_boxes(text)
    if expected is not None and "; " not in (extract_answer(text) or ""):
        assert extract_answer(text) == (expected or None)


def slow_boxes(text: str) -> str | None:
    """The content of the last closed box; None if there is none."""
    escaped, starts, i = set(), [], 0
    while i < len(text):
        opens = next((o for o in ("\\\\boxed{", "\\boxed{") if text.startswith(o, i)), None)
        if opens:
            starts.append(i + len(opens))
            i += len(opens)
        elif text[i] == "\\":
            escaped.add(i + 1)
            i += 2
        else:
            i += 1
    for start in reversed(starts):
        depth = 1
        for i in range(start, len(text)):
            if i not in escaped:
                depth += {"{": 1, "}": -1}.get(text[i], 0)
            if depth == 0:
                return text[start:i].strip()
    return None

r"""The search for the answer in a text: forms that must be found, and others that look like them."""

from __future__ import annotations

import math
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.rewards.gym import answer_of
from realrl.verifier.extract import extract_answer
from realrl.verifier.formula_spans import formulas
from realrl.verifier.same import same_answer
from realrl.verifier.solution import solution_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1}, no, \boxed{\frac{1}{2}} is it", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{x \in \left\{ 1 \right.} done", r"x \in \left\{ 1 \right."),
        (r"\boxed{ }", None),
        (r"} \boxed{3} }", "3"),
        (r"\fbox{3}", "3"),
        (r"\boxed 31$ it is", "31"),
        (r"written with escapes: \\boxed{3}", "3"),
        (r"the answer is 4, so \boxed{3} it is", "3"),
        (r"\boxed{3} is the answer: 4", "3"),
    ],
)
def test_the_last_box_comes_first(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"One step gives $\boxed{40}$. Final Answer: the final answer is $1,540$. I hope so.", "1,540"),
        (r"\boxed{40}, then twice as much.\n\n**Final answer:** 80", "80"),
        (r"\boxed{40} twice. The final answer is not 40, the final answer is $80.", "$80"),
        (r"\boxed{1,540} is it. The final answer is $1540.", "1,540"),
        (r"\boxed{40} it is. The answer is 80.", "40"),
        (r"The final answer is 80, that is \boxed{40}", "40"),
        (r"\boxed{40}. If the final answer is 80, I am wrong.", "40"),
        (r"\boxed{40}. The final answer is not 80.", "40"),
        (r"\boxed{40}. The final answer is 80 cm.", "40"),
        (r"\boxed{40}. The final answer is correct, for 80 reasons.", "40"),
        (r"\boxed{B}. The final answer is 80.", "B"),
        (r"\boxed{x+1}. The final answer is 80.", "x+1"),
        (r"\boxed{40. The final answer is 80.", None),
        (r"<answer>\boxed{40}</answer> The final answer is 80.", "40"),
    ],
)
def test_another_number_as_the_final_answer_after_the_box_corrects_it(text, answer):
    """A step may be boxed; whatever else follows a box is a remark on it."""
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{7} and then \boxed{8",
        r"The answer is 7. \boxed{7",
        r"\boxed{7" + " " * 20_000 + "}",
        "<think>The answer is 7.",
        "<think>a</think> The answer is 7. <think>no",
        r"<think>The answer is \boxed{7}.</think>",
        "<answer>7</answer> or rather <answer>8",
        "7 it is. The answer is",
        "The answer is 7." + " " * 20_000,
    ],
)
def test_what_is_cut_off_or_too_far_from_the_end_is_no_answer(text):
    """An earlier answer was withdrawn by what was cut off, and half of an answer may be right by accident."""
    assert extract_answer(text) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"<think>It is \boxed{3}.</think> It is 4.", "4"),
        ("<think>a</think>3<think>b</think>The answer is 5.", "5"),
        ("<reasoning>The answer is 3.</reasoning><answer>\n4\n</answer> not 5", "4"),
        ("<answer>3</answer> no: <answer>The answer is $4$.</answer>", "4"),
        (r"<answer>so \boxed{4}</answer> \boxed{3}", "4"),
        ("<answer>4 km</answer>", "4 km"),
        ("<answer>4 km. We add.</answer>", "4 km"),
        ("<answer>1 2\n3 4</answer>", "1 2\n3 4"),
        ("<answer>We add up.\n" + "So 1 more. " * 200 + "So 7</answer>", "7"),
        ("<answer> </answer>", None),
    ],
)
def test_after_thoughts_and_inside_of_tags(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{3} or \boxed{4}", "3; 4"),
        (r"$\boxed{3}$, $\boxed{4}$ and $\boxed{5}$.", "3; 4; 5"),
        (r"$x = \boxed{3}$ and $y = \boxed{4}$", "3; 4"),
        (r"\boxed{3} \text{ pens and } \boxed{4}", "3; 4"),
        (r"\boxed{3}\boxed{3}", "3"),
        (r"\boxed{3}. Wait, it is \boxed{4}", "4"),
        (r"\boxed{3} \text{ is wrong, } \boxed{4}", "4"),
        (r"\boxed{3} apples of \boxed{4} kinds", "4"),
        (r"\boxed{3} papers and \boxed{4} bins", "3; 4"),
        (r"\boxed{3} is wrong and \boxed{4} is it", "4"),
    ],
)
def test_boxes_joined_by_a_connector_are_one_list(text, answer):
    """So that nobody is right by naming two; a later box after any other words is a correction."""
    assert extract_answer(text) == answer


PHRASES = {
    "plain": [
        ("The answer is 42.", "42"),
        ("answer=42", "42"),
        ("The answer to 2 + 3 is $5$.", "5"),
        ("The answer to question 1.5 is 42.", "42"),
        ("The answer (in cm) is 42", "42"),
        ("The answer, then, must be 42.", "42"),
        ("2 + 3 is 5. The answer is thus 5.", "5"),
        ("The final answer is: no solution", "no solution"),
        ("The answer depends on how many of the apples we count as ripe: 12 of them. So 13", "13"),
        ("To answer this, we see that 3 is odd. So 13", "13"),
    ],
    "the last one": [
        ("The answer is 5, no: the final answer is 6. I hope it is correct.", "6"),
        ("The answer is 5. The other answer is 6.", "5"),
        ("The answer is 5. So our answer is correct.", "5"),
        ("The answer is 5. If the answer is 6, I am wrong.", "5"),
        ("The answer is 5. Is the answer 6?", "5"),
    ],
    "several": [
        ("**Answer:** 3 or 4", "3 or 4"),
        ("The answer is 3, or maybe 4, since both fit.", "3, or maybe 4"),
        ("The answers are $x=3$ and $x=4$.", "x=3 and x=4"),
        ("The answer is 3 pens and 4 cups.", "3 pens and 4 cups"),
        ("Answer:\n- 3\n- 4\n", "3; 4"),
        ("Answer:\n1. We add 3 and 4 to get 7.\n2. So it is 7.", "7"),
        ("Answer: between 5 and 8", "between 5 and 8"),
    ],
    "a clause behind": [
        ("The answer is 14, but that is a guess with 3 errors", "14"),
        ("The answer is 14 because 7 + 7 = 14.", "14"),
        ("The answer is 14 pens and not 15.", "14 pens"),
        ("The answer is not 15.", "not 15"),
        ("The answer is: it is not 15.", "not 15"),
        ("The answer is $n = 14$, where n counts the 2 kinds.", "n = 14"),
        ("The answer is $a$ where$_1$", "a"),
        ("Answer: 14 (see step 3)", "14"),
        (r"So the answer is $14$ ($7 \cdot 2$).", "14"),
        ("The answer is 3 (mod 7).", "3 (mod 7)"),
        ("The answer is $3$ (or 4).", "3 (or 4)"),
        ("The answer is f (x) = 2.", "f (x) = 2"),
        ("The answer is nine (9).", "nine"),
        ("the answer is:\n\\[ x = 5 \\]\nas 3 shows", "x = 5"),
        ("ANSWER: 14\n\nWhy: 2*7 = 14, 3+4=7", "14"),
        ("Answer: C\n\nExplanation: A is 5 and B is 6.", "C"),
        ("A butter answer: 14 buttons", "14 buttons"),
        ("The answer is 14 — because 2 * 7 = 14.", "14"),
        ("The answer is 14; this follows from 2 * 7.", "14"),
        ("The answer is 14, the second 15.", "14, the second 15"),
        ("The answer is 14 for one and $15$ for the other.", "14 for one and 15"),
        ("The answer is 14 (fourteen).", "14"),
        ("The answer is no. That is because 3 is odd.", "no"),
    ],
    "words that belong to it": [
        ("The answer is 3.50 dollars", "3.50 dollars"),
        ("The answer is 15,000 miles.", "15,000 miles"),
        ("Answer: $2,500 per month", "$2,500 per month"),
        ("The answer is 4 hours and 10 minutes.", "4 hours and 10 minutes"),
        ("The answer is 18 dollars every day at the farmers' market.", "18 dollars"),
        ("The answer is 18 dollars or some more coins each day.", "18 dollars or some more coins each day"),
        ("The answer is the number of all apples, which come to 12 in one day.", "12"),
        ("The answer is the number that we found, 12.", "12"),
        ("The answer is x, if x is 3.", "x, if x is 3"),
        ("The answer is 3 for the first and 4 for the second.", "3 for the first and 4"),
        ("The answer is at least 12.", "at least 12"),
        ("Answer: She earns $12.", "12"),
        ("Answer: She earns at least $12.", "She earns at least $12"),
        ("The answer is that none of the 3 apples is left.", "that none of the 3 apples is left"),
        ("The answer is approx. 12 cm.", "12 cm"),
        ("The answer is 6:45 p.m.", "6:45 p.m."),
        ("The answer is a+b=15.", "a+b=15"),
    ],
    "choices": [
        ("The answer is (D).", "(D)"),
        ("The correct answer is (D) 14.", "(D) 14"),
        ("The answer is option D, as 3 < 4.", "D"),
        ("The answer is D. 14", "D. 14"),
        ("The answer is D. That is 14", "D"),
        ("I pick option D.", "D"),
        ("I pick option D of 3.", "3"),
        ("We choose a = 3 to get 14", "14"),
    ],
    "marks": [
        ("**Answer**: **14**", "14"),
        ("*Answer:* *14*", "14"),
        (r"\textbf{Answer:} 14", "14"),
        ("The answer is 2**3.", "2**3"),
        ("The answer is 2**-3.", "2**-3"),
        ("✅ Final Answer: **14** 🎉", "14"),
        ("The answer is “yes”.", "yes"),
        ("The answer is 14!", "14"),
        ("The answer is $4!$.", "4!"),
        ("The answer is $3 for tea and $4 for milk.", "$3 for tea and $4 for milk"),
        ("The answer is -$5.", "-$5"),
        ("The answer is $ 14$.", "14"),
        ("The answer is $\n14\n$.", "14"),
        ("The answer is $$.", None),
    ],
    "headings": [
        ("3 + 11\n\n**Final Answer**\n\n14 pens", "14 pens"),
        ("### Answer\n\n$$\n14\n$$\n\nSo 3", "14"),
        ("We look for the final answer\n14 and then 15", "15"),
    ],
    "hashes": [
        ("2 + 3 = 5\n#### 5", "5"),
        ("2 + 3 = 5 #### -1,234.5", "-1,234.5"),
        ("#### $29.50\nand 3 more words", "$29.50"),
        ("The answer is 5.\n\n#### 2. Check\n\nWe add 2 and 3", "5"),
        ("The answer is 5.\n\n#### Check\n\nWe add 2 and 3", "5"),
        ("### 6\nIt is 5", "5"),
    ],
}
LANGUAGES = [
    ("答案是14。", "14"),
    ("所以最终答案为：14，因为 3 + 11 = 14。", "14"),
    ("答案：14个苹果", "14"),
    ("答案是14万。", "14万"),
    ("答案是14 or 15", "14 or 15"),
    ("答案是14因为3+11是14", "14"),
    ("故选C。", "C"),
    ("答えは14です。", "14"),
    ("정답은 14입니다.", "14"),
    ("La respuesta correcta es 14, ya que 3 + 11 = 14.", "14"),
    ("La réponse est 14, car 3 + 11 = 14.", "14"),
    ("La re\u0301ponse est 14.", "14"),
    ("Die Antwort lautet 14, weil 3 + 11 = 14.", "14"),
    ("A resposta é 14.", "14"),
    ("La risposta è 14.", "14"),
    ("Ответ: 14.", "14"),
    ("Ответ — 14, так как 3 + 11 = 14", "14"),
    ("الجواب هو 14؟", "14"),
    ("उत्तर 14 है।", "14"),
    ("Đáp án là 14.", "14"),
    ("答案是14，祝你好运。", "14"),
    ("La respuesta es de 14 pesos.", "14 pesos"),
    ("Die Frage 3 ist: 14 oder 15", "20"),
]


@pytest.mark.parametrize("kind", PHRASES)
def test_without_a_box_what_a_phrase_announces(kind):
    found = [(text, extract_answer(text)) for text, _ in PHRASES[kind]]
    assert found == PHRASES[kind]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So we factor. The solutions are x = 4 and x = 9.", "x = 4 and x = 9"),
        ("The roots are 4 and 9.", "4 and 9"),
        ("The values are 4, 9.", "4, 9"),
        (r"The solutions are $x=\frac13$ and $x=3$.", r"x=\frac13 and x=3"),
        ("The roots are 4 and 9. Their sum is 13.", "13"),
        ("The roots are 4 and 9, so the sum is 13.", "13"),
        ("The answer is 13, as the roots are 4 and 9.", "13"),
        ("The correct option is (D).", "(D)"),
        ("**D**", "D"),
        ("I would take D, but not today", None),
    ],
)
def test_without_a_phrase_a_last_sentence_may_state_solutions_or_a_choice(text, answer):
    assert extract_answer(text) == answer


def test_the_table_in_the_docs():
    page = (Path(__file__).resolve().parents[2] / "docs" / "verifier.md").read_text(encoding="utf-8")
    table = page.partition("Of that the answer is:")[2].partition("\n\nThe words")[0]
    rows = re.findall(r"^\| (.+?) \| `(.+?)` \|", table, re.MULTILINE)
    assert len(rows) > 8
    assert [(text, extract_answer(text)) for text, _ in rows] == rows


def test_phrases_of_other_languages():
    """A line that follows has other numbers, so that nothing is found by being the last value."""
    found = [(text, extract_answer(f"{text}\n\n3 + 17 = 20")) for text, _ in LANGUAGES]
    assert found == LANGUAGES


@pytest.mark.parametrize(
    "text",
    [
        "The answer isn't 42.",
        "The answer can't be 42.",
        "The answer cannot be 42.",
        "The answer is the square root of 42.",
        "The answer is the smaller of 43 and 42.",
        "The answer is either 42 or some other number.",
        "La respuesta no es 42.",
        "La réponse n'est pas 42.",
        "Die Antwort ist nicht 42.",
        "A resposta não é 42.",
        "La risposta non è 42.",
        "Ответ: не 42.",
        "答案不是42。",
        "答えは42ではありません。",
        "답은 42가 아닙니다.",
        "Đáp án không phải là 42.",
        "उत्तर 42 नहीं है।",
    ],
)
def test_a_number_that_is_not_the_answer(text):
    """What such a text says is at least not the number in it."""
    answer = extract_answer(text)
    assert answer is None or not same_answer(answer, "42")


@pytest.mark.parametrize(
    ("text", "solution"),
    [
        ("The answer is 42. The answer cannot be negative.", "42"),
        ("Since the answer cannot be negative, x = 42.", "42"),
        ("#### 42\nThe answer can't be smaller.", "42"),
        ("La risposta non dipende da x, quindi 42.", "42"),
        ("答案是42，答案不能为负。", "42"),
        ("So x = 42. The answer cannot be negative.", "42"),
        ("The answer is not negative. x = 42", "42"),
        ("The answer is the sum of 40 and 2 = 42.", "42"),
        ("The answer is the product of 6 and 7, 42.", "42"),
        ("Answer: It takes another 42 minutes.", "42"),
        ("Answer: Tom has half of 84 = 42 apples left.", "42"),
        ("Option B is correct.", "B"),
        ("Solutions are 2 and 7.", "2,7"),
        ("The solutions are x = 2 and x = 7.", "2,7"),
        ("We factor. The roots are 2 and 7.", "2,7"),
        ("So, option D is correct.", "D"),
        ("Therefore, the correct option is (B).", "B"),
        ("The answer is (B).", "B"),
        ("The answer is 42, since 41 is wrong.", "42"),
        ("The answer is 42.", "42"),
        ("答案是42。", "42"),
        ("答えは42個です。", "42"),
        ("The answer is not 41. It is 42.", "42"),
    ],
)
def test_an_answer_beside_what_it_is_not(text, solution):
    answer = extract_answer(text)
    assert answer is not None and same_answer(answer, solution)


@pytest.mark.parametrize(
    ("text", "solution"),
    [
        ("Answer: B is the right choice or maybe (C)", "B"),
        ("Answer: B is correct, or C is correct.", "B"),
        ("Answer: B is right but C is the answer", "B"),
        ("Answer: B is correct if C is wrong, else C", "B"),
        ("Answer: B is right-handed", "B"),
        ("Answer: A is the right matrix, with x = 5", "A"),
        ("Neither option B is correct.", "B"),
        ("I doubt option B is correct.", "B"),
        ("The incorrect option is (B).", "B"),
        ("The worst choice is B.", "B"),
        ("None of the solutions are 2 and 7.", "2,7"),
        ("The extraneous solutions are 2 and 7.", "2,7"),
        ("If the solutions are 2 and 7.", "2,7"),
        ("The answer should not be 42.", "42"),
        ("The answer must not be 42.", "42"),
        ("The answer could not be 42.", "42"),
        ("The answer will not be 42.", "42"),
        ("The answer does not equal 42.", "42"),
        ("The answer isn't 42.", "42"),
        ("The answer cannot be 42.", "42"),
        ("The answer is not 42.", "42"),
        ("The answer is never 42.", "42"),
        ("La respuesta nunca es 42.", "42"),
        ("Ответ не 42.", "42"),
        ("答案并不是42。", "42"),
        ("答案绝不是42。", "42"),
        ("الجواب ليس 42.", "42"),
        ("答案是42的平方根。", "42"),
        ("答えは42の半分です。", "42"),
        ("Die Antwort ist die Wurzel aus 42.", "42"),
        ("The answer is the number of divisors of 42.", "42"),
        ("The answer is two to the power of 42.", "42"),
        ("The answer is 42 is not right.", "42"),
        ("The answer is 42, which is wrong", "42"),
        ("The answer is not 41 but 42.", "42"),
    ],
)
def test_a_value_that_a_text_does_not_give_for_its_answer(text, solution):
    answer = extract_answer(text)
    assert answer is None or not same_answer(answer, solution)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("8 + 5 = 13.", "13"),
        ("10-4", "4"),
        ("10 - 4 = -6", "-6"),
        ("It costs $1,234.50 today", "1,234.50"),
        ("It changed by −$3", "-$3"),
        ("1,2345", "2345"),
        ("In all 7 654 321 people came.", "7 654 321"),
        ("In all 7.654.321 people came.", "7.654.321"),
        ("In all 76,54,321 people came.", "76,54,321"),
        ("In all 7'654 people came.", "7'654"),
        ("In all 7\u00a0654 people came.", "7\u00a0654"),
        (r"In all 7{,}654 and 2\,654", r"2\,654"),
        ("the numbers 5 9 400 700", "700"),
        ("in 1999 400 700", "700"),
        ("room 12 400", "400"),
        ("about 1.234", "1.234"),
        ("so x = 3 or x = -3.", "3 or x = -3"),
        ("so f(x) = 3 or f(x) = 5", "3 or f(x) = 5"),
        ("x=3orx=-3", "3orx=-3"),
        ("x = 3 for y = 5", "5"),
        ("the set 3, 5, 7", "7"),
        ("It is 3 or 4.", "3 or 4"),
        ("It is 3, 4 or 5.", "3, 4 or 5"),
        ("It is (1, 2) or (3, 4).", "(1, 2) or (3, 4)"),
        ("The point is (3, -4).", "(3, -4)"),
        ("we see it (in rows 3, 4)", "4"),
        ("There are 5 million.", "5 million"),
        ("It ends at 6:45 pm.", "6:45 pm"),
        ("It is $3$ or $x$, so 4 or maybe $\\frac{9}{2}$", "4 or maybe \\frac{9}{2}"),
        ("It costs 6 dollars and 40 cents.", "6 dollars and 40 cents"),
        ("They pay 6 dollars and 40 times", "40"),
        ("a half: 1/2", "1/2"),
        ("they need 2 1/2 cups", "2 1/2"),
        (r"a half is $\frac{1}{2}$", r"\frac{1}{2}"),
        (r"Therefore $x \geq 5$ solves it", r"x \geq 5"),
        ("They pay $3 for 2 apples and $4 for the rest", "4"),
        ("p = .25", ".25"),
        (r"so p = 2\frac{1}{2}", r"2\frac{1}{2}"),
        ("a share of 25%", "25%"),
        ("x = −3", "-3"),
        ("about 3 × 10^8 of them", "3 × 10^8"),
        ("2^10 of them", "2^10"),
        ("an area of 12π", "12π"),
        ("the derivative is 2x.", "2x"),
        ("That makes twenty-one!", "twenty-one"),
        ("I do not know which one.", None),
        ("room B2C, no other", None),
        ("we get $x$, so $y$", "y"),
        ("none at all", None),
        ("", None),
    ],
)
def test_at_last_the_last_value_with_its_formula_or_amount(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("$3-$4", []),
        ("$3 for one, and $x$ for the other", ["x"]),
        (r"$x$ costs \$3, and $y$ costs \$4", ["x", "y"]),
        (r"$ x $ and $$\ny\n$$", [" x ", r"\ny\n"]),
        (r"\[ x \) \( y \] \(z\)", ["z"]),
        ("$x\n\ny$", []),
    ],
)
def test_formulas_are_told_from_signs_of_dollars(text, inside):
    assert [formula.inside for formula in formulas(text)] == inside


FRAGMENTS = (
    *(
        r"\boxed{",
        r"\boxed",
        r"\boxed{1} or ",
        r"\\boxed{",
        r"\fbox{",
        r"\text{",
        r"\frac{1}{",
        "{",
        "}",
        r"\{",
        r"\}",
    ),
    *("$", "$$", r"\[", r"\]", r"\(", r"\)", "\\", "&", "^", "_", "**", "`", '"', "“", "(", "[", "<", "#"),
    *(
        "answer is ",
        "answer ",
        "answers to ",
        "answer:",
        r"\boxed{1} final answer is ",
        "final answer is 1 ",
        "Answer\n",
        "#### ",
        "if the answer is ",
        "choose option A",
    ),
    *(
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "because ",
        ", since",
        " (see ",
        "is ",
        "and ",
        "3 or ",
        "one hundred ",
    ),
    *(
        "1",
        "12,345",
        "1 234 567 ",
        "1.234.567.",
        "12,34,",
        "x=1orx",
        "1,111",
        "1/",
        "1e",
        ".",
        ",",
        "-",
        "!",
        "5 dollars and ",
        "- 1\n",
        "the number ",
        "x=",
        "√",
        "½",
        "a",
    ),
    *(" ", "\n", "\n\n", "\t", "\u00a0", "\0", "\ud800", "😀", "\u0301", "答案是", "उत्तर", "réponse "),
)


def hostile_texts() -> list[tuple[str, str]]:
    """Fragments that some pattern begins with, alone and mixed, and how the text begins."""
    draw = random.Random(7)
    mixed = ["".join(draw.sample(FRAGMENTS, draw.randint(2, 4))) for _ in range(40)]
    return [
        (draw.choice(("", "", r"\boxed{", "The answer is ", "<answer>")), unit)
        for unit in (*FRAGMENTS, *mixed)
    ]


@pytest.mark.parametrize("search", [extract_answer, solution_answer, answer_of])
def test_time_is_proportional_to_the_length_of_the_text(search):
    """At sizes where a quadratic search takes seconds, then minutes."""
    for num_chars, most_s in ((20_000, 0.5), (320_000, 0.5)):
        seconds = {}
        for begin, unit in hostile_texts():
            text = begin + unit * (num_chars // len(unit))
            seconds[begin, unit] = processor_time_s(search, text, most_s)
        slowest = max(seconds, key=seconds.get)
        assert seconds[slowest] < most_s, (num_chars, slowest)


def processor_time_s(search: Callable[[str], object], text: str, most_s: float) -> float:
    """The shortest of three runs, or the first below `most_s`: other threads and the collector count too."""
    shortest_s = math.inf
    for _ in range(3):
        begin_s = time.process_time()
        search(text)
        shortest_s = min(shortest_s, time.process_time() - begin_s)
        if shortest_s < most_s:
            break
    return shortest_s


IMPORTS = """
import sys, time
import realrl.verifier.same, realrl.verifier.extract, realrl.rewards.math
print(time.process_time(), *sorted({"torch", "sympy", "transformers"} & set(sys.modules)))
"""


def test_the_verifier_is_imported_at_once_and_without_heavy_packages():
    """In 0.3 s of processor time, Python's own start included: a library for any program, and a command."""
    found = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=60)
        seconds, *heavy = done.stdout.split()
        assert not heavy, done.stderr
        found.append(float(seconds))
    # Others may slow down a run, and none makes it faster.
    assert min(found) < 0.3, found


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"Start with $2h$. Then $h=\frac{9}{6}=\boxed{1.5} \mathrm{~m}$", "1.5"),
        ("3 + 4 = 7\n#### 7", "7"),
        ("He has 9 and so on. #### -1234.5", "-1234.5"),
        ("It is blue.\n#### dark blue", "dark blue"),
        ("$7$", "7"),
        (r"\[ 7 \]", "7"),
        (r"\(7\) and \(8\)", r"\(7\) and \(8\)"),
        ("$7$ or $8$", "$7$ or $8$"),
        ("The answer to it is 7 apples", "The answer to it is 7 apples"),
        ("12,000 miles", "12,000 miles"),
        ("We count the apples one after another. " * 6 + "The answer is 7, as we saw.", "7"),
        (r"so it is \boxed{7", "7"),
        (r"so it is \boxed{\frac{7}{8}", r"\frac{7}{8}"),
        (r"so it is \boxed{", r"so it is \boxed{"),
        ("", ""),
    ],
)
def test_the_answer_in_a_solution(solution, answer):
    assert solution_answer(solution) == answer


@settings(deadline=None)
@given(st.text(alphabet=r"\boxed{}1", max_size=60))
def test_the_last_box_agrees_with_counting_its_braces(text):
    """Brute force: the brace of the last box is found by counting. A digit after a box may be its content."""
    expected = slow_box(text)
    found = extract_answer(text)
    if r"\boxed1" not in text and expected is not None and "; " not in (found or ""):
        assert found == (expected or None)


def slow_box(text: str) -> str | None:
    """The content of the last box, "" if it does not close; None if there is no box."""
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
    for start in starts[-1:]:
        depth = 1
        for i in range(start, len(text)):
            if i not in escaped:
                depth += {"{": 1, "}": -1}.get(text[i], 0)
            if depth == 0:
                return text[start:i].strip()
    return "" if starts else None

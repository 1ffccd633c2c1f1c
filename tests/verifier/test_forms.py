"""Strict forms of answers: what each rules out, what it finds, and whether a text is in it."""

from __future__ import annotations

import random
import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.rewards.explaining import explain
from realrl.rewards.functions import load_function
from realrl.rewards.math import check, check_all
from realrl.rewards.verdict import Verdict
from realrl.verifier.extract import Place, find_answer
from realrl.verifier.forms import ANYWHERE, FORMS, AnswerForm, form_of
from realrl.verifier.strict import find_in_form, follows
from tests.verifier.test_extract import hostile_texts, processor_time_s

R = "<think>Let me see.</think>"
FOUND = {
    "box": [
        (r"So \boxed{34}.", "34"),
        (r"<answer>so \boxed{34}</answer>", "34"),
        (r"\boxed{33} and then. The final answer is 34.", "33"),
        ("The answer is 34.", None),
        (r"\boxed{34", None),
    ],
    "tags": [
        (R + "<answer>34</answer>", "34"),
        (R + r"<answer>\boxed{34}</answer>", "34"),
        ("<answer>34</answer>", None),
        (R + "34", None),
        (R + "<answer>34", None),
        ("<think><answer>34</answer></think>", None),
    ],
    "deepscaler": [
        (R + r"So \boxed{34}.", "34"),
        (r"The prompt opened it.</think> So \boxed{34}.", "34"),
        (r"So \boxed{34}.", None),
        (r"<think>so maybe \boxed{34}? Let me check", None),
        (r"<think>\boxed{34}</think> It is 34.", None),
        (R + "The answer is 34.", None),
    ],
    "orz": [
        (R + r"<answer>It is \boxed{34}.</answer>", "34"),
        (r"<answer>\boxed{33}</answer> no, <answer>\boxed{34}</answer>", "34"),
        ("<answer>34</answer>", None),
        (r"\boxed{34}", None),
        (r"<answer>\boxed{34}", None),
        (r"<answer>34</answer> \boxed{34}", None),
    ],
    "dapo": [
        ("We add.\nAnswer: 34", "34"),
        ("We add.\nanswer : $34$\n", "34"),
        ("Answer: 33\nWait.\n**Answer:** 34", "34"),
        (r"Answer: \boxed{34}", "34"),
        ("Answer:\n34", "34"),
        ("Answer: 34 apples", "34 apples"),
        ("Answer: 34" + " x" * 130, "34" + " x" * 130),
        ("Answer: 34." + " x" * 160, None),
        ("The answer is 34.", None),
        (r"\boxed{34}", None),
        ("Answer:", None),
    ],
}
"""Texts, and the answer that the form of the name finds."""


@pytest.mark.parametrize("name", FOUND)
def test_what_a_form_finds(name):
    found = [(text, find_in_form(text, FORMS[name]).answer) for text, _ in FOUND[name]]
    assert found == FOUND[name]


RULED_OUT = [
    ("34", AnswerForm(ended=True), False, Place.NOT_ENDED),
    ("34", AnswerForm(after_thought=True), True, Place.NO_THOUGHT),
    ("34", AnswerForm(tagged=True), True, Place.NO_TAG),
    ("34", AnswerForm(place="box"), True, Place.NO_BOX),
    ("34", AnswerForm(place="phrase"), True, Place.NO_PHRASE),
    (r"\boxed{34} " + "x" * 50, AnswerForm(place="box", last_chars=40), True, Place.NO_BOX),
    ("Result is 34", AnswerForm(place="phrase", phrase="Result is not"), True, Place.NO_PHRASE),
]


@pytest.mark.parametrize(("text", "form", "ended", "place"), RULED_OUT)
def test_each_setting_rules_out_what_it_names_and_says_so(text, form, ended, place):
    """The verdict is `no_answer`, whatever the answer would be; the explanation names it."""
    assert find_in_form(text, form, ended=ended) == (None, place)
    assert check(text, ["34"]).verdict is Verdict.CORRECT
    assert check(text, ["34"], form=form, ended=ended).verdict is Verdict.NO_ANSWER
    explained = explain(text, ["34"], form=form, ended=ended)
    assert explained.verdict is Verdict.NO_ANSWER
    assert "without the form, the answer would be 34, from the last" in explained.explanation.place


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (r"\boxed{33} " + "x" * 50 + r"\boxed{34}", AnswerForm(place="box", last_chars=40)),
        ("Result is: 34", AnswerForm(place="phrase", phrase="result is:")),
        ("Result is 34", AnswerForm(place="phrase", phrase="Result is")),
        ("So 34", AnswerForm(last_chars=2)),
        ("34", AnswerForm(ended=True)),
    ],
)
def test_a_setting_of_ones_own(text, form):
    assert find_in_form(text, form).answer == "34"


FRAGMENTS = (
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    r"\boxed{3}",
    r"\boxed{4",
    "Answer: 5",
    "6",
    "\n",
    "x ",
)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=9))
def test_a_form_only_rules_out(fragments):
    """What a form without a phrase finds in a box is what is found in a box without it."""
    text = "".join(fragments)
    usual = find_answer(text)
    assert find_in_form(text, ANYWHERE) == usual
    for name in ("box", "tags", "deepscaler", "orz"):
        found = find_in_form(text, FORMS[name])
        if found.answer is not None:
            assert found == usual or usual.place is Place.CORRECTION
        assert not follows(text, FORMS[name]) or found.answer is not None
    assert find_in_form(text, FORMS["orz"], ended=False).answer is None
    if "</think>" not in text:
        assert find_in_form(text, FORMS["deepscaler"]).answer is None


FOLLOWING = [
    ("tags", R + "<answer>34</answer>"),
    ("tags", R + "\n\n<answer>It is wrong, 35.</answer>\n"),
    ("tags", "opened by the prompt</think><answer>34</answer>"),
    ("deepscaler", R + r"So \boxed{34}, I think."),
    ("orz", r"<think>a</think> <answer>\boxed{x}</answer>"),
    ("dapo", "We add. Answer: 35"),
    ("any", "34"),
]
NOT_FOLLOWING = [
    ("tags", R + "It is <answer>34</answer>"),
    ("tags", R + "<answer>34</answer> and more"),
    ("tags", R + "<answer>34</answer><answer>34</answer>"),
    ("tags", R + "<answer></answer>"),
    ("tags", "Well. " + R + "<answer>34</answer>"),
    ("tags", R + R + "<answer>34</answer>"),
    ("tags", "<thinking>a</think><answer>34</answer>"),
    ("deepscaler", r"<think>a</think>b</think>\boxed{34}"),
    ("deepscaler", R + "34"),
    ("orz", "<answer>34</answer>"),
    ("dapo", "So it is 34"),
    ("any", "nothing"),
]


@pytest.mark.parametrize(("name", "text"), FOLLOWING)
def test_a_text_in_its_form(name, text):
    """Right or wrong: the solution is not asked."""
    assert follows(text, FORMS[name])


@pytest.mark.parametrize(("name", "text"), NOT_FOLLOWING)
def test_a_text_that_is_not_in_its_form(name, text):
    assert not follows(text, FORMS[name])


def test_a_response_that_did_not_end_is_in_no_form_that_asks_for_it():
    text = r"<answer>\boxed{34}</answer>"
    assert follows(text, FORMS["orz"]) and not follows(text, FORMS["orz"], ended=False)
    assert follows(text, FORMS["box"], ended=False)


def test_many_texts_are_graded_by_one_form():
    texts = [r"<answer>\boxed{34}</answer>"] * 3 + [r"\boxed{34}"]
    checked = check_all(
        texts, [["34"], ["34"], ["35"], ["34"]], form=FORMS["orz"], ended=[True, False, True, True]
    )
    assert [each.verdict for each in checked] == [
        Verdict.CORRECT,
        Verdict.NO_ANSWER,
        Verdict.WRONG,
        Verdict.NO_ANSWER,
    ]
    with pytest.raises(ValueError, match="shorter|longer"):
        check_all(texts, [["34"]] * 4, ended=[True])


@pytest.mark.parametrize("name", FORMS)
def test_time_is_proportional_to_the_length_of_the_text_in_every_form(name):
    """As without a form, see `test_extract.py`."""
    form = FORMS[name]
    draw = random.Random(3)
    units = [*draw.sample(hostile_texts(), 40), ("</think>", "<think></think>"), ("</think>", "Answer: ")]
    for begin, unit in units:
        text = begin + unit * (200_000 // len(unit))
        for tail in ("", "</think><answer>Answer:"):
            seconds = processor_time_s(lambda hostile: follows(hostile, form), text + tail, 0.5)
            assert seconds < 0.5, (begin, unit, tail)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("orz", FORMS["orz"]),
        ("place=box", FORMS["box"]),
        ("after_thought=true,place=box", FORMS["deepscaler"]),
        ("place=phrase,last_chars=300", FORMS["dapo"]),
        ("place=phrase,phrase=Result:", AnswerForm(place="phrase", phrase="Result:")),
    ],
)
def test_a_form_is_named_or_described(text, form):
    assert form_of(text) == form


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nobody", "expected one of any, box, tags, deepscaler, orz, dapo, or settings as place=box"),
        ("plaice=box", "of ended, after_thought, tagged, place, phrase, last_chars, got 'plaice=box'"),
        ("place=middle", "Invalid enum value 'middle'"),
        ("last_chars=-1", "last_chars must be at least 0"),
        ("phrase=", "phrase must have 1 to 60 characters"),
        ("tagged=perhaps", "Expected `bool`"),
    ],
)
def test_a_form_that_is_none_is_refused(text, named):
    with pytest.raises(ValueError, match="form: ") as refused:
        form_of(text)
    assert named in str(refused.value)


def test_the_tables_in_the_docs():
    """Each form with its settings, and each setting."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "verifier.md").read_text(encoding="utf-8")
    section = page.partition("## Strict forms")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (?:`([^`|]+)`)? ?\|", section, re.MULTILINE)
    described = {name: form_of(text) if text else ANYWHERE for name, text in rows}
    assert described == FORMS
    settings = re.findall(r"^\| `([^`|]+=[^`|]+)` \|", section, re.MULTILINE)
    # The phrase is named in the row of its place.
    assert {text.partition("=")[0] for text in settings} == {field.name for field in fields(AnswerForm)} - {
        "phrase"
    }
    assert all(form_of(text) != ANYWHERE for text in settings)


def test_the_format_reward_in_the_docs(tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs" / "verifier.md").read_text(encoding="utf-8")
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def in_form" in code]
    (tmp_path / "rewards.py").write_text(code)
    reward = load_function(f"{tmp_path}/rewards.py:in_form").function
    assert reward("?", R + "<answer>35</answer>", ["34"]) == 1.0
    assert reward("?", "34", ["34"]) == 0.0

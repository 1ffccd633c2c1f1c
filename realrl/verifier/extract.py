r"""Searches a model's text for its answer.

    text ─▶ part after the thoughts, inside <answer>…</answer> if there is one
              │ cut off in a thought or a tag: no answer
              ▼
            last \boxed{…} ──▶ last "the answer is", "####", … ──▶ last value

Each place is searched only if the one before is missing. Every text has at most one answer: a text with
several candidates is not right because one of them is. The time is proportional to the text's length.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from realrl.verifier.boxed import boxed_answer, last_box_at
from realrl.verifier.final_part import FinalPart, final_part
from realrl.verifier.number_spans import last_value
from realrl.verifier.phrases import announced_at, final_answer_at
from realrl.verifier.statement import MAX_STATEMENT_CHARS, answer_at, answer_in_sentence

_NUMBER = re.compile(r"-?(?:\\?\$)?\d{1,3}(?:(?:,|\{,\})?\d{3}){0,12}(?:\.\d{1,12})?")
_SIGNS_IN_NUMBER = re.compile(r"[\\$,{}]")
TAIL_CHARS = 20_000
"""The number of characters at a text's end in which phrases and values are searched, but not boxes."""


class Place(Enum):
    """A place where the answer of a text is searched; or, of a text in a strict form, why there is none."""

    CUT_OFF = "thoughts or an answer tag that never end"
    BOX = "the last box"
    CORRECTION = "the final answer that the text states after the last box, which has another number"
    PHRASE = "the last phrase that announces an answer"
    TAG = "the answer tag"
    VALUE = "the last value"
    NOT_ENDED = "a response that did not end by itself"
    NO_THOUGHT = "a text without the end of a thought"
    NO_TAG = "a text without an answer tag"
    NO_BOX = "a part without a box"
    NO_PHRASE = "a part without the phrase of the form"


class Found(NamedTuple):
    """The answer of a text."""

    answer: str | None
    """The answer as it is written, without delimiters of formulas; None if there is none."""
    place: Place


def extract_answer(text: str) -> str | None:
    """Return the answer as it is written, without delimiters of formulas; None if there is none."""
    return find_answer(text).answer


def find_answer(text: str) -> Found:
    """Return the answer, and the one place that was searched for it."""
    part = final_part(text)
    if part is None:
        return Found(None, Place.CUT_OFF)
    return answer_in_part(part)


def answer_in_part(part: FinalPart) -> Found:
    """Return the answer in the part of a text that can hold it."""
    boxed = boxed_answer(part.text)
    if boxed is not None:
        corrected = _corrected(boxed, part.text)
        if corrected is not None:
            return Found(corrected, Place.CORRECTION)
        return Found(boxed or None, Place.BOX)
    tail = part.text[-TAIL_CHARS:].replace("−", "-")
    begin = announced_at(tail)
    if begin is not None:
        return Found(answer_at(tail, begin), Place.PHRASE)
    if part.tagged:
        return Found(_tagged(tail.strip()), Place.TAG)
    return Found(last_value(tail), Place.VALUE)


def _corrected(boxed: str, text: str) -> str | None:
    """Return the number of "the final answer is" after the last box, if it differs from the boxed number.

    A text may box the result of a step. Only two numbers contradict each other for certain.
    """
    if not _NUMBER.fullmatch(boxed):
        return None
    box_begin = last_box_at(text)
    if box_begin is None:
        return None
    begin = final_answer_at(text, box_begin)
    if begin is None:
        return None
    stated = answer_at(text, begin)
    if stated is None or not _NUMBER.fullmatch(stated):
        return None
    return stated if _digits(stated) != _digits(boxed) else None


def _digits(number: str) -> str:
    """Return a number without signs of money and separators, to compare it as it is written."""
    return _SIGNS_IN_NUMBER.sub("", number)


def _tagged(content: str) -> str | None:
    """Return the answer in a tag, whose content may have several lines."""
    if "\n" not in content:
        return answer_at(content, 0)
    is_short = len(content) <= MAX_STATEMENT_CHARS
    if is_short:
        return answer_in_sentence(content)
    return last_value(content)

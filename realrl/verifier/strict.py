"""Searches the answer of a text that must be in a given form, and says whether a text is in it."""

from __future__ import annotations

import functools
import re

from realrl.verifier.boxed import boxed_answer
from realrl.verifier.extract import Found, Place, answer_in_part, find_answer
from realrl.verifier.final_part import (
    ANSWER_BEGIN,
    ANSWER_END,
    FinalPart,
    after_thoughts,
    begins_with_only_thought,
    final_part,
    has_thought,
)
from realrl.verifier.forms import ANYWHERE, AnswerForm
from realrl.verifier.statement import MAX_STATEMENT_CHARS, answer_at

_MARKS = re.compile(r"[\s*_`]*")
"""Spaces and marks of bold type between a phrase and its answer."""


def find_in_form(text: str, form: AnswerForm, *, ended: bool = True) -> Found:
    """Return the answer of a text in a form; no answer, and the reason for it, if the form rules it out.

    `ended` says whether the text ended by itself.
    """
    if form == ANYWHERE:
        return find_answer(text)
    if form.ended and not ended:
        return Found(None, Place.NOT_ENDED)
    if form.after_thought and not has_thought(text):
        return Found(None, Place.NO_THOUGHT)
    part = final_part(text)
    if part is None:
        return Found(None, Place.CUT_OFF)
    if form.tagged and not part.tagged:
        return Found(None, Place.NO_TAG)
    return _in_place(_last_chars(part, form.last_chars), form)


def _last_chars(part: FinalPart, last_chars: int) -> FinalPart:
    """Return the last characters of a part; all of them for 0."""
    return FinalPart(part.text[-last_chars:], part.tagged) if last_chars else part


def _in_place(part: FinalPart, form: AnswerForm) -> Found:
    """Return the answer in the place of a form."""
    if form.place == "box":
        boxed = boxed_answer(part.text)
        place = Place.NO_BOX if boxed is None else Place.BOX
        return Found(boxed or None, place)
    if form.place == "phrase":
        return _after_phrase(part.text, form.phrase)
    return answer_in_part(part)


def _after_phrase(text: str, phrase: str) -> Found:
    """Return the answer after the last of a phrase: the box of its line, or what it states."""
    last = None
    for match in _phrase_pattern(phrase).finditer(text):
        last = match
    if last is None:
        return Found(None, Place.NO_PHRASE)
    marks = _MARKS.match(text, last.end())
    begin = marks.end() if marks else last.end()
    line, _, _ = text[begin : begin + MAX_STATEMENT_CHARS].partition("\n")
    boxed = boxed_answer(line)
    if boxed is not None:
        return Found(boxed or None, Place.PHRASE)
    return Found(answer_at(text.replace("−", "-"), begin), Place.PHRASE)


@functools.lru_cache(maxsize=64)
def _phrase_pattern(phrase: str) -> re.Pattern[str]:
    """Return the pattern of a phrase, in upper or lower case; a space or a mark may precede its colon."""
    words = phrase.strip()
    before_colon = words.removesuffix(":")
    if before_colon == words:
        return re.compile(re.escape(words), re.IGNORECASE)
    return re.compile(rf"{re.escape(before_colon.rstrip())}[\s*_]{{0,4}}[:：]", re.IGNORECASE)


def follows(text: str, form: AnswerForm, *, ended: bool = True) -> bool:
    """Return whether a text is in a form, right or wrong: as a reward for the format alone.

    It must have an answer in its place. With `after_thought`, it must have one thought, which nothing
    precedes; with `tagged`, one pair of answer tags, and nothing around them except the thought.
    """
    if find_in_form(text, form, ended=ended).answer is None:
        return False
    if form.after_thought and not begins_with_only_thought(text):
        return False
    return not form.tagged or _is_all_tagged(text)


def _is_all_tagged(text: str) -> bool:
    """Return whether one pair of answer tags encloses everything after the thoughts."""
    said = after_thoughts(text)
    if said is None or said.count(ANSWER_BEGIN) != 1 or said.count(ANSWER_END) != 1:
        return False
    said = said.strip()
    return said.startswith(ANSWER_BEGIN) and said.endswith(ANSWER_END)

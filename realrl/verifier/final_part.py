"""The part of a text that can hold the answer: after the thoughts, inside the last pair of answer tags."""

from __future__ import annotations

from typing import NamedTuple

_THOUGHT_TAGS = ("think", "thinking", "thought", "reasoning")
_ANSWER_BEGIN, _ANSWER_END = "<answer>", "</answer>"


class FinalPart(NamedTuple):
    """The part of a text that may hold the answer."""

    text: str
    tagged: bool
    """Whether answer tags enclose it. Then all of it is the answer."""


def final_part(text: str) -> FinalPart | None:
    """Return the part that may hold the answer; None where thoughts or an answer tag never end.

    Such a text was cut off. What it says up to there is a thought, or half of an answer.
    """
    spoken = _after_thoughts(text)
    if spoken is None:
        return None
    begin = spoken.rfind(_ANSWER_BEGIN)
    if begin < 0:
        return FinalPart(spoken, False)
    begin += len(_ANSWER_BEGIN)
    end = spoken.find(_ANSWER_END, begin)
    return None if end < 0 else FinalPart(spoken[begin:end], True)


def _after_thoughts(text: str) -> str | None:
    """Return what comes after the last closing tag of a thought; None where a later one opens."""
    begin, ended = 0, True
    for name in _THOUGHT_TAGS:
        opening, closing = f"<{name}>", f"</{name}>"
        opened, closed = text.rfind(opening), text.rfind(closing)
        if closed >= 0 and closed + len(closing) > begin:
            begin, ended = closed + len(closing), True
        if opened >= begin:
            begin, ended = opened, False
    return text[begin:] if ended else None

"""Finds the part of a text that can hold the answer: after the thoughts, inside the last answer tags."""

from __future__ import annotations

from typing import NamedTuple

_THOUGHT_TAGS = ("think", "thinking", "thought", "reasoning")
ANSWER_BEGIN = "<answer>"
ANSWER_END = "</answer>"


class FinalPart(NamedTuple):
    """The part of a text that may hold the answer."""

    text: str
    tagged: bool
    """Whether answer tags enclose it. Then all of it is the answer."""


def final_part(text: str) -> FinalPart | None:
    """Return the part that may hold the answer; None if thoughts or an answer tag never end.

    A text without such an end was cut off within a thought or an answer.
    """
    spoken = after_thoughts(text)
    if spoken is None:
        return None
    begin = spoken.rfind(ANSWER_BEGIN)
    if begin < 0:
        return FinalPart(spoken, False)
    begin += len(ANSWER_BEGIN)
    end = spoken.find(ANSWER_END, begin)
    if end < 0:
        return None
    return FinalPart(spoken[begin:end], True)


def after_thoughts(text: str) -> str | None:
    """Return the text after the last closing tag of a thought; None if a thought opens after it."""
    begin = 0
    ended = True
    for name in _THOUGHT_TAGS:
        closing = f"</{name}>"
        opened = text.rfind(f"<{name}>")
        closed = text.rfind(closing)
        after = closed + len(closing)
        if closed >= 0 and after > begin:
            begin = after
            ended = True
        if opened >= begin:
            begin = opened
            ended = False
    if ended:
        return text[begin:]
    return None


def has_thought(text: str) -> bool:
    """Return whether a thought of a text ends."""
    return any(f"</{name}>" in text for name in _THOUGHT_TAGS)


def begins_with_only_thought(text: str) -> bool:
    """Return whether a text begins with a thought and has no other; the prompt may have opened it."""
    num_closed = 0
    num_opened = 0
    is_at_begin = False
    begin = text.lstrip()
    for name in _THOUGHT_TAGS:
        closed = text.count(f"</{name}>")
        opened = text.count(f"<{name}>")
        if opened > closed:
            return False
        num_closed += closed
        num_opened += opened
        is_at_begin = is_at_begin or begin.startswith(f"<{name}>")
    if num_closed != 1:
        return False
    return num_opened == 0 or is_at_begin

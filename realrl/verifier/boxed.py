r"""Finds the last `\boxed{…}` of a text, and the boxes that are joined to it."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_BOX_CHARS = 10_000
"""The length of the longest box; one that closes later counts as never closed."""
MAX_CONNECTOR_CHARS = 80
"""The largest distance of two boxes of one list."""

# Each begins with a literal, which `re` finds much faster than an alternative: a text may be a megabyte of
# backslashes.
_OPENINGS = (re.compile(r"\\boxed\s*(?=\{|-?\d)"), re.compile(r"\\fbox\s*(?=\{|-?\d)"))
_BARE_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_TOKEN = re.compile(r"\\{1,2}(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_CORRECTING = (
    r"(?:is|was|are|not|no|but|so|then|rather|wait|wrong|incorrect|hundred|thousand|million|billion|dozen)\b"
)
_CONNECTORS = re.compile(
    r"(?:[\s$,;&，、和或]|\\[()\[\],;! \\]|\\q?quad|\\text\{(?:[^{}]{0,40}\b(?:and|or))?\s*\}"
    rf"|(?:(?!{_CORRECTING})[A-Za-z]{{1,20}}\s){{0,3}}(?:and|or)\b|[A-Za-z](?:_\w)?\s?=)*\\?"
)


class _Box(NamedTuple):
    begin: int
    inside: int
    close: int
    """The position of its closing brace."""


def boxed_answer(text: str) -> str | None:
    r"""Return the content of the last box: None without a box, "" for one that is empty or never closed.

    Boxes that only "and", "or", commas or formula signs join are one list: `\boxed{3} or \boxed{4}` is the
    answer "3; 4", and neither 3 nor 4. A last box that never closes was cut off, and no earlier one
    replaces it.
    """
    opening = _last_opening(text)
    if opening is None:
        return None
    begin, inside = opening
    # Without braces, the box has one number.
    number = _BARE_NUMBER.match(text, inside)
    if number is not None:
        return number.group().rstrip(",")
    window_begin = max(0, begin - MAX_BOX_CHARS)
    window = text[window_begin : inside + MAX_BOX_CHARS]
    boxes = _closed_boxes(window)
    if not boxes:
        return ""
    if boxes[-1].begin != begin - window_begin:
        return ""
    contents = [window[box.inside : box.close].strip() for box in _last_run(window, boxes)]
    # An answer that is boxed twice is one answer.
    distinct = dict.fromkeys(contents)
    return "; ".join(filter(None, distinct))


def cut_off_box(text: str) -> str | None:
    """Return what follows the brace of the last box, if that never closes; else None."""
    opening = _last_opening(text)
    if opening is None or boxed_answer(text) != "":
        return None
    _, inside = opening
    return text[inside + 1 : inside + MAX_BOX_CHARS].strip()


def last_box_at(text: str) -> int | None:
    """Return where the last box begins; None without a box."""
    opening = _last_opening(text)
    return None if opening is None else opening[0]


def _last_opening(text: str) -> tuple[int, int] | None:
    """Return where the last box begins, and where its brace or its number begins; None without a box."""
    last = None
    for pattern in _OPENINGS:
        for match in pattern.finditer(text):
            if last is None or match.start() > last[0]:
                last = match.span()
    return last


def _closed_boxes(text: str) -> list[_Box]:
    """Return the boxes that close, in the order of their beginnings. An escaped brace does not count."""
    opened: list[tuple[int, int] | None] = []
    boxes: list[_Box] = []
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token == "{":
            opened.append(None)
        elif token == "}" and opened:
            box = opened.pop()
            if box is not None:
                begin, inside = box
                boxes.append(_Box(begin, inside, match.start()))
        elif token.endswith("{") and token != r"\{":
            # The first of two backslashes is the escape of a text that was escaped twice.
            begin = match.start() + token.startswith("\\\\")
            opened.append((begin, match.end()))
    return sorted(boxes)


def _last_run(text: str, boxes: list[_Box]) -> list[_Box]:
    """Return the last box and the earlier boxes that are joined to it."""
    run = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        begin = box.close + 1
        end = run[0].begin
        # The distance is negative if one box is inside the other.
        if not 0 <= end - begin <= MAX_CONNECTOR_CHARS:
            break
        if not _CONNECTORS.fullmatch(text, begin, end):
            break
        run.insert(0, box)
    return run

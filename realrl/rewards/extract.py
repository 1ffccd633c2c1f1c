"""Finds the answer in a model's text."""

from __future__ import annotations

import re

_BRACE = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d+)"
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}.])[-+])?"
    rf"(?:\\[dt]?frac\{{\d+\}}\{{\d+\}}|{_DIGITS}(?:\.\d+)?(?:/{_DIGITS}(?:\.\d+)?)?|(?<![\d.])\.\d+)"
)


def extract_answer(text: str) -> str | None:
    r"""The last balanced `\boxed{…}`, else the last number: integer, decimal or fraction; else None."""
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed.strip() or None
    numbers = _NUMBER.findall(text.replace("−", "-"))
    return numbers[-1] if numbers else None


def _last_boxed(text: str) -> str | None:
    """In one pass, for a text may open thousands of boxes; an escaped brace is no brace."""
    opened: list[tuple[bool, int]] = []
    last: tuple[int, int] | None = None
    for match in _BRACE.finditer(text):
        token = match.group()
        if token.endswith("{") and token != r"\{":
            opened.append((token != "{", match.end()))
        elif token == "}" and opened:
            is_box, start = opened.pop()
            if is_box and (last is None or start > last[0]):
                last = (start, match.start())
    return None if last is None else text[last[0] : last[1]]

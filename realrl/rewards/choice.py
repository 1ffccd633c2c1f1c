"""Answers that pick one of the letters of a multiple-choice question."""

from __future__ import annotations

import re

_TEXT = re.compile(r"\\(?:textbf|mathrm|mathbf|mbox|textrm)\b")
_CHOICE = re.compile(r"\\text\{\(?([A-Za-z])\)?\.?\}|\(?([A-Z])\)?|\(([a-z])\)")
_CHOSEN = re.compile(r"(?:\\text\{)?(?:\(([A-Za-z])\)(?!\}?[-+*/=^_,;])|([A-Z])[.:)])")
_LETTER = re.compile(r"\([A-Za-z]\)|(?<![A-Za-z\\(])[A-Z][.:)]|(?:or|and|,|;)\(?[A-Z]\)?$")


def choice(solution: str) -> str | None:
    r"""The letter of a solution that is a choice, as `\text{(C)}`, `(C)` or `C`."""
    return _letter(_CHOICE.fullmatch(_stripped(solution)))


def chosen_letter(answer: str) -> str | None:
    r"""The one letter that an answer picks: `C`, `(c)`, `\textbf{(C)}\ 42` or `C. 42`."""
    text = _stripped(answer)
    chosen = _CHOSEN.match(text) if len(_LETTER.findall(text)) == 1 else None
    return choice(answer) or _letter(chosen)


def _letter(match: re.Match[str] | None) -> str | None:
    return next(filter(None, match.groups())).upper() if match else None


def _stripped(text: str) -> str:
    return _TEXT.sub(r"\\text", re.sub(r"[\s$*]", "", text)).rstrip(".")

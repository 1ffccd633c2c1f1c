"""Answers that pick one of the letters of a multiple-choice question."""

from __future__ import annotations

import re

_TEXT = re.compile(r"\\(?:textbf|mathrm|mathbf|mbox|textrm)\b")
_INTRODUCED = re.compile(r"^(?:option|choice|answer)(?=[(A-Z\\])", re.IGNORECASE)
_CHOICE = re.compile(r"\\text\{\(?([A-Za-z])\)?\.?\}|\(?([A-Z])\)?|\(([a-z])\)")
_CHOSEN = re.compile(r"(?:\\text\{)?(?:\(([A-Za-z])\)(?!\}?[-+*/=^_,;])|([A-Z])[.:)])")
_LETTER = re.compile(r"\([A-Za-z]\)|(?<![A-Za-z\\(])[A-Z][.:)]|(?:or|and|,|;)\s*\(?[A-Z]\)?\s*$")


def choice(solution: str) -> str | None:
    r"""The letter of a solution that is a choice, as `\text{(C)}`, `(C)` or `C`."""
    return _letter(_CHOICE.fullmatch(_stripped(solution)))


def chosen_letter(answer: str) -> str | None:
    r"""The one letter that an answer picks: `C`, `(c)`, `\textbf{(C)}\ 42` or `C. 42`."""
    chosen = _CHOSEN.match(_stripped(answer)) if len(_LETTER.findall(answer)) == 1 else None
    return choice(answer) or _letter(chosen)


def _letter(match: re.Match[str] | None) -> str | None:
    return next(filter(None, match.groups())).upper() if match else None


def _stripped(text: str) -> str:
    bare = _TEXT.sub(r"\\text", re.sub(r"[\s$*]", "", text)).rstrip(".")
    return _INTRODUCED.sub("", bare)

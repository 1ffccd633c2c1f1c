"""What a check of an answer can end in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(str, Enum):
    """How an answer compares with its solutions; only `CORRECT` and `WRONG` say something of the answer."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """The text has no box, no "answer is" and no number."""
    TIMEOUT = "timeout"
    """The check ran past its deadline and was killed, or would have: its numbers are too large to compute."""
    ERROR = "error"
    """The check broke, or ran out of memory."""


@dataclass(frozen=True)
class Checked:
    """A text that was graded."""

    verdict: Verdict
    answer: str | None
    """As it stands in the text; None if there is none."""

"""The results of checking an answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(str, Enum):
    """The result of a check of an answer; only `CORRECT` and `WRONG` say something about the answer."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """The text has no box, no "answer is" and no number."""
    TIMEOUT = "timeout"
    """The check ran past its deadline and was killed, or its numbers are too large to compute in time."""
    ERROR = "error"
    """The check failed, or ran out of memory."""


@dataclass(frozen=True)
class Checked:
    """A text that was graded."""

    verdict: Verdict
    answer: str | None
    """The answer as it is written in the text; None if there is none."""

"""What a check of an answer can end in."""

from __future__ import annotations

from enum import Enum


class Verdict(str, Enum):
    """How an answer compares with its solutions; only `CORRECT` and `WRONG` say something of the answer."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """The text has no box and no number."""
    TIMEOUT = "timeout"
    """The check ran past its deadline and was killed."""
    ERROR = "error"
    """The check broke, or ran out of memory."""

"""Limits of an answer, for the code that reads it and the code that passes it on."""

from __future__ import annotations

MAX_CHARS = 1000
"""The largest number of characters of an answer that is read. Solutions are short: a longer one is only
compared as a text."""
ANSWER_DIGITS = 6
"""The minimum of significant digits of an answer that approximates a number with infinitely many."""
SOLUTION_DIGITS = 10
"""The minimum of significant digits of a solution that approximates an exact answer."""

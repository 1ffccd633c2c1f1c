"""How long an answer may be, for those who read it and those who pass it on."""

from __future__ import annotations

MAX_CHARS = 1000
"""The length of the longest answer that is read; a longer one is compared as a text: solutions are short."""

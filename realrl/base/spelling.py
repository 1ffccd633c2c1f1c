"""Suggests known words for a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: the nearest known ones; empty if none is near."""
    found = difflib.get_close_matches(word, list(known), n=3)
    if not found:
        return ""
    most = _likeness(found[0], word)
    nearest = [other for other in found if _likeness(other, word) == most]
    return f"; did you mean {' or '.join(nearest)}?"


def _likeness(known: str, word: str) -> float:
    """Return how alike two words are, from 0 to 1."""
    return difflib.SequenceMatcher(None, known, word).ratio()

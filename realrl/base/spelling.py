"""Suggests known words for a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: the nearest known ones; empty if none is near."""
    found = difflib.get_close_matches(word, list(known), n=3)
    likeness = [difflib.SequenceMatcher(None, other, word).ratio() for other in found]
    nearest = [other for other, ratio in zip(found, likeness) if ratio == likeness[0]]
    return f"; did you mean {' or '.join(nearest)}?" if nearest else ""

"""Compares texts that are not mathematics."""

from __future__ import annotations

from realrl.verifier import lexicon
from realrl.verifier.amounts import singular
from realrl.verifier.tree import Words


def same_words(answer: Words, solution: Words) -> bool:
    """Return whether two texts are the same, except for articles, a plural and synonyms."""
    first = canonical_words(answer)
    second = canonical_words(solution)
    if not second:
        return False
    return first == second or singular(first) == singular(second)


def canonical_words(value: Words) -> str:
    """Return a text without articles, in the one spelling of its synonyms; an article alone stays."""
    words = [word for word in value.words if word not in (".", '"')]
    without_articles = [word for word in words if word not in lexicon.ARTICLES]
    text = " ".join(without_articles or words)
    for opening in lexicon.OPENINGS:
        text = text.removeprefix(opening)
    return lexicon.WORD_SYNONYMS.get(text, text)

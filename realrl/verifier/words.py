"""Whether two texts that are no mathematics say the same."""

from __future__ import annotations

from realrl.verifier import lexicon
from realrl.verifier.amounts import singular
from realrl.verifier.tree import Words


def same_words(answer: Words, solution: Words) -> bool:
    """Whether two texts are the same, but for articles, a plural and words that mean the same."""
    first, second = canonical_words(answer), canonical_words(solution)
    return bool(second) and (first == second or singular(first) == singular(second))


def canonical_words(value: Words) -> str:
    """Words without articles, in one of the spellings that mean the same."""
    words = [word for word in value.words if word not in (".", '"')]
    text = " ".join([word for word in words if word not in lexicon.ARTICLES] or words)
    for opening in lexicon.OPENINGS:
        text = text.removeprefix(opening)
    return lexicon.WORD_SYNONYMS.get(text, text)

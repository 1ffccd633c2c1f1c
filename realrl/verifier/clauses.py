"""Finds the end of an answer that is followed by clauses or parentheses about it."""

from __future__ import annotations

import re

from realrl.verifier.formula_spans import formulas, outside
from realrl.verifier.number_spans import NUMBER_WORDS

CONNECTIVES = {
    "English": r"but|because|since|where|which|who|whose|that|given|assuming|using|hence|therefore|thus"
    r"|rather than|instead of|that is|i\.e\.|namely|due to|(?:and )?not"
    r"|and (?:so|thus|hence|therefore|here|we|it|this)|in total|in all|altogether|overall|respectively"
    r"|for (?:each|every)|for the\b(?!.*[\d\ufffc])|i (?:hope|think|believe|guess)"
    r"|as (?:required|desired|shown|claimed|expected|stated|wanted|needed|we|it|there|this)",
    "Spanish": r"porque|ya que|puesto que|pero|donde",
    "French": r"parce que|puisque|mais|où",
    "German": r"weil|aber|wobei|sondern",
    "Portuguese": r"porque|já que|pois|onde",
    "Italian": r"perché|poiché|dove",
    "Russian": r"потому что|так как|поскольку|где",
    "Vietnamese": r"bởi vì|nhưng|trong đó",
    "Hindi": r"क्योंकि|लेकिन|जहाँ",
    "Arabic": r"لأن|لكن|حيث",
}
"""Words that begin a clause about the answer; the clause is not a part of the answer.

Words that may join a second answer, a condition or a case are left out: "or", "and", "if", "when", "with".
"""
CONNECTIVES_AFTER_COMMA = {
    "English": r"as|so|by|after|right|this|it|we|the\b(?!.*[\d\ufffc])",
    "other languages": r"car|da|denn|ma|mas|но|vì|y no|et non|e não|e non|und nicht|а не",
}
"""Words that begin a clause only after a comma or a semicolon, as they have other meanings."""
CONNECTIVES_WITHOUT_SPACE = {
    "Chinese": r"因为|因為|其中|但|所以",
    "Japanese": r"なぜなら|ただし",
}

_AFTER_SPACE, _AFTER_COMMA, _ANYWHERE = (
    "|".join(words.values()) for words in (CONNECTIVES, CONNECTIVES_AFTER_COMMA, CONNECTIVES_WITHOUT_SPACE)
)
_CLAUSE = re.compile(
    rf"(?:[,;，、]\s*|\s)(?:{_AFTER_SPACE})(?!\w)|[,;，]\s*(?:{_AFTER_COMMA})(?!\w)|[,，、]?\s?(?:{_ANYWHERE})",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"\s\((?:(?:see|since|because|as|i\.e\.|that is|where|which|from|by|using|note|given|assuming|after|check"
    rf"|not|rounded|approximately|approx\.?)(?!\w)|{NUMBER_WORDS.pattern}\))",
    re.IGNORECASE,
)
_PARENTHESIS = re.compile(r"\s*\(")
_PART_OF_VALUE = re.compile(r"\s*\(\s*(?:\\?[pb]?mod|or|and|base)\b", re.IGNORECASE)
_SAME_AGAIN = re.compile(rf"({NUMBER_WORDS.pattern})\s+\([^()]*\)", re.IGNORECASE)


def without_clauses(sentence: str) -> str:
    """Return a sentence up to the first clause or parenthesis that speaks about its answer."""
    shown = outside(sentence)
    ends = [len(sentence)]
    # A sentence may begin with such a word: then its answer is in the clause.
    for match in _CLAUSE.finditer(shown):
        begin = match.start()
        if begin > 0:
            ends.append(begin)
    for match in _ASIDE.finditer(shown):
        ends.append(match.start())
    for formula in formulas(sentence):
        # In a formula a parenthesis may be a factor; after a formula it is a remark.
        end = formula.end
        if _PARENTHESIS.match(shown, end) and not _PART_OF_VALUE.match(shown, end):
            ends.append(end)
    clause = sentence[: min(ends)]
    same = _SAME_AGAIN.fullmatch(clause.strip())
    return same[1] if same else clause

"""What a statement says: an answer with its words, without the clauses that follow it."""

from __future__ import annotations

import re

from realrl.verifier.formulas import bare, formulas, is_prose, num_words, outside
from realrl.verifier.values import NUMBER_WORDS, first_value, last_value, values

MAX_STATEMENT_CHARS = 2_000
MAX_WORDS_OF_VALUE = 4
"""A value with more words is cut out of them, as "18 dollars" from "18 dollars every day at the market"."""

_END = re.compile(
    r"\n|[。！？؟।]|[.?](?=[*_\"”’)\]`]{0,4}(?:\s|\Z))|!(?=[*_\"”’)\]`]{0,4}(?:\s*\Z|\s+[^\W\da-z_]|\s*[\u2600-\U0001faff]|\n))"
)
_ABBREVIATION = re.compile(r"\b(?:approx|ca|vs|resp|sq|cu|no|i\.e|e\.g)\Z", re.IGNORECASE)
_ITEM = re.compile(r"[ \t]*(?:[-*•]|\d{1,2}[.)])[ \t]+(\S[^\n]*)(?:\n|\Z)")

CONNECTIVES = {
    "English": r"but|because|since|where|which|who|whose|that|given|assuming|using|hence|therefore|thus"
    r"|rather than|instead of|that is|i\.e\.|namely|due to|(?:and )?not"
    r"|and (?:so|thus|hence|therefore|we|it|this)|in total|in all|altogether|overall|respectively"
    r"|for (?:each|every)|for the\b(?!.*\d)"
    r"|i (?:hope|think|believe|guess)"
    r"|as (?:required|desired|shown|claimed|expected|stated|wanted|needed|we|it|there|this)",
    "English, after a comma": r"as|so|by|after|right",
    "Spanish": r"porque|ya que|puesto que|pero|donde",
    "French": r"parce que|puisque|mais|où",
    "German": r"weil|aber|wobei|sondern",
    "Portuguese": r"porque|já que|pois|onde",
    "Italian": r"perché|poiché|dove",
    "Russian": r"потому что|так как|поскольку|где",
    "Vietnamese": r"bởi vì|nhưng|trong đó",
    "Hindi": r"क्योंकि|लेकिन|जहाँ",
    "Arabic": r"لأن|لكن|حيث",
    "other languages, after a comma": r"car|da|denn|ma|mas|но|vì|y no|et non|e não|e non|und nicht|а не",
    "without spaces": r"因为|因為|其中|但|所以|なぜなら|ただし",
}
"""Words that begin a clause about the answer; the clause is no part of the answer.

No word is here that may join a second answer, a condition or a case: "or", "and", "if", "when", "with".
"""


def _words(kind: str) -> str:
    return "|".join(words for name, words in CONNECTIVES.items() if kind in name)


_AFTER_SPACE = "|".join(words for name, words in CONNECTIVES.items() if name.isalpha())
_CLAUSE = re.compile(
    rf"(?:[,;，、]\s*|\s)(?:{_AFTER_SPACE})(?!\w)|[,，]\s*(?:{_words('comma')})(?!\w)|[,，、]?\s?(?:{_words('spaces')})",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"\s\((?:see|since|because|as|i\.e\.|that is|where|which|from|by|using|note|given|rounded|assuming|after"
    r"|check)\b",
    re.IGNORECASE,
)
_PARENTHESIS = re.compile(r"\s*\(")
_NO_ASIDE = re.compile(r"\s*\(\s*(?:\\?[pb]?mod|or|and|not|base)\b", re.IGNORECASE)
_SAME_AGAIN = re.compile(rf"({NUMBER_WORDS.pattern})\s+\([^()]*\)", re.IGNORECASE)

_VALUE_BEGIN = re.compile(
    r"[-+±]?\s?(?:\\?[$€£¥₹])?\s?[-+]?\.?[\d√\u00bc-\u00be\u2150-\u215e]|\\|\([A-J]\)|[A-J](?=\s*[.,:)]|\s*\Z)"
)
_SAYS = re.compile(r"[^,;]*\b(?:is|are|be)\b\s*:?")
_FILLER = re.compile(
    r"(?:thus|therefore|then|hence|simply|just|exactly|indeed|actually|clearly)\s+"
    r"|(?:approximately|approx\.|about|roughly|around)\s+"
    r"|(?:the\s+)?(?:option|choice|letter|number|value|integer|fraction|point|interval|set|ordered pair)\s+"
    r"(?=\W?[\dA-J(\[{\\$-])",
    re.IGNORECASE,
)
_NAMES_NO_VALUE = re.compile(
    r"(?:the|a|an|our|this)\s+(?:\w{1,20}\s+)?(?:number|value|amount|sum|total|result|count|product|difference|one|same)",
    re.IGNORECASE,
)
_COPULAS = (
    *("となります", "になります", "である", "でした", "です", "だ"),
    *("입니다", "이에요", "예요", "이다", "है", "होगा"),
)
_OTHER_SCRIPT = re.compile(r"[\u0590-\u1fff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0400-\u052f]")
_COUNTED = re.compile(r"\s?[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_SCALE = re.compile(r"\s?[十百千万萬亿億兆半分点點割成倍만억천백십]")


def statement(text: str, begin: int) -> str | None:
    """Return the answer that a statement gives which begins there; None where it says nothing."""
    said = text[begin : begin + MAX_STATEMENT_CHARS]
    items = _items(said)
    if items:
        return "; ".join(filter(None, items))
    return stated(_first_sentence(said))


def stated(sentence: str) -> str | None:
    """Return the answer in a sentence: with its words if they are few, else its first or last value."""
    clause = _without_asides(sentence)
    said = _without_copula(bare(clause))
    if not said:
        return None
    if not _begins_with_value(clause):
        return _predicate(sentence, clause, said)
    counted = _counted_value(said)
    if counted is not None:
        return counted
    if num_words(outside(clause)) <= MAX_WORDS_OF_VALUE or len(values(clause)) != 1:
        return said
    return first_value(clause) or said


def _predicate(sentence: str, clause: str, said: str) -> str | None:
    """Return the answer in a sentence that does not begin with a value: what it says, or its last value."""
    says = _SAYS.match(said)
    predicate = said[says.end() :].strip() if says else said
    while filler := _FILLER.match(predicate):
        predicate = predicate[filler.end() :]
    is_sentence = is_prose(predicate) or _NAMES_NO_VALUE.fullmatch(predicate)
    if is_sentence or (_OTHER_SCRIPT.search(predicate) and values(predicate)):
        return last_value(clause) or last_value(sentence) or predicate
    return predicate or None


def _items(said: str) -> list[str]:
    """Return the items of a list of two or more, which are one answer."""
    items, at = [], 0
    while match := _ITEM.match(said, at):
        items.append(bare(match[1]))
        at = match.end()
    return items if len(items) > 1 else []


def _first_sentence(text: str) -> str:
    """Return a text up to the end of its first sentence or line; formulas are one piece."""
    shown = outside(text)
    for match in _END.finditer(shown):
        if not _ABBREVIATION.search(shown, max(0, match.start() - 8), match.start()):
            return text[: match.start()]
    return text


def _without_asides(sentence: str) -> str:
    """Return a sentence up to the first clause or parenthesis that speaks about its answer."""
    shown = outside(sentence)
    ends = [len(sentence)]
    ends += [match.start() for match in _CLAUSE.finditer(shown) if match.start() > 0]
    ends += [match.start() for match in _ASIDE.finditer(shown)]
    for formula in formulas(sentence):
        # Within a formula, a parenthesis may be a factor; after its end it speaks about it.
        if _PARENTHESIS.match(shown, formula.end) and not _NO_ASIDE.match(shown, formula.end):
            ends.append(formula.end)
    clause = sentence[: min(ends)]
    same = _SAME_AGAIN.fullmatch(clause.strip())
    return same[1] if same else clause


def _begins_with_value(clause: str) -> bool:
    found = formulas(clause)
    stripped = clause.lstrip(" *_")
    begin = len(clause) - len(stripped)
    return bool(found and found[0].begin == begin) or bool(_VALUE_BEGIN.match(stripped))


def _without_copula(text: str) -> str:
    """Return a text without the verb that ends a sentence in Japanese, Korean and Hindi."""
    for copula in _COPULAS:
        if text.endswith(copula) and text != copula:
            return text.removesuffix(copula).strip()
    return text


def _counted_value(said: str) -> str | None:
    """Return the number of things that a Chinese, Japanese or Korean word counts: 12 of "12个苹果"."""
    found = values(said)
    if len(found) != 1 or not _COUNTED.match(said, found[0].end) or _SCALE.match(said, found[0].end):
        return None
    return said[: found[0].end]

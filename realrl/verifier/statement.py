"""Finds the answer in a statement, with the words that belong to it, without the clauses that follow it."""

from __future__ import annotations

import re

from realrl.verifier.clauses import without_clauses
from realrl.verifier.formula_spans import bare, formulas, is_prose, num_words, outside
from realrl.verifier.number_spans import first_value, last_value, values
from realrl.verifier.phrases import IS_CORRECT

MAX_STATEMENT_CHARS = 2_000
"""The largest number of characters of a statement."""
MAX_WORDS_OF_VALUE = 4
"""The largest number of words that stay with a value; "18 dollars every day at the market" has more."""
_MAX_LETTER_CHARS = 4
"""The largest number of characters before the point after a choice's letter, as in `**(B)**.`."""
_MAX_ABBREVIATION_CHARS = 8
"""The largest number of characters of an abbreviation before its last point."""

_CLOSING_MARKS = r"[*_\"”’)\]`]{0,4}"
# A "!" may be a factorial: it ends a sentence before a new one, an emoji or nothing.
_END = re.compile(
    rf"\n|[。！？؟।]|[.?](?={_CLOSING_MARKS}(?:\s|\Z))"
    rf"|!(?={_CLOSING_MARKS}(?:\s*\Z|\s+[^\W\da-z_]|\s*[\u2600-\u27bf\U0001f000-\U0001faff]|\n))"
)
_LETTER_OF_CHOICE = re.compile(r"[*(]{0,2}[A-J]\)?\.\s+[-+$\\\d\ufffc]")
_LETTER_IS_CORRECT = re.compile(rf"[*\s]*(\(?[A-J]\)?)(?={IS_CORRECT})")
_ABBREVIATION = re.compile(r"\b(?:approx|ca|vs|resp|sq|cu|i\.e|e\.g)\Z", re.IGNORECASE)
_ITEM = re.compile(r"[ \t]*(?:[-*•]|\d{1,2}[.)])[ \t]+(\S[^\n]*)(?:\n|\Z)")

_VALUE_BEGIN = re.compile(
    r"[-+±]?\s?(?:\\?[$€£¥₹])?\s?[-+]?\.?[\d√\u00bc-\u00be\u2150-\u215e]|\\|\([A-J]\)|[A-J](?=\s*[.,:)]|\s*\Z)"
)
_OR = re.compile(r"\bor\b", re.IGNORECASE)
_SAYS = re.compile(r"[^,;]*\b(?:is|are|be)\b\s*:?")
_FILLER = re.compile(
    r"(?:thus|therefore|then|hence|simply|just|exactly|indeed|actually|clearly|given by)\s+"
    r"|(?:donc|alors|also|quindi|dunque|portanto|entonces)\s+|(?:de|di|von)\s+(?=[$\d])"
    r"|(?:approximately|approx\.|about|roughly|around)\s+"
    r"|(?:the\s+)?(?:option|choice|letter|number|value|integer|fraction|point|interval|set|ordered pair)\s+"
    r"(?=\W?[\dA-J(\[{\\$-])",
    re.IGNORECASE,
)
_SUBJECT = re.compile(r"(?:he|she|it|they|we|you|i|there)\s", re.IGNORECASE)
_CHANGES_VALUE = re.compile(
    r"\b(?:no|not|none|never|cannot|impossible|nothing)\b|\w['’]t\b"
    r"|\b(?:n['’]est pas|ne sont pas|non|não|nunca|nicht|не|không)\b|不是|不为|不等于|ليس"
    r"|\b(?:least|most|than|over|under|below|above|between|up to)\b",
    re.IGNORECASE,
)
_ANOTHER_VALUE = re.compile(
    r"\b(?:root|square|cube|half|double|negative|opposite|reciprocal|inverse|logarithm|factorial|sum|difference"
    r"|product|quotient|smaller|larger|greater|power|divisors|factors|multiples)\s+of\s+\W{0,3}\d[^,;=]*\Z"
    r"|\b(?:wurzel aus|racine(?: carrée)? de|raíz(?: cuadrada)? de|radice(?: quadrata)? di"
    r"|raiz(?: quadrada)? de)\s+\W{0,3}\d|\b(?:some|any|an)\s?other\s+(?:number|value)\b",
    re.IGNORECASE,
)
"""Words for a value that is not the number after them: "the square root of 42"."""
_NAMES_NO_VALUE = re.compile(
    r"(?:the|a|an|our|this)\s+(?:\w{1,20}\s+)?(?:number|value|amount|sum|total|result"
    r"|count|product|difference|one|same)",
    re.IGNORECASE,
)
_COPULAS = (
    *("となります", "になります", "である", "でした", "です", "だ"),
    *("입니다", "이에요", "예요", "이다", "है", "होगा"),
)
_OTHER_SCRIPT = re.compile(r"[\u0590-\u1fff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0400-\u052f]")
_COUNTED = re.compile(r"[\s,，]{0,2}[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_CHANGED_AFTER = re.compile(r"ない|ありません|아니|아닙|아닌|नहीं|\d\s?[のの的](?=[半倍平立])")
"""Words after a number that deny it, or make another one of it: "its half", "its square"."""
_REJECTED = re.compile(
    r"\W*(?:(?:which|that|this|it)\s+)?(?:is|was)\s+(?:wrong|incorrect|not\s+(?:right|correct))\b",
    re.IGNORECASE,
)
_SCALE = re.compile(r"\s?[十百千万萬亿億兆半分点點割成倍만억천백십]")


def answer_at(text: str, begin: int) -> str | None:
    """Return the answer of the statement that begins at a place; None if it says nothing."""
    said = text[begin : begin + MAX_STATEMENT_CHARS]
    listed = _listed(said)
    if listed:
        return listed
    sentence = _first_sentence(said)
    return answer_in_sentence(sentence)


def answer_in_sentence(sentence: str) -> str | None:
    """Return the answer in a sentence: with its words if they are few, else its first or last value."""
    if letter := _LETTER_IS_CORRECT.match(sentence):
        return letter[1]
    clause = without_clauses(sentence)
    found = values(sentence)
    if found and _REJECTED.match(sentence, found[0].end):
        return bare(sentence)
    said = _without_copula(bare(clause))
    if not _begins_with_value(clause):
        return _predicate(sentence, clause, said)
    counted = _counted_value(said)
    if counted is not None:
        return counted
    has_few_words = num_words(outside(clause)) <= MAX_WORDS_OF_VALUE
    if has_few_words or len(values(clause)) != 1:
        return said or None
    if _OR.search(clause):
        return said or None
    return first_value(clause) or said


def _predicate(sentence: str, clause: str, said: str) -> str | None:
    """Return the answer in a sentence that does not begin with a value: what it says, or its last value."""
    predicate = _what_it_says(said) or _what_it_says(bare(sentence))
    # "That there are no 3 of them" does not say 3.
    if _CHANGES_VALUE.search(predicate) or _ANOTHER_VALUE.search(predicate):
        return predicate or None
    if not _is_sentence(predicate):
        return predicate or None
    return last_value(clause) or last_value(sentence) or predicate


def _what_it_says(text: str) -> str:
    """Return what follows the last "is" of a text, without words that say nothing."""
    says = _SAYS.match(text)
    if says and not _CHANGES_VALUE.search(says.group()):
        text = text[says.end() :].strip()
    while filler := _FILLER.match(text):
        text = text[filler.end() :]
    return text


def _is_sentence(predicate: str) -> bool:
    """Return whether the answer is a value in these words, rather than the words."""
    if is_prose(predicate):
        return True
    if _NAMES_NO_VALUE.fullmatch(predicate):
        return True
    if not _SUBJECT.match(predicate) and not _OTHER_SCRIPT.search(predicate):
        return False
    return bool(values(predicate))


def _listed(said: str) -> str | None:
    """Return the items of a list of two or more, which are one answer; of items in prose the last value."""
    items: list[str] = []
    at = 0
    while match := _ITEM.match(said, at):
        item = bare(match[1])
        items.append(item)
        at = match.end()
    if len(items) < 2:
        return None
    if any(map(is_prose, items)):
        return last_value(said[:at])
    return "; ".join(filter(None, items)) or None


def _first_sentence(text: str) -> str:
    """Return a text up to the end of its first sentence or line; formulas are one piece."""
    shown = outside(text)
    for match in _END.finditer(shown):
        end = match.start()
        if _LETTER_OF_CHOICE.match(shown) and end < _MAX_LETTER_CHARS:
            continue
        window_begin = max(0, end - _MAX_ABBREVIATION_CHARS)
        if not _ABBREVIATION.search(shown, window_begin, end):
            return text[:end]
    return text


def _begins_with_value(clause: str) -> bool:
    stripped = clause.lstrip(" *_")
    begin = len(clause) - len(stripped)
    found = formulas(clause)
    if found and found[0].begin == begin:
        return True
    return bool(_VALUE_BEGIN.match(stripped))


def _without_copula(text: str) -> str:
    """Return a text without the verb that ends a sentence in Japanese, Korean and Hindi."""
    for copula in _COPULAS:
        if text.endswith(copula) and text != copula:
            return text.removesuffix(copula).strip()
    return text


def _counted_value(said: str) -> str | None:
    """Return the number of things that a Chinese, Japanese or Korean word counts: 12 of "12个苹果"."""
    found = values(said)
    if len(found) != 1 or _CHANGED_AFTER.search(said):
        return None
    (number,) = found
    end = number.end
    if not _COUNTED.match(said, end):
        return None
    if _SCALE.match(said, end):
        return None
    return said[:end]

"""Finds phrases that announce an answer: "the answer is" in several languages, headings, "####"."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from realrl.verifier.number_spans import NUMBER_WORDS, values

_COLON = r"[:：=→]|=>|->|[ \t][-–—][ \t]|[–—][ \t]"
"""The signs that may follow a word for "answer" in every language."""

IS_CORRECT = (
    r"[*\s]+is\s+(?:the\s+)?(?:correct|right)(?:\s+(?:answer|option|choice|one))?"
    r"(?:,?\s+(?:because|since|as)\b[^.\n]{0,80})?[.!\s]*\Z"
)
"""The words that may follow the letter of a choice in a sentence that calls it right."""


class _Language(NamedTuple):
    """The words for "the answer is", as regular expressions without nested repetition."""

    nouns: str
    verbs: str
    between: str = ""
    """The words between the two, as in "the answer to the question is"."""


_LANGUAGES = {
    "English": _Language(
        r"\b(?<!to )ans(?:wers?)?\b\.?",
        r"\s{1,3}(?:(?:is|are|was|were|(?:will|would|should|must) be|has to be|turns out to be)\b"
        r"(?:\s+equal\s+to\b)?|(?:equals?|becomes|comes (?:out )?to)\b"
        r"|(?=(?:isn|aren|wasn|can|couldn|won|wouldn|doesn|shouldn|mustn)['’]t\b|cannot\b"
        r"|(?:can|could|should|must|will|would|does) not\b))",
        r"(?:\s\([^()\n]{0,40}\))?(?:,?\s+(?:to|of|for|in|we|i|you|that|here|then|therefore|thus|now)\b"
        r"(?:[^.\n:]|\.(?=\d)){0,60}?,?)?",
    ),
    "Spanish": _Language(
        r"\brespuestas?\b",
        r"\s(?:(?:es|son|ser[íi]a|ser[áa]|debe ser)\b|(?=(?:no|nunca)\s))",
        r"(?:\s+(?:final|correcta)e?s?)?",
    ),
    "French": _Language(
        r"\bréponses?\b",
        r"\s(?:(?:est|sont|serait)\b|(?=n['’]est pas\b|ne sont pas\b))",
        r"(?:\s+(?:finale|correcte|exacte)s?)?",
    ),
    "German": _Language(r"\bantwort(?:en)?\b", r"\s(?:ist|sind|lautet|lauten|beträgt|wäre)\b"),
    "Portuguese": _Language(
        r"\brespostas?\b",
        r"\s(?:(?:é|são|será|seria)(?!\w)|(?=(?:não|nunca)\s))",
        r"(?:\s+(?:final|correta)s?)?",
    ),
    "Italian": _Language(
        r"\brispost[ae]\b",
        r"\s(?:(?:è|e'|sono|sarà)(?!\w)|(?=(?:non|mai)\s))",
        r"(?:\s+(?:finale|corretta))?",
    ),
    "Russian": _Language(r"\bответ(?:ом)?\b", r"\s(?:(?:равен|равна|равно|будет|является|это)\b|(?=не\s))"),
    "Chinese": _Language(
        r"答案", r"\s?(?:应该|應該|应|應|就)?(?:是|为|為|等于|等於|选|選)|(?=(?:并|並|绝|絕)?不)"
    ),
    "Japanese": _Language(r"答え?|解答|正解", r"は、?"),
    "Korean": _Language(r"정?답", r"[은는]\s?"),
    "Arabic": _Language(
        r"(?:الجواب|الإجابة|الاجابة)",
        r"\s(?:(?:هو|هي|يساوي|تساوي)\b|(?=ليس))",
        r"(?:\s+(?:النهائي|النهائية|الصحيح|الصحيحة))?",
    ),
    "Hindi": _Language(r"उत्तर", r"\s+(?:है(?!\w)|(?=[-+$\d\\(]))"),
    "Vietnamese": _Language(
        r"\b(?:đáp án|đáp số|câu trả lời)\b",
        r"\s(?:(?:là|bằng)\b|(?=không\s))",
        r"(?:\s+(?:cuối cùng|đúng))?",
    ),
}

_AFTER_NOUN = r"[\"'”’)\]*_`]{0,4}"
_MARKS = r"(?:[\s:：`]|\*\*|__)*"


def _composed(pattern: str) -> str:
    """Return a pattern for letters with accents, whether they are one character or two."""
    decomposed = unicodedata.normalize("NFD", pattern)
    if decomposed == pattern:
        return pattern
    return f"(?:{pattern}|{decomposed})"


def _link(language: _Language) -> re.Pattern[str]:
    """Return the pattern of the text between the noun and the answer."""
    between = _composed(language.between)
    verbs = _composed(language.verbs)
    return re.compile(
        rf"{_AFTER_NOUN}{between}{_AFTER_NOUN}(?:{verbs}|[ \t]?(?:{_COLON}))(?:[*_](?=\s)|\}})?{_MARKS}",
        re.IGNORECASE,
    )


_LINKS = {name: _link(language) for name, language in _LANGUAGES.items()}
_NOUN = re.compile(
    "|".join(f"(?P<{name}>{_composed(language.nouns)})" for name, language in _LANGUAGES.items())
    + r"|(?P<hashes>(?<!#)####(?!#))|(?P<choose>\b(?:choose|pick|select)\b)|(?P<chosen>[故应應][选選])",
    re.IGNORECASE,
)
_HEADING_BEFORE = re.compile(r"[\W_]*(?:(?:the|my|our|final|correct|short|numerical)\s+)*", re.IGNORECASE)
_HEADING_AFTER = re.compile(rf"[^\w\n$\\(\[+-]{{0,8}}\n{_MARKS}")
_SUPPOSED = re.compile(
    r"\b(?:(?:if|whether|suppose|assume|assuming|unless)\b(?:\s+that)?(?:\s+(?:the|your|my|our|this|final|correct))*"
    r"|other|another|previous|initial|wrong|incorrect)\s+\Z",
    re.IGNORECASE,
)
_FINAL = re.compile(r"\bfinal\s+(?=answer\b)", re.IGNORECASE)
_JUDGED = re.compile(
    r"(?:indeed|also|therefore)?\s?(?:correct|incorrect|wrong|reasonable|consistent|verified|confirmed|plausible)\b",
    re.IGNORECASE,
)
_CHOICE = re.compile(
    r"\s+(?:the\s+)?(?:option|choice|answer)\s+(?=\(?[A-J]\)?\s*(?:[.!,]|\Z|\n))"
    r"|\s+(?=\([A-J]\)\s*(?:[.!,]|\Z|\n))",
    re.IGNORECASE,
)
_CHOSEN = re.compile(r"[:：]?\s*(?=\(?[A-J])")
_HASHES = re.compile(r"[ \t*]*")
_VALUE_LINE = re.compile(
    r"[-+]?\s?(?:[$€£¥₹]|\\[$(\[A-Za-z])?\s?[-+]?\.?\d(?!\d{0,2}[.)][ \t]+\w)|[$\\]|\(?[A-J]\)?\s*(?:\n|\Z)"
    rf"|{NUMBER_WORDS.pattern}\s*$",
    re.IGNORECASE | re.MULTILINE,
)


_MAX_SUPPOSED_CHARS = 40
"""The largest number of characters of a supposition before the word for "answer"."""
_MAX_HEADING_CHARS = 60
"""The largest number of characters before that word in a heading."""
MAX_LAST_WORDS = 300
"""The largest number of characters of the sentence that ends a text."""
_ONE_VALUE = r"(?:[a-zA-Z](?:_\d)? ?= ?)?(?=[^\s,]{0,50}\d)[\w$\\{}()^./+=√π-]{1,50}"
_SENTENCE = (
    r"(?:\A|(?<=[.!?:]\s)|(?<=\n))\s*(?:(?:so|thus|therefore|hence|then|finally|and),?\s+){0,2}(?:the\s+)?"
)
_LETTER = r"[*(]{0,3}(?-i:[A-J])[*)]{0,3}"
_END = r"[.\s$]{0,3}\Z"
_LAST_WORDS = re.compile(
    rf"{_SENTENCE}(?:only |real |two |three )?(?:solutions|roots|zeros|values)(?: of [^.,\n]{{1,40}}?)?"
    r" are:?\s+"
    rf"(?P<values>{_ONE_VALUE}(?:(?:,| and| or|, and|, or) {_ONE_VALUE}){{1,6}}){_END}"
    rf"|{_SENTENCE}(?:correct |right |best )?(?:option|choice) is:?\s+(?P<letter>{_LETTER}){_END}"
    rf"|{_SENTENCE}(?:option|choice)\s+(?P<chosen>{_LETTER})(?={IS_CORRECT})"
    rf"|\A\s*(?P<alone>{_LETTER}){_END}",
    re.IGNORECASE,
)

_DENIES = re.compile(
    r"(?:not|never|no\s(?:es|son|puede)|cannot|isn|aren|wasn|can|couldn|won|wouldn|doesn|shouldn|mustn|could|should|must|will|would"
    r"|does|nunca|n['’]est pas|ne sont pas|nicht|nie|não|non|mai|не|không)\b|(?:并|並|绝|絕)?不|ليس",
    re.IGNORECASE,
)
"""The words after a phrase that says what the answer is not."""
_CLAUSE_END = re.compile(r"[,;:!?。，；、\n]|\.(?!\d)|\Z")


def announced_at(text: str) -> int | None:
    """Return where the answer begins that the last phrase announces; None without a phrase.

    A phrase that says what the answer is not counts only if no other phrase says what it is, and if it names
    the last value of the text. Without a phrase, a text may end in a sentence that states solutions, or a
    choice.
    """
    denied = None
    matches = list(_NOUN.finditer(text))
    for match in reversed(matches):
        end = _announced(text, match)
        if end is None:
            continue
        if not _DENIES.match(text, end):
            return end
        if denied is None:
            denied = end
    if denied is not None and _names_last_value(text, denied):
        return denied
    last_words = _LAST_WORDS.search(text, max(0, len(text) - MAX_LAST_WORDS))
    if last_words is None or last_words.lastgroup is None:
        return None
    return last_words.start(last_words.lastgroup)


def final_answer_at(text: str, begin: int) -> int | None:
    """Return where the answer begins that the last "final answer is" after a place announces; else None."""
    found = None
    for match in _FINAL.finditer(text, begin):
        noun = _NOUN.match(text, match.end())
        if noun is None:
            continue
        end = _announced(text, noun)
        if end is not None and not _DENIES.match(text, end):
            found = end
    return found


def _names_last_value(text: str, begin: int) -> bool:
    """Return whether the clause that begins there has a value in it, and nothing after it has one."""
    clause_end = _CLAUSE_END.search(text, begin)
    end = clause_end.start() if clause_end else len(text)
    clause = text[begin:end]
    rest = text[end:]
    return bool(values(clause)) and not values(rest)


def _announced(text: str, match: re.Match[str]) -> int | None:
    """Return where the answer begins that a word announces.

    It announces none if it is a supposition ("if the answer is"), speaks of another answer, or judges one.
    """
    kind = match.lastgroup
    begin, end = match.span()
    if kind == "hashes":
        return _after_hashes(text, end)
    if kind == "choose":
        return _end(_CHOICE.match(text, end))
    if kind == "chosen":
        return _end(_CHOSEN.match(text, end))
    if kind is None:
        return None
    window_begin = max(0, begin - _MAX_SUPPOSED_CHARS)
    if _SUPPOSED.search(text, window_begin, begin):
        return None
    link = _LINKS[kind]
    linked = _end(link.match(text, end))
    if linked is None:
        return _under_heading(text, begin, end)
    if _JUDGED.match(text, linked):
        return None
    return linked


def _after_hashes(text: str, end: int) -> int | None:
    """Return where the answer of "#### 42" begins; None for a heading of that level.

    A heading is told by its words, or by its number ("#### 2. The next step"), unless it is the last line.
    """
    begin = _end(_HASHES.match(text, end)) or end
    if _VALUE_LINE.match(text, begin):
        return begin
    line_end = text.find("\n", begin)
    is_last = line_end < 0 or not text[line_end:].strip()
    return begin if is_last else None


def _under_heading(text: str, begin: int, end: int) -> int | None:
    """Return where the text under "**Final Answer**" begins, if the heading is alone on its line."""
    window_begin = max(0, begin - _MAX_HEADING_CHARS)
    line_begin = text.rfind("\n", window_begin, begin) + 1
    if line_begin == 0 and begin > _MAX_HEADING_CHARS:
        return None
    before = _HEADING_BEFORE.fullmatch(text, line_begin, begin)
    if before:
        return _end(_HEADING_AFTER.match(text, end))
    return None


def _end(match: re.Match[str] | None) -> int | None:
    return match.end() if match else None

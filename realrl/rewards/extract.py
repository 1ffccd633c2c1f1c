r"""Finds the answer in a model's text.

Three places are looked at, each only where the one before is missing: the last balanced `\boxed{…}`, what
follows the last "answer is", the last number. The order is that of the graders of Qwen2.5-Math
(https://github.com/QwenLM/Qwen2.5-Math) and AReaL (https://github.com/inclusionAI/AReaL).
"""

from __future__ import annotations

import re
from collections import deque

TAIL_CHARS = 20_000
"""Phrases and numbers are looked for in so much of a text's end; boxes in all of it."""

_BRACE = re.compile(r"\\{1,2}(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_CONNECTOR = re.compile(
    r"(?:[\s$,;&]|\\[()\[\],;! ]|\\q?quad|\\text\{[^{}]{0,40}\}|and\b|or\b|[A-Za-z](?:_\w)?\s?=)*"
)
_PHRASE = re.compile(
    r"answers?\b(?:\s+(?:to|of|for)\b[^.\n:]{0,80}?)?\W{0,3}?"
    r"(?:\s(?:is|are|should be|must be)\b|[:=\uff1a])[:\s*]*|^####\s*|答案[是为:\uff1a]\s*",
    re.IGNORECASE | re.MULTILINE,
)
_FORMULA = re.compile(
    r"\$\$[^$]{1,500}\$\$|\$[^$\n]{1,500}\$|\\\[(?:(?!\\\]).){1,500}\\\]|\\\((?:(?!\\\)).){1,500}\\\)",
    re.DOTALL,
)
_SENTENCE = re.compile(rf"(?:{_FORMULA.pattern}|[^\n.]|\.(?=\S)){{0,1000}}", re.DOTALL)
_DELIMITER = re.compile(r"(?<!\\)\$|\\[()\[\]]|\*\*|__")
_QUIET = re.compile(r"\\[a-z]+\{[^{}]*\}|\\[a-z]+", re.IGNORECASE)
_SAYS = re.compile(r".*\b(?:is|are|be)\b\s*:?", re.DOTALL)
_FILLER = re.compile(r"(?:thus|therefore|then|simply|just|exactly|indeed)\s+", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]{3,}")

_DIGITS = r"(?:[1-9]\d{0,2}(?:,\d{3}){1,12}(?!,?\d)|\d+)"
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}.])[-+])?(?<![A-Za-z\d√])"
    rf"(?:\d*\\[dt]?frac\{{\d+\}}\{{\d+\}}|{_DIGITS}(?:\.\d+)?(?:/{_DIGITS}(?:\.\d+)?)?|(?<![\d.])\.\d+)%?"
)


def extract_answer(text: str) -> str | None:
    """The answer as it is written, without delimiters of formulas; None where there is none."""
    boxed = boxed_answer(text)
    if boxed is not None:
        return boxed or None
    tail = text[-TAIL_CHARS:].replace("−", "-")
    return _phrased(tail) or _last_value(tail)


def is_prose(text: str) -> bool:
    """Three words or more beside what LaTeX commands hold."""
    return len(_WORD.findall(_QUIET.sub("", text))) > 2


def boxed_answer(text: str) -> str | None:
    r"""What the last box holds; boxes joined by no more than "and", "or" or a comma are one list.

    So `\boxed{3} or \boxed{4}` is the answer "3; 4", and neither 3 nor 4.
    """
    boxes = _boxes(text)
    if not boxes:
        return None
    run = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        begin, end = box[1], run[0][0]
        if not 0 <= end - begin <= 80 or not _CONNECTOR.fullmatch(text, begin, end):
            break
        run.insert(0, box)
    contents = dict.fromkeys(content for _, _, content in run)
    return "; ".join(filter(None, contents))


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """`(begin, end, content)` of each closed box, by where it begins. An escaped brace is no brace.

    In one pass, for a text may open thousands of boxes.
    """
    opened: list[tuple[bool, int, int]] = []
    spans: list[tuple[int, int, int]] = []
    for match in _BRACE.finditer(text):
        token = match.group()
        if token.endswith("{") and token != r"\{":
            opened.append((token != "{", match.start(), match.end()))
        elif token == "}" and opened:
            is_box, begin, inside = opened.pop()
            if is_box:
                spans.append((begin, inside, match.end()))
    last = sorted(spans)[-20:]
    return [(begin, end, text[inside : end - 1].strip()) for begin, inside, end in last]


def _phrased(text: str) -> str | None:
    """What the last "answer is" says: a short sentence whole, else the last number in it."""
    phrases = list(_PHRASE.finditer(text))
    if not phrases:
        return None
    sentence = _SENTENCE.match(text, phrases[-1].end()).group()
    said = _FILLER.sub("", _SAYS.sub("", _bare(sentence)).strip())
    return (_last_value(sentence) or said or None) if is_prose(said) else said or None


def _last_value(text: str) -> str | None:
    """With the whole formula that it stands in, if it stands in one; without any number the last formula."""
    numbers = deque(_NUMBER.finditer(text), maxlen=1)
    formulas = [formula for formula in _FORMULA.finditer(text) if not is_prose(formula.group())]
    if not numbers:
        return _bare(formulas[-1].group()) or None if formulas else None
    around = (f.group() for f in formulas if f.start() < numbers[0].start() < f.end())
    return next(map(_bare, around), numbers[0].group())


def _bare(text: str) -> str:
    return _DELIMITER.sub("", text).strip().rstrip(".,;:!").strip()

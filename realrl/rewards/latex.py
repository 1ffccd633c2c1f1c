"""Brings what LaTeX, Unicode and plain text spell in many ways to one spelling. Meaning is `reading`'s."""

from __future__ import annotations

import re

_CHARACTERS = str.maketrans(
    {
        **{"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty "},
        **{"≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∪": r"\cup "},
        **{"∈": r"\in ", "°": r"^\circ ", "²": "^2", "³": "^3", "⟨": r"\langle ", "⟩": r"\rangle "},
        **{"θ": r"\theta ", "∅": r"\emptyset ", "，": ",", "（": "(", "）": ")", "\uff1a": ":", "％": "%"},
        **{"\t": " ", "\n": " ", "\0": " ", "~": " ", "€": r"\$", "£": r"\$"},
    }
)
_COMMANDS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), "frac"),
    **dict.fromkeys(("textbf", "mathrm", "mbox", "textnormal", "textit", "textrm", "mathbf", "rm"), "text"),
    **dict.fromkeys(("mathit", "boldsymbol", "bm", "operatorname", "vec", "hbox", "textsf"), "text"),
    **{"leq": "le", "geq": "ge", "leqslant": "le", "geqslant": "ge", "lt": "<", "gt": ">", "neq": "ne"},
    **{"lbrace": "{", "rbrace": "}", "varnothing": "emptyset", "degree": "circ", "land": "text{ and }"},
    **{"lor": "text{ or }", "bmod": "mod", "ast": "cdot", "colon": ":"},
    **{"arctg": "arctan", "tg": "tan", "ctg": "cot", "cosec": "csc"},
    **dict.fromkeys(("lvert", "rvert", "mid"), "|"),
}
_PLAIN = {"<", ">", ":", "|"}
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_SILENT = re.compile(
    r"\\(?:left|right|displaystyle|limits|[bB]igg?[lr]?|mathstrut|strut|hline)(?![A-Za-z])|\\!|\\?\$"
)
_SPACE = re.compile(r"(?<!\\)\\(?:q?quad(?![A-Za-z])|[,:; ])|(?<!\\)\\(?=\s)")
_NOTHING = re.compile(r"\s*\{\s*,\s*\}\s*|,\s*\\!|\\!|(?<=\d)\\,(?=\d{3}(?!\d))")
_ESCAPED = re.compile(r"\\\\(?=[A-Za-z{}(),;!])")
_AND = re.compile(r"\\text\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_SEPARATORS = re.compile(r"\s*,\s+|\s*[,;]*\s*;[\s,;]*")
_EDGES = re.compile(r"^[\s.,;:*]+(?<!\.)|[\s.,;:*]+$")

_LONE = r"(\\[A-Za-z]+|[A-Za-z\d])"
_ARGUMENT = re.compile(rf"\s*(?:{_LONE}|(?=(\{{)))")
_ROOT = re.compile(rf"\\sqrt\s*(\[[^\[\]]*\])?\s*{_LONE}")
_RADICAL = re.compile(r"√\s*(\d+|[A-Za-z])")
_CALL = re.compile(r"(?<![A-Za-z\\])sqrt\s*(?:\(([^()]*)\)|\{)")
_MIXED = re.compile(r"(?<![\d.}/^_])(\d+)\s+(\d+)\s*/\s*(\d+)(?!\d)")
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3}(?: \d{3})+)(?![\d,])")
_GAP = re.compile(r"(?<=\d)\s+(?=\d)")
_SUBSCRIPT = re.compile(r"_\s*([A-Za-z\d])\s+(?=\S)")
_NAMES = re.compile(r"(?<![A-Za-z\\_{])(pi|theta|alpha|beta|infinity|infty)(?![A-Za-z])")
_LETTER_TEXT = re.compile(r"\\text\s*\{\s*([A-Za-z]'*|[-\d.,;/\s]+)\s*\}")
_CIRCLE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)")
_TIGHT = re.compile(r"(\\[A-Za-z]+)\s+(?=[A-Za-z])|\s+")


def clean(expression: str) -> str:
    r"""One spelling: `\frac`, `\text`, `\le` and so on, whole braces, `;` between what is listed with spaces.

    A comma with a space after it is never part of a number, one without may be. Spaces stay only in `\text`
    and after commands.
    """
    text = expression.translate(_CHARACTERS)
    text = text if r"\begin" in text else _ESCAPED.sub(r"\\", text)
    text = _COMMAND.sub(_renamed, text)
    text = _NOTHING.sub("", text)
    text = _SILENT.sub("", text)
    text = _AND.sub(";", _SPACE.sub(" ", text))
    text = _CIRCLE.sub(r"^\\circ ", _LETTER_TEXT.sub(r" \1 ", text))
    text = _spelled_numbers(_whole_braces(text))
    text = text.replace("**", "^").replace("<=", r"\le ").replace(">=", r"\ge ")
    return _squeezed(_SEPARATORS.sub(";", _EDGES.sub("", text.replace("!=", r"\ne "))))


def _renamed(match: re.Match[str]) -> str:
    name = _COMMANDS.get(match[1])
    if name is None:
        return match[0]
    return name if name in _PLAIN else "\\" + name


def _spelled_numbers(text: str) -> str:
    text = _THOUSANDS.sub(lambda match: match[1].replace(" ", ""), text)
    text = _SUBSCRIPT.sub(r"_{\1}", text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    return _GAP.sub(";", text)


def _whole_braces(text: str) -> str:
    r"""`\frac12`, `\sqrt2` and `sqrt(2)` with the braces that they lack."""
    text = _RADICAL.sub(r"\\sqrt{\1}", text).replace("√(", "sqrt(")
    text = _CALL.sub(lambda match: r"\sqrt{" + (match[1] + "}" if match[1] is not None else ""), text)
    text = _NAMES.sub(lambda match: "\\" + match[1].replace("infinity", "infty") + " ", text)
    text = _braced(text, r"\frac", 2)
    return _ROOT.sub(lambda match: rf"\sqrt{match[1] or ''}{{{match[2]}}}", text)


def _braced(text: str, command: str, num_arguments: int) -> str:
    """With braces around each argument of `command`."""
    head, *parts = text.split(command)
    for part in parts:
        head += command
        for _ in range(num_arguments):
            match = _ARGUMENT.match(part)
            if not match:
                break
            end = closing(part, match.end()) if match[2] else match.end()
            head += part[match.start() : end].strip() if match[2] else f"{{{match[1]}}}"
            part = part[end:]
        head += part
    return head


def closing(text: str, start: int) -> int:
    """Just after the brace that closes the one at `start`, or the text's end; an escaped one is no brace."""
    depth = 0
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.end()
    return len(text)


def _squeezed(text: str) -> str:
    r"""Without spaces, but for those in `\text{…}`, between words, and after a command."""
    parts = re.split(r"(\\text\s*\{[^{}]*\})", text)
    for index, part in enumerate(parts):
        if index % 2:
            parts[index] = r"\text{" + part[part.index("{") + 1 :]
        else:
            words = re.sub(r"(?<=[A-Za-z]{2})\s+(?=[A-Za-z])|(?<=[\d}])\s+(?=[A-Za-z]{2})", "\0", part)
            parts[index] = _TIGHT.sub(lambda m: f"{m[1]} " if m[1] else "", words).replace("\0", " ")
    return "".join(parts)

r"""Replaces the characters that Unicode has in many forms by LaTeX or ASCII.

    ½ ─▶ \frac{1}{2}     x⁴ ─▶ x^{4}     √ ─▶ \sqrt     ≤ ─▶ \le     𝑥, ｘ ─▶ x     λ ─▶ \lambda

Source: Unicode 16, UAX #15 (NFKC) for compatibility forms, UAX #44 for the names of Greek letters.
"""

from __future__ import annotations

import re
import unicodedata

_SIGNS = {
    **{"−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-"},
    **{"×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "•": r"\cdot ", "∗": "*", "÷": "/"},
    **{"∕": "/", "⁄": "/", "∞": r"\infty ", "±": r"\pm ", "∓": r"\mp "},
    **{"≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx "},
    **{"≡": r"\equiv ", "∼": r"\sim ", "∈": r"\in ", "∉": r"\notin ", "∪": r"\cup ", "∩": r"\cap "},
    **{"∖": r"\setminus ", "∅": r"\emptyset ", "∧": r"\land ", "∨": r"\lor ", "¬": r"\neg "},
    **{"⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ", "〉": r"\rangle "},
    **{"⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil "},
    **{"∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "∂": r"\partial ", "∠": r"\angle "},
    **{"ℝ": r"\mathbb{R}", "ℂ": r"\mathbb{C}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℤ": r"\mathbb{Z}"},
    **{"°": r"^\circ ", "º": r"^\circ ", "℃": r"^\circ C", "℉": r"^\circ F", "′": "'", "″": "''"},
    **{"‘": "'", "’": "'", "“": '"', "”": '"', "…": r"\ldots ", "⋯": r"\cdots "},
    **{"→": r"\to ", "⇒": r"\Rightarrow ", "∴": r"\therefore ", "√": r"\sqrt ", "∛": r"\sqrt[3] "},
    **{"∜": r"\sqrt[4] ", "µ": r"\mu ", "Ω": r"\Omega ", "Å": r"\text{Å}", "№": "", "。": ".", "、": ", "},
    **{"∶": ":", "：": ":", "！": "", "？": "", "✓": "", "✔": "", "✅": "", "🎉": ""},
}
_TABLE = str.maketrans(_SIGNS)
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣʸ", "0123456789+-()nixy", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₐₑₒₓₙₖₘᵢⱼ", "0123456789+-()aeoxnkmij", strict=True))
_RAISED = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_LOWERED = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?)")
_VULGAR = re.compile(r"[\u00bc-\u00be\u2150-\u215e\u2189]")
_GREEK = re.compile(r"[\u0391-\u03c9\u03d1\u03d5\u03f5]")
_GREEK_VARIANTS = {"ϑ": "theta", "ϕ": "phi", "ϵ": "epsilon", "ς": "sigma"}


def spelled(text: str) -> str:
    """Return a text with each character in LaTeX or ASCII where it has such a form.

    Characters that only control the format are dropped.
    """
    if text.isascii():
        return text
    text = _VULGAR.sub(_fraction, text)
    text = _ROOT.sub(_root, text)
    text = _RAISED.sub(_superscript, text)
    text = _LOWERED.sub(_subscript, text)
    text = text.translate(_TABLE)
    # The compatibility forms of NFKC may be characters of the table, too.
    text = unicodedata.normalize("NFKC", text)
    text = text.translate(_TABLE)
    text = _GREEK.sub(_greek_command, text)
    visible = [character for character in text if unicodedata.category(character) != "Cf"]
    return "".join(visible)


def _root(match: re.Match[str]) -> str:
    command = _SIGNS[match[1]].strip()
    return f"{command}{{{match[2]}}}"


def _superscript(match: re.Match[str]) -> str:
    plain = _plain(match[0], _SUPERSCRIPTS)
    return f"^{{{plain}}}"


def _subscript(match: re.Match[str]) -> str:
    plain = _plain(match[0], _SUBSCRIPTS)
    return f"_{{{plain}}}"


def _greek_command(match: re.Match[str]) -> str:
    name = _greek(match[0])
    return f"\\{name} "


def _fraction(match: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", match[0]).partition("⁄")
    return rf"\frac{{{top}}}{{{bottom}}}"


def _plain(run: str, table: dict[str, str]) -> str:
    return "".join(table[character] for character in run)


def _greek(letter: str) -> str:
    if letter in _GREEK_VARIANTS:
        return _GREEK_VARIANTS[letter]
    _, _, last_word = unicodedata.name(letter, "").rpartition(" ")
    # Unicode spells it "lamda".
    name = last_word.lower().replace("lamda", "lambda")
    if letter.isupper():
        return name.capitalize()
    return name

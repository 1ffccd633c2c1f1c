r"""One spelling for characters: what Unicode writes in many ways becomes LaTeX or ASCII.

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
    """The text with LaTeX or ASCII for every character that has such a form; invisible ones are dropped."""
    if text.isascii():
        return text
    text = _VULGAR.sub(_fraction, text)
    text = _ROOT.sub(lambda match: f"{_SIGNS[match[1]].strip()}{{{match[2]}}}", text)
    text = _RAISED.sub(lambda match: f"^{{{_plain(match[0], _SUPERSCRIPTS)}}}", text)
    text = _LOWERED.sub(lambda match: f"_{{{_plain(match[0], _SUBSCRIPTS)}}}", text)
    text = unicodedata.normalize("NFKC", text.translate(_TABLE)).translate(_TABLE)
    text = _GREEK.sub(lambda match: f"\\{_greek(match[0])} ", text)
    return "".join(character for character in text if unicodedata.category(character) != "Cf")


def _fraction(match: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", match[0]).partition("⁄")
    return rf"\frac{{{top}}}{{{bottom}}}"


def _plain(run: str, table: dict[str, str]) -> str:
    return "".join(table[character] for character in run)


def _greek(letter: str) -> str:
    if letter in _GREEK_VARIANTS:
        return _GREEK_VARIANTS[letter]
    name = unicodedata.name(letter, "").rpartition(" ")[2].lower().replace("lamda", "lambda")
    return name.capitalize() if letter.isupper() else name

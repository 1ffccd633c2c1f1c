"""Puts data, style and scripts into one HTML file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

SCRIPTS = (
    *("data.js", "elements.js", "state.js", "plot.js", "chart.js", "curves.js", "overview.js", "phases.js"),
    *("timeline.js", "distributions.js", "samples.js", "settings.js", "notes.js", "main.js"),
)
"""In this order: a later one uses what earlier ones define."""
_PLACE = re.compile(r"/\* (style|script|data) \*/")
"""Where the template takes something in."""


def render(document: Mapping[str, Any]) -> str:
    """The page with `document` in it."""
    parts = {
        "style": _read("style.css"),
        "script": "\n".join(map(_read, SCRIPTS)),
        "data": embedded(document),
    }
    # In one pass: what is put in may hold any text, such marks included.
    return _PLACE.sub(lambda place: parts[place[1]], _read("page.html"))


def embedded(document: Mapping[str, Any]) -> str:
    """JSON that a script element can hold: ASCII alone, and nothing that HTML would take for a tag."""
    return json.dumps(_plain(document), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    """The same without NaN and infinities, which become null, and with text for what JSON does not know."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return list(map(_plain, value)) if isinstance(value, Sequence) else str(value)


def _read(name: str) -> str:
    return files(__package__).joinpath("page", name).read_text(encoding="utf-8")

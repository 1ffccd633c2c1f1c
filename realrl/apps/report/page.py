"""Puts data, style and scripts into one HTML file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

SCRIPTS = (
    "data.js",
    "elements.js",
    "state.js",
    "plot.js",
    "chart.js",
    "curves.js",
    "overview.js",
    "phases.js",
    "timeline.js",
    "distributions.js",
    "samples.js",
    "settings.js",
    "notes.js",
    "main.js",
)
"""In this order: a later one uses what earlier ones define."""
_PLACE = re.compile(r"/\* (style|script|data) \*/")
"""The marks in the template that are replaced by a part of the page."""


def render(document: Mapping[str, Any]) -> str:
    """Return the page with `document` in it."""
    parts = {
        "style": _read("style.css"),
        "script": "\n".join(map(_read, SCRIPTS)),
        "data": embedded(document),
    }
    # In one pass, because the parts may hold any text, including such marks.
    return _PLACE.sub(lambda place: parts[place[1]], _read("page.html"))


def embedded(document: Mapping[str, Any]) -> str:
    """Return JSON that a script element can hold: only ASCII, and nothing that HTML takes for a tag."""
    text = json.dumps(
        _plain(document),
        separators=(",", ":"),
        allow_nan=False,
    )
    return text.replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold.

    NaN and infinities become null, and values of unknown types become text.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return list(map(_plain, value))
    return str(value)


def _read(name: str) -> str:
    """Return the text of a file of the page."""
    return files(__package__).joinpath("page", name).read_text(encoding="utf-8")

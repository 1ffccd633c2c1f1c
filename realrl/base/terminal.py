"""Text from anywhere, made harmless for a terminal."""

from __future__ import annotations

import re
import sys

# Control characters but for line ends and tabs, marks that turn the direction of writing round, and halves
# of characters, which no encoding has.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return the text with `\x1b` and the like for what a terminal would obey, or could not show."""
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode()


def tolerate_encodings() -> None:
    """Let stdout and stderr escape what their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def show(text: str) -> None:
    """Write text to stdout, printable."""
    sys.stdout.write(printable(text))

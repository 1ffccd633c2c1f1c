"""Strings that end a response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from realrl.api.config import GenerationConfig


def ends_by(config: GenerationConfig, tokenizer: Any) -> Callable[[Sequence[int]], bool] | None:
    """Return a function that tells whether a response's last token completes a stop string of the config.

    It is None without stop strings. Engines check stop tokens themselves.
    """
    strings = config.stop
    if not strings:
        return None
    # A token of text is at least one byte, so a string that just ended lies within this many tokens.
    reach = max(len(string.encode()) for string in strings)

    def ends(response: Sequence[int]) -> bool:
        tail = tokenizer.decode(response[-reach:])
        return any(string in tail for string in strings)

    return ends

"""Strings that end a response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from realrl.api.config import GenerationConfig


def ends_by(config: GenerationConfig, tokenizer: Any) -> Callable[[Sequence[int]], bool] | None:
    """Whether a response ends with its last token, by the strings that the config names; None if there are
    none. Engines know the tokens themselves.
    """
    strings = config.stop
    # A token of text stands for a byte at least: the newest string lies within so many tokens.
    reach = max((len(string.encode()) for string in strings), default=0)

    def ends(response: Sequence[int]) -> bool:
        tail = tokenizer.decode(response[-reach:])
        return any(string in tail for string in strings)

    return ends if strings else None

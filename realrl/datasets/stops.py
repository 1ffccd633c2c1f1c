"""Strings and tokens that end a response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from realrl.api.config import GenerationConfig


def ends_by(config: GenerationConfig, tokenizer: Any) -> Callable[[Sequence[int]], bool] | None:
    """Whether a response ends with its last token, by what the config names; None if that is nothing."""
    tokens, strings = frozenset(config.stop_token_ids), config.stop
    # A token of text stands for a byte at least: the newest string lies within so many tokens.
    reach = max((len(string.encode()) for string in strings), default=0)

    def ends(response: Sequence[int]) -> bool:
        if response[-1] in tokens:
            return True
        tail = tokenizer.decode(response[-reach:]) if reach else ""
        return any(string in tail for string in strings)

    return ends if tokens or strings else None

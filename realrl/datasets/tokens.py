"""Texts as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from realrl.models.reading import read_decoder_config

_TEXTS_AT_ONCE = 1024
"""Texts that one call encodes: whoever watches the tokenizer sees that it goes on."""


def encode_texts(texts: Sequence[str], tokenizer: Any, *, add_special_tokens: bool) -> list[list[int]]:
    """The tokens of each text."""
    found: list[list[int]] = []
    for begin in range(0, len(texts), _TEXTS_AT_ONCE):
        some = list(texts[begin : begin + _TEXTS_AT_ONCE])
        found += tokenizer(some, add_special_tokens=add_special_tokens)["input_ids"]
    return found


def context_of(tokenizer: Any) -> int | None:
    """Tokens that the model takes whose directory has the tokenizer; None for one of no directory."""
    directory = Path(tokenizer.name_or_path)
    if not tokenizer.name_or_path or not (directory / "config.json").is_file():
        return None
    return read_decoder_config(directory).max_position

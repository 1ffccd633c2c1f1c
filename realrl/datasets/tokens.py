"""Encodes texts as token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from realrl.models.config import DecoderConfig
from realrl.models.registry import is_known_family, read_decoder_config

_TEXTS_AT_ONCE = 1024
"""The most texts of one call of the tokenizer."""
_CHARS_AT_ONCE = 1 << 20
"""The most characters of one call, except for one longer text. A call that takes more than seconds hangs."""


def encode_texts(texts: Sequence[str], tokenizer: Any, *, add_special_tokens: bool) -> list[list[int]]:
    """Return the token ids of each text."""
    encoded: list[list[int]] = []
    for part in _parts(texts):
        output = tokenizer(part, add_special_tokens=add_special_tokens)
        encoded += output["input_ids"]
    return encoded


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the texts in order, in lists for one call each."""
    part: list[str] = []
    num_chars = 0
    for text in texts:
        is_full = len(part) == _TEXTS_AT_ONCE or num_chars + len(text) > _CHARS_AT_ONCE
        if part and is_full:
            yield part
            part = []
            num_chars = 0
        part.append(text)
        num_chars += len(text)
    if part:
        yield part


def decoder_of(tokenizer: Any) -> DecoderConfig | None:
    """Return the config of the model in the tokenizer's directory.

    Return None if there is no such directory, or if its model is of a family of the user's own, whose rows
    are checked against the context at the start of the run.
    """
    directory = Path(tokenizer.name_or_path)
    if not tokenizer.name_or_path or not (directory / "config.json").is_file():
        return None
    return read_decoder_config(directory) if is_known_family(directory) else None

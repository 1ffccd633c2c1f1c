"""Texts as token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from realrl.models.config import DecoderConfig
from realrl.models.registry import read_decoder_config

_TEXTS_AT_ONCE, _CHARS_AT_ONCE = 1024, 1 << 20
"""Most that one call encodes, but for one long text: each call ends within seconds, or never."""


def encode_texts(texts: Sequence[str], tokenizer: Any, *, add_special_tokens: bool) -> list[list[int]]:
    """The tokens of each text."""
    found: list[list[int]] = []
    for some in _parts(texts):
        found += tokenizer(some, add_special_tokens=add_special_tokens)["input_ids"]
    return found


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """Texts in lists, each for one call."""
    part: list[str] = []
    num_chars = 0
    for text in texts:
        if part and (len(part) == _TEXTS_AT_ONCE or num_chars + len(text) > _CHARS_AT_ONCE):
            yield part
            part, num_chars = [], 0
        part.append(text)
        num_chars += len(text)
    if part:
        yield part


def decoder_of(tokenizer: Any) -> DecoderConfig | None:
    """The model whose directory has the tokenizer; None for one of no directory."""
    directory = Path(tokenizer.name_or_path)
    if not tokenizer.name_or_path or not (directory / "config.json").is_file():
        return None
    return read_decoder_config(directory)

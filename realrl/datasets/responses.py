"""Responses to learn, as token ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from realrl.datasets.tokens import encode_texts


def encode_responses(texts: Sequence[str], tokenizer: Any, end: int) -> list[list[int]]:
    """The tokens of each response, with one `end` after them.

    A response may already end with the text of that token, and blanks after it, as what a chat template has
    made does.
    """
    end_text = re.escape(tokenizer.convert_ids_to_tokens(end))
    written_end = re.compile(rf"(?:{end_text}\s*)+\Z")
    bare = [written_end.sub("", text) for text in texts]
    return [[*ids, end] for ids in encode_texts(bare, tokenizer, add_special_tokens=False)]


def end_of_sequence(tokenizer: Any) -> int:
    """The token that ends a response to be learned.

    Raises:
        ValueError: the tokenizer has none.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"{tokenizer.name_or_path}: its tokenizer has no eos_token, which ends each response; "
            "give one in tokenizer_config.json"
        )
    return tokenizer.eos_token_id

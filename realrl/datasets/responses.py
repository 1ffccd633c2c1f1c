"""Responses to learn, as token ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from realrl.datasets.tokens import encode_texts


def encode_responses(texts: Sequence[str], tokenizer: Any, end: int) -> list[list[int]]:
    """The tokens of each response, with one `end` after them.

    A response may already end with the text of that token, or of the tokenizer's own end, and blanks after
    it, as what a chat template has made does.
    """
    ends = filter(None, (tokenizer.convert_ids_to_tokens(end), tokenizer.eos_token))
    end_text = f"(?:{'|'.join(map(re.escape, ends))})"
    written_end = re.compile(rf"(?:{end_text}\s*)+\Z")
    bare = [written_end.sub("", text) for text in texts]
    return [[*ids, end] for ids in encode_texts(bare, tokenizer, add_special_tokens=False)]

"""Responses to learn: their texts and their token ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from realrl.datasets.tokens import encode_texts


def response_or_solution(response: str, solutions: Sequence[str], place: str, example: str) -> str:
    """Return the response to learn: the row's own, else its first solution that is not blank, in a box.

    Raises:
        ValueError: the row at `place` has neither; the message quotes `example`, a valid line.
    """
    if response:
        return response
    for solution in solutions:
        if solution.strip():
            return f"\\boxed{{{solution}}}"
    raise ValueError(f"{place}: neither `response` nor `solutions`; expected a line like {example}")


def encode_responses(texts: Sequence[str], tokenizer: Any, end: int) -> list[list[int]]:
    """Return the tokens of each response, with exactly one `end` after them.

    A text may already end with the text of that token or of the tokenizer's `eos_token`, and blanks after it,
    as the output of a chat template does: these are removed first.
    """
    end_text = tokenizer.convert_ids_to_tokens(end)
    end_texts = filter(None, (end_text, tokenizer.eos_token))
    any_end = "|".join(map(re.escape, end_texts))
    written_end = re.compile(rf"(?:(?:{any_end})\s*)+\Z")
    bare_texts = [written_end.sub("", text) for text in texts]
    encoded = encode_texts(bare_texts, tokenizer, add_special_tokens=False)
    return [[*ids, end] for ids in encoded]

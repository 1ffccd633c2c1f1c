"""Prompts as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, tensor


def encode_prompts(
    prompts: Sequence[str],
    places: Sequence[str],
    tokenizer: Any,
    *,
    chat: bool,
    max_prompt_tokens: int | None,
) -> list[Tensor]:
    """One int64 `[T]` a prompt, in the tokenizer's chat template if `chat` and it has one.

    Raises:
        ValueError: a prompt of no tokens or of more than `max_prompt_tokens`, if that is given, by its place,
            or a chat template that fails on one.
    """
    in_template = bool(chat and tokenizer.chat_template)
    texts = list(prompts)
    if in_template:
        texts = [_in_template(prompt, place, tokenizer) for prompt, place in zip(prompts, places)]
    encoded = tokenizer(texts, add_special_tokens=not in_template)["input_ids"]
    for place, ids in zip(places, encoded, strict=True):
        if not ids:
            raise ValueError(f"{place}: the prompt has no tokens")
        if max_prompt_tokens is not None and len(ids) > max_prompt_tokens:
            raise ValueError(
                f"{place}: the prompt has {len(ids)} tokens, but data.max_prompt_tokens is "
                f"{max_prompt_tokens}; raise that, leave this line out or set data.drop_long=true"
            )
    return [tensor(ids) for ids in encoded]


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


def _in_template(prompt: str, place: str, tokenizer: Any) -> str:
    messages = [{"role": "user", "content": prompt}]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program, and may fail in any way
        raise ValueError(
            f"data.chat: {place}: the tokenizer's chat template fails ({' '.join(str(error).split())}); "
            "mend it, or set data.chat=false"
        ) from None

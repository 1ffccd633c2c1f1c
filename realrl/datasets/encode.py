"""Prompts as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic

from torch import Tensor, tensor

from realrl.api.config import DataConfig
from realrl.datasets.messages import question_of, turns_of
from realrl.datasets.records import Row, SomeRow
from realrl.datasets.templates import named_template


class EncodedRows(Generic[SomeRow]):
    """Rows by number, with their prompts as tokens."""

    def __init__(self, rows: Sequence[SomeRow], tokenizer: Any, data: DataConfig) -> None:
        """Raises: ValueError, as `encode_prompts`, or for a prompt that is too long, if none is dropped."""
        self.notes: list[str] = []
        """What a person should know of them."""
        prompts = encode_prompts(rows, tokenizer, data.template)
        too_long = [i for i, prompt in enumerate(prompts) if len(prompt) > data.max_prompt_tokens]
        if too_long:
            self._drop(rows, prompts, too_long, data)
        dropped = set(too_long)
        self.rows = [row for i, row in enumerate(rows) if i not in dropped]
        self.prompts = [prompt for i, prompt in enumerate(prompts) if i not in dropped]

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, row: int) -> str:
        """Where the row comes from, as `file:line`."""
        return self.rows[row].place

    def query_id(self, row: int) -> str:
        """The row's name in its source, or its number there."""
        return self.rows[row].query_id

    def _drop(
        self, rows: Sequence[Row], prompts: Sequence[Tensor], too_long: list[int], data: DataConfig
    ) -> None:
        first, limit = too_long[0], f"data.max_prompt_tokens={data.max_prompt_tokens}"
        if not data.drop_long:
            raise ValueError(
                f"{rows[first].place}: the prompt has {len(prompts[first])} tokens, but"
                f" data.max_prompt_tokens is {data.max_prompt_tokens}; raise that, leave this line out or set"
                " data.drop_long=true"
            )
        if len(too_long) == len(rows):
            raise ValueError(f"data.drop_long: every prompt has more than {limit} tokens; raise that")
        self.notes.append(
            f"dropped {len(too_long)} of {len(rows)} prompts, which have more than {limit} tokens; the first"
            f" is {rows[first].place}"
        )


def encode_prompts(rows: Sequence[Row], tokenizer: Any, template: str) -> list[Tensor]:
    """One int64 `[T]` a row. `chat` is the tokenizer's own template, or none where it has none.

    Raises:
        ValueError: a prompt of no tokens or not of the template's form, or a chat template that fails on one,
            by its place.
    """
    in_chat = template == "chat" and tokenizer.chat_template
    if in_chat:
        texts = [_in_chat(row, tokenizer) for row in rows]
    else:
        form = named_template("plain" if template == "chat" else template, tokenizer)
        texts = [form.text(question_of(row.prompt, row.place, template)) for row in rows]
    encoded = tokenizer(texts, add_special_tokens=not in_chat)["input_ids"]
    for row, ids in zip(rows, encoded, strict=True):
        if not ids:
            raise ValueError(f"{row.place}: the prompt has no tokens")
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


def _in_chat(row: Row, tokenizer: Any) -> str:
    try:
        return tokenizer.apply_chat_template(turns_of(row.prompt), tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program, and may fail in any way
        raise ValueError(
            f"data.template: {row.place}: the tokenizer's chat template fails"
            f" ({' '.join(str(error).split())}); mend it, or set data.template=plain"
        ) from None

"""Prompts as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic

from torch import Tensor, tensor

from realrl.api.data import DataConfig
from realrl.datasets.messages import question_of, turns_of
from realrl.datasets.records import Row, SomeRow
from realrl.datasets.templates import named_template


class EncodedRows(Generic[SomeRow]):
    """Rows by number, with their prompts as tokens."""

    def __init__(self, rows: Sequence[SomeRow], tokenizer: Any, data: DataConfig, *, held_out: bool) -> None:
        """Leaves out what `data` says, and notes it.

        Raises:
            ValueError: as `encode_prompts`; or a prompt that is too long, if none is dropped; or no
                difficulty, where it counts; or no rows left.
        """
        self.notes: list[str] = []
        """What a person should know of them."""
        if data.difficulty and not held_out:
            rows = self._of_difficulty(rows, *data.difficulty)
        self.rows, self.prompts = self._short(rows, encode_prompts(rows, tokenizer, data.template), data)
        is_rising = data.order == "rising" and not held_out
        self.levels = [difficulty_of(row) for row in self.rows] if is_rising else []

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, row: int) -> str:
        """Where the row comes from, as `file:line`."""
        return self.rows[row].place

    def query_id(self, row: int) -> str:
        """The row's name in its source, or its number there."""
        return self.rows[row].query_id

    def _of_difficulty(self, rows: Sequence[SomeRow], least: float, most: float) -> list[SomeRow]:
        others = [row for row in rows if not least <= difficulty_of(row) <= most]
        self._note(
            rows, others, f"rows, whose difficulty is not from {least:g} to {most:g} (data.difficulty)"
        )
        return [row for row in rows if least <= row.difficulty <= most]

    def _short(
        self, rows: Sequence[SomeRow], prompts: Sequence[Tensor], data: DataConfig
    ) -> tuple[list[SomeRow], list[Tensor]]:
        limit = data.max_prompt_tokens
        too_long = [(row, len(prompt)) for row, prompt in zip(rows, prompts) if len(prompt) > limit]
        if too_long and not data.drop_long:
            row, length = too_long[0]
            raise ValueError(
                f"{row.place}: the prompt has {length} tokens, but data.max_prompt_tokens is {limit}; raise"
                " that, leave this line out or set data.drop_long=true"
            )
        what = f"prompts, which have more than data.max_prompt_tokens={limit} tokens"
        self._note(rows, [row for row, _ in too_long], what)
        kept = [(row, prompt) for row, prompt in zip(rows, prompts) if len(prompt) <= limit]
        return [row for row, _ in kept], [prompt for _, prompt in kept]

    def _note(self, rows: Sequence[Row], dropped: Sequence[Row], what: str) -> None:
        if dropped:
            first = dropped[0].place
            self.notes.append(f"dropped {len(dropped)} of {len(rows)} {what}; the first is {first}")
        if len(dropped) == len(rows):
            raise ValueError(f"data: no rows are left; {self.notes[-1]}")


def difficulty_of(row: Row) -> float:
    """A row's difficulty.

    Raises:
        ValueError: it has none.
    """
    if row.difficulty is None:
        raise ValueError(
            f"{row.place}: the row has no `difficulty`, a number, for data.difficulty and data.order; give"
            " the name that it has there as data.fields.difficulty, or data.gym.levels"
        )
    return row.difficulty


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

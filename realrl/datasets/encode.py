"""Rows as token ids: prompts, and the responses that are learned from; what is too long is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any, Generic

from torch import Tensor, tensor

from realrl.api.data import DataConfig
from realrl.datasets.conversations import question_of, turns_of
from realrl.datasets.day import templates_at
from realrl.datasets.end_tokens import learned_end, note_of_end
from realrl.datasets.records import Row, SomeRow
from realrl.datasets.responses import encode_responses
from realrl.datasets.templates import named_template
from realrl.datasets.tokens import decoder_of, encode_texts

MOST_CHARS = 1 << 24
"""A chat template that makes more of one prompt does not do what it should."""

TextOf = Callable[[SomeRow], str]


class EncodedRows(Generic[SomeRow]):
    """Rows by number, with their prompts and responses as tokens."""

    def __init__(
        self,
        rows: Sequence[SomeRow],
        tokenizer: Any,
        data: DataConfig,
        *,
        held_out: bool,
        notes: Sequence[str] = (),
        responses: Sequence[TextOf] = (),
    ) -> None:
        """Leave out what `data` says, and note it after `notes`; `responses` take a row's texts to learn.

        Raises:
            ValueError: as `encode_prompts`; or a prompt or response that is too long, if none is dropped; or
                no difficulty, where it counts; or no rows left.
        """
        self.notes = list(notes)
        """What a person should know of them."""
        self.rows = list(rows)
        self._drops_long = data.drop_long
        if data.difficulty and not held_out:
            self._keep_difficulty(*data.difficulty)
        self.prompts = encode_prompts(self.rows, tokenizer, data.template, data.date)
        self.responses: list[tuple[list[int], ...]] = [()] * len(self.rows)
        """Of each row, each with the token that ends it."""
        self._drop_long(
            "prompt", list(map(len, self.prompts)), data.max_prompt_tokens, "data.max_prompt_tokens"
        )
        if responses:
            self._add_responses(responses, tokenizer, data)
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

    def _keep_difficulty(self, least: float, most: float) -> None:
        keeps = [least <= difficulty_of(row) <= most for row in self.rows]
        what = f"rows, whose difficulty is not from {least:g} to {most:g} (data.difficulty)"
        self._note_dropped(keeps, what)
        self.rows = list(compress(self.rows, keeps))

    def _add_responses(self, texts: Sequence[TextOf], tokenizer: Any, data: DataConfig) -> None:
        end, limit = learned_end(tokenizer, data.template), data.max_response_tokens
        of_each = [encode_responses([text(row) for row in self.rows], tokenizer, end) for text in texts]
        self.responses = list(zip(*of_each, strict=True))
        if limit is not None:
            self._drop_long("response", self._longest_responses(), limit, "data.max_response_tokens")
        if decoder := decoder_of(tokenizer):
            lengths = [
                len(prompt) + longest for prompt, longest in zip(self.prompts, self._longest_responses())
            ]
            self._drop_long("prompt with its response", lengths, decoder.max_position, "the model's context")
        self.notes += note_of_end(tokenizer, end)
        self._note_ends_within(end)

    def _longest_responses(self) -> list[int]:
        return [max(map(len, responses)) for responses in self.responses]

    def _drop_long(self, what: str, lengths: Sequence[int], limit: int, name: str) -> None:
        """Drop the rows of which `what` has more tokens than a limit, or refuse them."""
        keeps = [length <= limit for length in lengths]
        if not all(keeps) and not self._drops_long:
            first, number = keeps.index(False), keeps.count(False)
            others = f"; so have {number} of {len(keeps)} rows" if number > 1 else ""
            raising = "raise that, " if name.startswith("data.") else ""
            raise ValueError(
                f"{self.place(first)}: the {what} has {lengths[first]} tokens, but {name} is {limit}{others};"
                f" {raising}leave such lines out, or set data.drop_long=true"
            )
        self._note_dropped(keeps, f"rows, whose {what} has more than {name}={limit} tokens")
        self.rows = list(compress(self.rows, keeps))
        self.prompts = list(compress(self.prompts, keeps))
        self.responses = list(compress(self.responses, keeps))

    def _note_dropped(self, keeps: Sequence[bool], what: str) -> None:
        """Say what is dropped; the dataset still has those rows.

        Raises:
            ValueError: nothing is left.
        """
        number = keeps.count(False)
        if number:
            first = self.place(keeps.index(False))
            self.notes.append(f"dropped {number} of {len(keeps)} {what}; the first is {first}")
        if number == len(keeps):
            raise ValueError(f"data: no rows are left; {self.notes[-1]}")

    def _note_ends_within(self, end: int) -> None:
        rows = [i for i, row in enumerate(self.responses) if any(end in ids[:-1] for ids in row)]
        if rows:
            self.notes.append(
                f"{len(rows)} of {len(self)} responses have the end-of-sequence token before their end, too;"
                f" the first is {self.place(rows[0])}"
            )


def difficulty_of(row: Row) -> float:
    """A row's difficulty.

    Raises:
        ValueError: it has none, or one that is no number.
    """
    value = row.difficulty
    if value is None:
        raise ValueError(
            f"{row.place}: the row has no `difficulty`, a number, for data.difficulty and data.order; give"
            " the name that it has there as data.fields.difficulty, or data.gym.levels"
        )
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(
            f"{row.place}: `difficulty` must be a number, for data.difficulty and data.order, got {value!r}"
        )
    return float(value)


def encode_prompts(
    rows: Sequence[Row], tokenizer: Any, template: str, date: str | None = None
) -> list[Tensor]:
    """One int64 `[T]` a row. `chat` is the tokenizer's own template, or none where it has none; it is told
    that it is midnight of `date`.

    Raises:
        ValueError: a prompt of no tokens or not of the template's form, or a chat template that fails on one,
            by its place.
    """
    in_chat = template == "chat" and tokenizer.chat_template
    if in_chat:
        with templates_at(date):
            texts = [_in_chat(row, tokenizer) for row in rows]
    else:
        form = named_template("plain" if template == "chat" else template, tokenizer)
        texts = [form.text(question_of(row.prompt, row.place, template)) for row in rows]
    encoded = encode_texts(texts, tokenizer, add_special_tokens=not in_chat)
    for row, ids in zip(rows, encoded, strict=True):
        if not ids:
            raise ValueError(
                f"{row.place}: the prompt has no tokens; give a question there, or leave the row out"
            )
    return [tensor(ids) for ids in encoded]


def _in_chat(row: Row, tokenizer: Any) -> str:
    try:
        text = tokenizer.apply_chat_template(turns_of(row.prompt), tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program, and may fail in any way
        raise _failing_template(row, " ".join(str(error).split()) or type(error).__name__) from None
    if len(text) > MOST_CHARS:
        raise _failing_template(row, f"it makes {len(text):,} characters of it")
    return text


def _failing_template(row: Row, why: str) -> ValueError:
    return ValueError(
        f"data.template: {row.place}: the tokenizer's chat template fails ({why}); mend it, or set"
        " data.template=plain"
    )

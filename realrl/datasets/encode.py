"""Rows as token ids: prompts, and the responses that are learned from. Rows that are too long are dropped."""

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
"""The most characters of one rendered prompt; a chat template that makes more is broken."""

TextOf = Callable[[SomeRow], str]


class EncodedRows(Generic[SomeRow]):
    """Rows by number, with their prompts and responses as token ids."""

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
        """Encode the rows, drop those that `data` excludes, and add a note of each kind of drop.

        `responses` return the response texts of a row that are learned from.

        Raises:
            ValueError: as `encode_prompts`; a prompt or response that is too long, unless these are dropped;
                no difficulty, where `data` selects by it; or no rows left.
        """
        self.notes = list(notes)
        """Messages about the rows for the user."""
        self.rows = list(rows)
        self._drops_long = data.drop_long
        if data.difficulty and not held_out:
            least, most = data.difficulty
            self._keep_difficulty(least, most)
        self.prompts = encode_prompts(self.rows, tokenizer, data.template, data.date)
        self.responses: list[tuple[list[int], ...]] = [()] * len(self.rows)
        """Token ids of each row's responses, with the end token."""
        prompt_lengths = list(map(len, self.prompts))
        self._drop_long("prompt", prompt_lengths, data.max_prompt_tokens, "data.max_prompt_tokens")
        if responses:
            self._add_responses(responses, tokenizer, data)
        self.levels: list[float] = []
        """The difficulty of each row if training takes the rows in its order, else empty."""
        is_rising = data.order == "rising" and not held_out
        if is_rising:
            self.levels = list(map(difficulty_of, self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, row: int) -> str:
        """Return where the row comes from, as `file:line`."""
        return self.rows[row].place

    def query_id(self, row: int) -> str:
        """Return the row's name in its source, or its number there."""
        return self.rows[row].query_id

    def _keep_difficulty(self, least: float, most: float) -> None:
        difficulties = map(difficulty_of, self.rows)
        keeps = [least <= difficulty <= most for difficulty in difficulties]
        what = f"rows, whose difficulty is not from {least:g} to {most:g} (data.difficulty)"
        self._note_dropped(keeps, what)
        self.rows = list(compress(self.rows, keeps))

    def _add_responses(self, text_functions: Sequence[TextOf], tokenizer: Any, data: DataConfig) -> None:
        """Encode the responses, and drop rows that are too long with them."""
        end = learned_end(tokenizer, data.template)
        encoded = []
        for text_of in text_functions:
            texts = list(map(text_of, self.rows))
            encoded.append(encode_responses(texts, tokenizer, end))
        self.responses = list(zip(*encoded, strict=True))

        limit = data.max_response_tokens
        if limit is not None:
            lengths = self._longest_responses()
            self._drop_long("response", lengths, limit, "data.max_response_tokens")
        decoder = decoder_of(tokenizer)
        if decoder:
            lengths = self._longest_sequences()
            self._drop_long("prompt with its response", lengths, decoder.max_position, "the model's context")
        self.notes += note_of_end(tokenizer, end)
        self._note_ends_within(end)

    def _longest_responses(self) -> list[int]:
        """Return the number of tokens of each row's longest response."""
        longest = []
        for responses in self.responses:
            lengths = map(len, responses)
            longest.append(max(lengths))
        return longest

    def _longest_sequences(self) -> list[int]:
        """Return the number of tokens of each row's prompt with its longest response."""
        longest_responses = self._longest_responses()
        lengths = []
        for prompt, num_response_tokens in zip(self.prompts, longest_responses, strict=True):
            lengths.append(len(prompt) + num_response_tokens)
        return lengths

    def _drop_long(self, what: str, lengths: Sequence[int], limit: int, name: str) -> None:
        """Drop the rows whose `what` has more than `limit` tokens.

        Raises:
            ValueError: there are such rows and `data.drop_long` is off, or no rows are left.
        """
        keeps = [length <= limit for length in lengths]
        if not self._drops_long and not all(keeps):
            raise self._too_long(what, lengths, keeps, f"{name} is {limit}")
        dropped = f"rows, whose {what} has more than {name}={limit} tokens"
        self._note_dropped(keeps, dropped)
        self._keep_only(keeps)

    def _keep_only(self, keeps: Sequence[bool]) -> None:
        """Drop the other rows, with their prompts and responses."""
        rows = compress(self.rows, keeps)
        prompts = compress(self.prompts, keeps)
        responses = compress(self.responses, keeps)
        self.rows = list(rows)
        self.prompts = list(prompts)
        self.responses = list(responses)

    def _too_long(self, what: str, lengths: Sequence[int], keeps: Sequence[bool], limit: str) -> ValueError:
        """Return the error for rows that are too long; `limit` names the limit and its value."""
        first = keeps.index(False)
        number = keeps.count(False)
        others = ""
        if number > 1:
            others = f"; so have {number} of {len(keeps)} rows"
        # The model's context cannot be raised by an option.
        raising = "raise that, " if limit.startswith("data.") else ""
        return ValueError(
            f"{self.place(first)}: the {what} has {lengths[first]} tokens, but {limit}{others};"
            f" {raising}leave such lines out, or set data.drop_long=true"
        )

    def _note_dropped(self, keeps: Sequence[bool], what: str) -> None:
        """Note the rows that are about to be dropped; the dataset must still have them.

        Raises:
            ValueError: no rows would be left.
        """
        number = keeps.count(False)
        if number:
            first = self.place(keeps.index(False))
            self.notes.append(f"dropped {number} of {len(keeps)} {what}; the first is {first}")
        if number == len(keeps):
            raise ValueError(f"data: no rows are left; {self.notes[-1]}")

    def _note_ends_within(self, end: int) -> None:
        """Note responses that contain the end token before their last position."""
        rows = []
        for row, responses in enumerate(self.responses):
            if any(end in ids[:-1] for ids in responses):
                rows.append(row)
        if not rows:
            return
        first = self.place(rows[0])
        self.notes.append(
            f"{len(rows)} of {len(self)} responses have the end-of-sequence token before their end, too;"
            f" the first is {first}"
        )


def difficulty_of(row: Row) -> float:
    """Return a row's difficulty.

    Raises:
        ValueError: the row has no difficulty, or one that is not a finite number.
    """
    value = row.difficulty
    if value is None:
        raise ValueError(
            f"{row.place}: the row has no `difficulty`, a number, for data.difficulty and data.order; give"
            " the name that it has there as data.fields.difficulty, or data.gym.levels"
        )
    is_number = isinstance(value, (int, float)) and math.isfinite(value)
    if not is_number:
        raise ValueError(
            f"{row.place}: `difficulty` must be a number, for data.difficulty and data.order, got {value!r}"
        )
    return float(value)


def encode_prompts(
    rows: Sequence[Row], tokenizer: Any, template: str, date: str | None = None
) -> list[Tensor]:
    """Return the token ids of each row's prompt.

    `chat` is the tokenizer's own chat template, or `plain` if it has none. A chat template that asks for the
    time is told midnight of `date`.

    Shapes: one int64 `[T]` per row.
    Raises:
        ValueError: a prompt without tokens or not of the template's form, or a chat template that fails; the
            message names the row's place.
    """
    in_chat = template == "chat" and tokenizer.chat_template
    if in_chat:
        with templates_at(date):
            texts = [_in_chat(row, tokenizer) for row in rows]
    else:
        texts = _in_named_template(rows, tokenizer, template)
    # A chat template writes the special tokens itself.
    encoded = encode_texts(texts, tokenizer, add_special_tokens=not in_chat)
    for row, ids in zip(rows, encoded, strict=True):
        if not ids:
            raise ValueError(
                f"{row.place}: the prompt has no tokens; give a question there, or leave the row out"
            )
    return list(map(tensor, encoded))


def _in_named_template(rows: Sequence[Row], tokenizer: Any, template: str) -> list[str]:
    """Return each row's prompt in a template of `TEMPLATES`; `chat` becomes `plain`."""
    name = "plain" if template == "chat" else template
    form = named_template(name, tokenizer)
    texts = []
    for row in rows:
        question = question_of(row.prompt, row.place, template)
        text = form.text(question)
        texts.append(text)
    return texts


def _in_chat(row: Row, tokenizer: Any) -> str:
    """Return a row's prompt in the tokenizer's chat template."""
    turns = turns_of(row.prompt)
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program, and may fail in any way
        why = " ".join(str(error).split()) or type(error).__name__
        raise _failing_template(row, why) from None
    if len(text) > MOST_CHARS:
        raise _failing_template(row, f"it makes {len(text):,} characters of it")
    return text


def _failing_template(row: Row, why: str) -> ValueError:
    return ValueError(
        f"data.template: {row.place}: the tokenizer's chat template fails ({why}); mend it, or set"
        " data.template=plain"
    )

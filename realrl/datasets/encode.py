"""Rows as token ids: prompts, and the responses that are learned from. Rows that are too long are dropped."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from itertools import compress
from typing import Any, Generic

from typing_extensions import Self

from realrl.api.data import DataPart, RowSet
from realrl.datasets.end_tokens import learned_end, note_of_end
from realrl.datasets.examples import load_examples, question_text
from realrl.datasets.prompt_forms import encode_prompts
from realrl.datasets.records import Row, SomeRow
from realrl.datasets.responses import encode_responses
from realrl.datasets.tokens import decoder_of

TextOf = Callable[[SomeRow], str]


class EncodedRows(Generic[SomeRow]):
    """Rows by number, with their prompts and responses as token ids."""

    def __init__(
        self,
        rows: Sequence[SomeRow],
        tokenizer: Any,
        part: DataPart,
        *,
        held_out: bool,
        notes: Sequence[str] = (),
        responses: Sequence[TextOf] = (),
    ) -> None:
        """Encode the rows, drop those that `part` excludes, and add a note of each kind of drop.

        `responses` return the response texts of a row that are learned from.

        Raises:
            ValueError: as `load_examples` and `encode_prompts`; a prompt or response that is too long, unless
                these are dropped; no difficulty, where `part` selects by it; or no rows left.
        """
        data = part.data
        self.notes = list(notes)
        """Messages about the rows for the user."""
        self.rows = list(rows)
        self.sets: tuple[RowSet, ...] = ()
        """The data sets that the rows are from, if there are several sources; in order of the rows."""
        self._section = part.section
        self._drops_long = data.drop_long
        if data.difficulty and not held_out:
            least, most = data.difficulty
            self._keep_difficulty(least, most)
        examples = load_examples(part)
        if examples and not held_out:
            self._drop_examples({question_text(example) for example in examples})
        self.prompts = encode_prompts(self.rows, tokenizer, part, examples)
        self.responses: list[tuple[list[int], ...]] = [()] * len(self.rows)
        """Token ids of each row's responses, with the end token."""
        prompt_lengths = list(map(len, self.prompts))
        self._drop_long("prompt", prompt_lengths, data.max_prompt_tokens, "data.max_prompt_tokens")
        if responses:
            self._add_responses(responses, tokenizer, part)
        is_rising = data.order == "rising" and not held_out
        self.levels = list(map(difficulty_of, self.rows)) if is_rising else []
        """The difficulty of each row if training takes the rows in its order, else empty."""

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, row: int) -> str:
        """Return where the row comes from, as `file:line`."""
        return self.rows[row].place

    def query_id(self, row: int) -> str:
        """Return the row's name in its source, or its number there."""
        return self.rows[row].query_id

    def source(self, row: int) -> str:
        """Return the name of the row's data set, or of its source, if the row has one; else empty."""
        return self.rows[row].source

    def append(self, other: Self) -> None:
        """Append the rows of another data set; notes and sets stay as they are."""
        self.rows += other.rows
        self.prompts += other.prompts
        self.responses += other.responses
        self.levels += other.levels

    def _keep_difficulty(self, least: float, most: float) -> None:
        difficulties = map(difficulty_of, self.rows)
        keeps = [least <= difficulty <= most for difficulty in difficulties]
        what = f"rows, whose difficulty is not from {least:g} to {most:g} ({self._section}.difficulty)"
        self._note_dropped(keeps, what)
        self.rows = list(compress(self.rows, keeps))

    def _drop_examples(self, questions: Collection[str]) -> None:
        """Drop the rows that are examples: their prompts would have their responses in them."""
        keeps = [question_text(row) not in questions for row in self.rows]
        self._note_dropped(keeps, f"rows, which are among {self._section}.examples")
        self.rows = list(compress(self.rows, keeps))

    def _add_responses(self, text_functions: Sequence[TextOf], tokenizer: Any, part: DataPart) -> None:
        """Encode the responses, and drop rows that are too long with them."""
        data = part.data
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
            raise ValueError(f"{self._section}: no rows are left; {self.notes[-1]}")

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

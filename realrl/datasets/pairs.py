"""Prompts with a better and a worse response, for reward models and direct preference optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from realrl.api.batch import PackedBatch, Sample, cu_seqlens_of
from realrl.api.data import DataPart
from realrl.api.traits import ReadingData
from realrl.datasets.encode import EncodedRows
from realrl.datasets.fields import QUESTIONS, Names
from realrl.datasets.records import Row, read_rows
from realrl.datasets.sides import check_no_rewards, load_sides
from realrl.datasets.sources import names_key

EXAMPLE = '{"prompt": "What is 1 + 1?", "chosen": "2", "rejected": "3"}'


class Pair(Row):
    """A better and a worse response to a prompt."""

    NAMES: ClassVar[Names] = {"prompt": QUESTIONS}

    chosen: str
    rejected: str


@dataclass(frozen=True)
class _Joined:
    """The chosen sequence and then the rejected one, each with the prompt before its response.

    Shapes: `input_ids` int64 `[T]`, `loss_mask` bool `[T]`; T = tokens of both sequences.
    """

    input_ids: Tensor
    loss_mask: Tensor
    chosen_tokens: int
    """The number of tokens of the chosen sequence, with its prompt."""


class PairDataset(EncodedRows[Pair]):
    """Pairs by row; a `realrl.api.recipe.Dataset` with the keys `input_ids`, `loss_mask` and `chosen_tokens`.

    A row's tensors hold both sequences end to end; `sequences_of` separates them.
    """

    def __init__(
        self,
        rows: Sequence[Pair],
        tokenizer: Any,
        part: DataPart,
        *,
        held_out: bool,
        notes: Sequence[str] = (),
    ) -> None:
        """Encode the pairs.

        Raises:
            ValueError: as `EncodedRows`.
        """
        responses = (attrgetter("chosen"), attrgetter("rejected"))
        super().__init__(
            rows,
            tokenizer,
            part,
            held_out=held_out,
            notes=notes,
            responses=responses,
        )
        self._pairs: list[_Joined] = []
        for prompt, both in zip(self.prompts, self.responses, strict=True):
            chosen, rejected = map(torch.tensor, both)
            pair = _joined(prompt, chosen, rejected)
            self._pairs.append(pair)

    def append(self, other: Self) -> None:
        """Append the rows of another data set; notes and sets stay as they are."""
        super().append(other)
        self._pairs += other._pairs

    def length(self, row: int) -> int:
        """Return the number of tokens of both sequences together."""
        return len(self._pairs[row].input_ids)

    def longest_sequence(self, row: int) -> int:
        """Return the number of tokens of the longer sequence."""
        pair = self._pairs[row]
        chosen_tokens = pair.chosen_tokens
        rejected_tokens = len(pair.input_ids) - chosen_tokens
        return max(chosen_tokens, rejected_tokens)

    def tensors(self, row: int) -> dict[str, Tensor]:
        """Return both sequences end to end, the chosen one first.

        Shapes: `input_ids` int64 `[T]`, `loss_mask` bool `[T]`, `chosen_tokens` int64 `[1]`; T = tokens of
            both sequences.
        """
        pair = self._pairs[row]
        return {
            "input_ids": pair.input_ids,
            "loss_mask": pair.loss_mask,
            "chosen_tokens": torch.tensor([pair.chosen_tokens]),
        }


def load_pairs(config: ReadingData, tokenizer: Any) -> tuple[PairDataset, PairDataset | None]:
    """Return the training rows of `config.data`, and its held-out rows or None.

    Raises:
        ValueError: a source that cannot be read, or a bad row; the message names its place.
    """
    check_no_rewards(config.data)

    def load(part: DataPart, held_out: bool) -> PairDataset:
        with names_key(part, held_out=held_out):
            rows, notes = read_rows(part, Pair, EXAMPLE, held_out=held_out)
            return PairDataset(rows, tokenizer, part, held_out=held_out, notes=notes)

    return load_sides(config.data, tokenizer, load)


def sequences_of(pairs: PackedBatch) -> PackedBatch:
    """Return the same tokens as two samples per pair, the chosen one first; both have the pair's row.

    The tokens keep their positions, so what is computed per token of the result also belongs to `pairs`.

    Shapes: the tensors of `pairs.tokens` `[T]`, T = packed tokens; `cu_seqlens` grows from `[N + 1]` to
        `[2N + 1]`, N = pairs.
    """
    lengths = []
    samples = []
    chosen_lengths = pairs["chosen_tokens"].tolist()
    for sample, length, chosen_length in zip(pairs.samples, pairs.lengths, chosen_lengths):
        rejected_length = length - chosen_length
        lengths += [chosen_length, rejected_length]
        # Two ids per pair: each sample's is unique, and a pair's are neighbours.
        chosen_id = 2 * sample.id
        chosen = Sample(chosen_id, sample.row)
        rejected = Sample(chosen_id + 1, sample.row)
        samples += [chosen, rejected]
    cu_seqlens = cu_seqlens_of(lengths)
    return PackedBatch(tuple(samples), cu_seqlens, pairs.tokens)


def _joined(prompt: Tensor, chosen: Tensor, rejected: Tensor) -> _Joined:
    """Return both sequences end to end; only the responses are learned from.

    Shapes: int64 `[P]`, `[C]` and `[R]`.
    """
    input_ids = torch.cat((prompt, chosen, prompt, rejected))
    no_prompt = torch.zeros_like(prompt)
    all_chosen = torch.ones_like(chosen)
    all_rejected = torch.ones_like(rejected)
    learned = torch.cat((no_prompt, all_chosen, no_prompt, all_rejected))
    loss_mask = learned.bool()
    chosen_tokens = len(prompt) + len(chosen)
    return _Joined(input_ids, loss_mask, chosen_tokens)

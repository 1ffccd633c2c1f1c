"""Prompts with a better and a worse response, for reward models and direct preference optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch, Sample, cu_seqlens_of
from realrl.api.data import DataConfig
from realrl.datasets.encode import EncodedRows
from realrl.datasets.fields import QUESTIONS, Names
from realrl.datasets.records import Row, names_key, read_rows

EXAMPLE = '{"prompt": "What is 1 + 1?", "chosen": "2", "rejected": "3"}'


class Pair(Row):
    """A better and a worse response to a prompt."""

    NAMES: ClassVar[Names] = {"prompt": QUESTIONS}

    chosen: str
    rejected: str


@dataclass(frozen=True)
class _Joined:
    """Both sequences end to end, the chosen one first, each with the prompt before it."""

    input_ids: Tensor
    loss_mask: Tensor
    chosen_tokens: int


class PairDataset(EncodedRows[Pair]):
    """Pairs by row; a `realrl.api.recipe.Dataset` with the keys `input_ids`, `loss_mask` and `chosen_tokens`.

    A row's tensors have both sequences end to end: `sequences_of` takes them apart.
    """

    def __init__(
        self,
        rows: Sequence[Pair],
        tokenizer: Any,
        data: DataConfig,
        *,
        held_out: bool,
        notes: Sequence[str] = (),
    ) -> None:
        texts = (lambda row: row.chosen, lambda row: row.rejected)
        super().__init__(rows, tokenizer, data, held_out=held_out, notes=notes, responses=texts)
        self._pairs = [
            _joined(prompt, torch.tensor(chosen), torch.tensor(rejected))
            for prompt, (chosen, rejected) in zip(self.prompts, self.responses, strict=True)
        ]

    def length(self, row: int) -> int:
        """Tokens of both sequences."""
        return len(self._pairs[row].input_ids)

    def longest_sequence(self, row: int) -> int:
        """Tokens of the longer one."""
        pair = self._pairs[row]
        return max(pair.chosen_tokens, len(pair.input_ids) - pair.chosen_tokens)

    def tensors(self, row: int) -> dict[str, Tensor]:
        pair = self._pairs[row]
        return {
            "input_ids": pair.input_ids,
            "loss_mask": pair.loss_mask,
            "chosen_tokens": torch.tensor([pair.chosen_tokens]),
        }


def load_pairs(config: Any, tokenizer: Any) -> tuple[PairDataset, PairDataset | None]:
    """Training rows and held-out rows, if there are any, of `config.data` (a `DataConfig`).

    Raises:
        ValueError: a source that cannot be read, or a bad row, by its place.
    """
    data = config.data

    def load(held_out: bool) -> PairDataset:
        with names_key(data, held_out=held_out):
            rows, notes = read_rows(data, Pair, EXAMPLE, held_out=held_out)
            return PairDataset(rows, tokenizer, data, held_out=held_out, notes=notes)

    return load(False), load(True) if data.held_out_path else None


def sequences_of(pairs: PackedBatch) -> PackedBatch:
    """The same tokens as two samples a pair, the chosen one first; both have the pair's row.

    What is computed of it for each token fits the pairs too.
    """
    lengths = [
        length
        for whole, chosen in zip(pairs.lengths, pairs["chosen_tokens"].tolist())
        for length in (chosen, whole - chosen)
    ]
    samples = tuple(Sample(2 * s.id + which, s.row) for s in pairs.samples for which in (0, 1))
    return PackedBatch(samples, cu_seqlens_of(lengths), pairs.tokens)


def _joined(prompt: Tensor, chosen: Tensor, rejected: Tensor) -> _Joined:
    nothing = torch.zeros(len(prompt), dtype=torch.bool)
    masks = [part for response in (chosen, rejected) for part in (nothing, torch.ones_like(response).bool())]
    return _Joined(torch.cat((prompt, chosen, prompt, rejected)), torch.cat(masks), len(prompt) + len(chosen))

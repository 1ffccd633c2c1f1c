"""What decoding steps need to know of each running sequence, on the device.

    host                                                  device
    begin, follow  -- one message, if anything changed -> fields, page table, lanes
                                                          a step reads its lanes,
                                                          draws, and advances the fields
    HostBlock     <-- one block a step ------------------ drawn tokens and log-probabilities

A running sequence has a row from its admission to its end. Lanes are the places in a step's batch: each names
a row, and those beyond the batch the spare row, whose page no sequence has.
Shapes: B lanes, R rows and the spare one, P pages a sequence at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.models.graphs import size_of
from realrl.models.sampling import Drawn
from realrl.models.sequences import Rollout
from realrl.ops.upload import upload

_TOKEN, _PROMPT_LENGTH, _COUNT, _SEED = range(4)
"""Fields of a row: the newest token, and how many tokens have been drawn."""
_IS_BREAK_DUE = 3
"""The column of the drawn block behind a token and its two log-probabilities."""


class Lanes(NamedTuple):
    """A step's batch, all on the device."""

    ids: Tensor
    """The newest tokens, int64 `[B]`."""
    positions: Tensor
    """Their places in their sequences, int64 `[B]`."""
    counts: Tensor
    """Tokens drawn so far, int64 `[B]`."""
    seeds: Tensor
    """int64 `[B]`."""
    table: Tensor
    """Pages, int32 `[B, P]`."""


class DecodeState:
    """Rows on the device, and what the host has shown of them."""

    def __init__(self, num_rows: int, pages_each: int, spare_page: int, device: torch.device | str) -> None:
        self._spare_row = num_rows
        self._fields = torch.zeros(4, num_rows + 1, dtype=torch.int64, device=device)
        self._tokens, self._counts = self._fields[_TOKEN], self._fields[_COUNT]
        # The spare row's newest token is at position 0.
        self._fields[_PROMPT_LENGTH].fill_(1)
        shape = num_rows + 1, pages_each
        self._table = torch.full(shape, spare_page, dtype=torch.int32, device=device)
        most = size_of(num_rows)
        self._lanes = torch.full((most,), num_rows, dtype=torch.int64, device=device)
        self._drawn = torch.zeros(most, 4, dtype=torch.float64, device=device)
        self._is_break_marked = False
        self._shown_lanes: list[int] = []
        self._shown_pages = [0] * num_rows

    @property
    def _device(self) -> torch.device:
        return self._fields.device

    def begin(self, rollouts: Sequence[Rollout], inputs: Sequence[Tensor]) -> list[Tensor]:
        """Show rollouts that were admitted: the lanes are theirs. Returns `inputs`, which go along."""
        lanes = [rollout.row for rollout in rollouts]
        fields = torch.zeros(4, len(rollouts), dtype=torch.int64)
        fields[_PROMPT_LENGTH] = torch.tensor([len(rollout.prompt) for rollout in rollouts])
        fields[_COUNT] = torch.tensor([len(rollout.tokens) for rollout in rollouts])
        fields[_SEED] = torch.tensor([rollout.seed for rollout in rollouts])
        message = upload((torch.tensor(lanes), fields, self._pages(rollouts), *inputs), self._device)
        rows, fields, table, *inputs = message
        self._fields.index_copy_(1, rows, fields)
        self._table.index_copy_(0, rows, table)
        self._lanes[: len(lanes)].copy_(rows)
        self._shown_lanes = lanes
        return inputs

    def follow(self, rollouts: Sequence[Rollout], size: int) -> None:
        """Show which rollouts run, in `size` lanes, and pages that are new; nothing if nothing changed."""
        lanes = [rollout.row for rollout in rollouts]
        lanes += [self._spare_row] * (size - len(lanes))
        grown = [rollout for rollout in rollouts if len(rollout.pages) != self._shown_pages[rollout.row]]
        if lanes == self._shown_lanes and not grown:
            return
        rows = torch.tensor([rollout.row for rollout in grown], dtype=torch.int64)
        rows, table, shown = upload((rows, self._pages(grown), torch.tensor(lanes)), self._device)
        self._table.index_copy_(0, rows, table)
        self._lanes[:size].copy_(shown)
        self._shown_lanes = lanes

    def park_lanes(self, size: int) -> None:
        """Let all lanes be the spare row, so that a step changes nothing that a sequence has."""
        self._lanes[:size].fill_(self._spare_row)
        self._shown_lanes = [self._spare_row] * size

    def read(self, size: int) -> Lanes:
        lanes = self._lanes[:size]
        ids, prompt_lengths, counts, seeds = self._fields.index_select(1, lanes)
        table = self._table.index_select(0, lanes)
        return Lanes(ids, prompt_lengths + counts - 1, counts, seeds, table)

    def write(self, drawn: Drawn) -> None:
        """Put down what was drawn, for the host and for `advance`."""
        block = self.drawn(len(drawn.tokens))
        for column, values in enumerate(drawn):
            block[:, column].copy_(values)

    def drawn(self, size: int) -> Tensor:
        """The drawn block: token, log-probabilities, and whether a break is due, float64 `[size, 4]`."""
        return self._drawn[:size]

    def mark_break(self, is_due: bool) -> None:
        """Put down whether a break is due."""
        if is_due != self._is_break_marked:
            self._drawn[:, _IS_BREAK_DUE].fill_(is_due)
            self._is_break_marked = is_due

    def advance(self, size: int) -> Tensor:
        """Make the drawn tokens the newest ones of their rows."""
        lanes, tokens = self._lanes[:size], self._drawn[:size, 0].long()
        counts = self._counts.index_select(0, lanes) + (lanes != self._spare_row)
        self._tokens.index_copy_(0, lanes, tokens)
        self._counts.index_copy_(0, lanes, counts)
        return tokens

    def _pages(self, rollouts: Sequence[Rollout]) -> Tensor:
        """Rows of the page table, and note that they are shown."""
        table = torch.zeros(len(rollouts), self._table.shape[1], dtype=torch.int32)
        for row, rollout in zip(table, rollouts, strict=True):
            row[: len(rollout.pages)] = torch.tensor(rollout.pages, dtype=torch.int32)
            self._shown_pages[rollout.row] = len(rollout.pages)
        return table


class HostBlock:
    """A drawn block on its way to the host, which does not wait for it before it reads."""

    def __init__(self, block: Tensor) -> None:
        # From CUDA into pinned memory; a copy in any case, as the next step overwrites the block.
        self._block = block.to("cpu", non_blocking=True, copy=True)
        self._arrival: torch.cuda.Event | None = None
        if block.is_cuda:
            self._arrival = torch.cuda.Event()
            self._arrival.record()

    def read(self) -> tuple[list[tuple[int, float, float]], bool]:
        """Token and two log-probabilities of each lane, and whether a break is due."""
        if self._arrival is not None:
            self._arrival.synchronize()
        rows = self._block.tolist()
        drawn = [(int(token), logprob, raw) for token, logprob, raw, _ in rows]
        return drawn, bool(rows[0][_IS_BREAK_DUE])

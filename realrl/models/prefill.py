"""The layout of a prefill: prompts and tokens to compute, and where their keys and values go."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from realrl.api.batch import cu_seqlens_of
from realrl.models.sequences import Admission, Rollout
from realrl.ops.segments import Segments


class PackedPrefill:
    """The tokens of admitted rollouts, packed, and the cache slots in which they are written."""

    def __init__(self, admitted: Sequence[Admission], page_tokens: int) -> None:
        self.ids: list[int] = []
        self.rows: list[int] = []
        """Packed tokens to be written.

        A token occurs several times if several rollouts have pages of their own for it.
        """
        self.slots: list[int] = []
        """The slot of each of `rows`."""
        self.last: list[int] = []
        """The packed token from which each rollout continues."""
        self.rollouts: list[Rollout] = []
        """The rollouts, in the order of `last`."""
        self._page_tokens = page_tokens
        self._lengths: list[int] = []
        self._prefix: list[int] = []
        for admission in admitted:
            self._add(admission)
        prefix = torch.tensor(self._prefix, dtype=torch.int32)
        self.segments = Segments(cu_seqlens_of(self._lengths), prefix)

    def _add(self, admission: Admission) -> None:
        """Add a prompt, and what each of its rollouts has after it."""
        prompt = self._pack(admission.prompt)
        segment = self._add_segment(prompt, prefix=-1)
        # Pages that the prompt fills are shared, and written once.
        num_full = len(prompt) // self._page_tokens
        num_shared = num_full * self._page_tokens
        shared = prompt[:num_shared]
        rest = prompt[num_shared:]
        self._place(shared, admission.rollouts[0].pages, 0)

        for rollout in admission.rollouts:
            own = self._pack(rollout.tokens)
            if own:
                self._add_segment(own, prefix=segment)
            self._place([*rest, *own], rollout.pages, num_shared)
            last = own[-1] if own else prompt[-1]
            self.last.append(last)

        self.rollouts += admission.rollouts

    def _add_segment(self, rows: range, *, prefix: int) -> int:
        """Add a segment, and return its index."""
        self._lengths.append(len(rows))
        self._prefix.append(prefix)
        return len(self._lengths) - 1

    def _pack(self, tokens: Sequence[int]) -> range:
        """Append tokens, and return their rows."""
        first = len(self.ids)
        self.ids += tokens
        return range(first, len(self.ids))

    def _place(self, rows: Sequence[int], pages: Sequence[int], start: int) -> None:
        """Write rows to the positions from `start` on of a sequence with these pages."""
        size = self._page_tokens
        positions = range(start, start + len(rows))
        self.rows += rows
        self.slots += [pages[position // size] * size + position % size for position in positions]

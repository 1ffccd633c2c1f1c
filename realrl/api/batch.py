"""Samples packed end to end, with no padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One rollout of one dataset row, within one step."""

    id: int
    row: int


@dataclass(frozen=True)
class PackedBatch:
    """Samples of varying length laid end to end.

    Shapes: B samples, T tokens in all; `cu_seqlens` int32 `[B+1]`; each tensor of `tokens` `[T]`,
        of `per_sample` `[B]`.
    """

    samples: tuple[Sample, ...]
    cu_seqlens: Tensor
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    per_sample: Mapping[str, Tensor] = field(default_factory=dict)
    responses: Tensor | None = None
    """int64 `[R]`, on the device of the other tensors: the tokens of `loss_mask`. A micro-batch that an
    engine gives to a loss has them; to look for them on a device would make the host wait."""

    def __post_init__(self) -> None:
        assert len(self.cu_seqlens) == len(self.samples) + 1, "cu_seqlens does not fit the samples"
        for key, tensor in self.tokens.items():
            assert len(tensor) == self.num_tokens, f"{key}: {len(tensor)} tokens, not {self.num_tokens}"
        for key, tensor in self.per_sample.items():
            assert len(tensor) == len(self.samples), f"{key}: {len(tensor)} samples, not {len(self.samples)}"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: str) -> Tensor:
        return self.tokens[key] if key in self.tokens else self.per_sample[key]

    @property
    def num_tokens(self) -> int:
        return int(self.cu_seqlens[-1])

    @property
    def lengths(self) -> list[int]:
        return self.cu_seqlens.diff().tolist()

    def with_keys(
        self, *, tokens: Mapping[str, Tensor] | None = None, per_sample: Mapping[str, Tensor] | None = None
    ) -> PackedBatch:
        """The same samples with more keys."""
        return replace(
            self,
            tokens={**self.tokens, **(tokens or {})},
            per_sample={**self.per_sample, **(per_sample or {})},
        )

    def select(self, indices: Sequence[int]) -> PackedBatch:
        """The samples at `indices`, in that order."""
        starts = self.cu_seqlens.tolist()
        pieces = [slice(starts[i], starts[i + 1]) for i in indices]
        picked = torch.as_tensor(list(indices), dtype=torch.long)
        return PackedBatch(
            tuple(self.samples[i] for i in indices),
            cu_seqlens_of(piece.stop - piece.start for piece in pieces),
            {
                key: _joined([tensor[piece] for piece in pieces], tensor)
                for key, tensor in self.tokens.items()
            },
            {key: tensor[picked.to(tensor.device)] for key, tensor in self.per_sample.items()},
        )

    def unpacked(self, key: str) -> list[Tensor]:
        """One tensor a sample: its tokens' values, or `[1]`."""
        if not self.samples:
            return []
        if key in self.per_sample:
            return list(self.per_sample[key].split(1))
        return list(self.tokens[key].split(self.lengths))

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch with every tensor but `cu_seqlens` on `device`."""
        return replace(
            self,
            tokens={key: tensor.to(device) for key, tensor in self.tokens.items()},
            per_sample={key: tensor.to(device) for key, tensor in self.per_sample.items()},
            responses=None if self.responses is None else self.responses.to(device),
        )


def cu_seqlens_of(lengths: Iterable[int]) -> Tensor:
    """Cumulative lengths, int32 `[B+1]`."""
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def pack(
    samples: Sequence[Sample],
    tokens: Mapping[str, Sequence[Tensor]],
    per_sample: Mapping[str, Sequence[Tensor]] | None = None,
) -> PackedBatch:
    """Lay one tensor a sample end to end, for each key; at least one token key gives the lengths."""
    lengths = [len(tensor) for tensor in next(iter(tokens.values()))]
    return PackedBatch(
        tuple(samples),
        cu_seqlens_of(lengths),
        {key: _joined(list(tensors)) for key, tensors in tokens.items()},
        {key: _joined(list(tensors)) for key, tensors in (per_sample or {}).items()},
    )


def concatenated(*batches: PackedBatch) -> PackedBatch:
    """The samples of several batches that have the same keys, one batch after the other."""
    first, lengths = batches[0], [length for batch in batches for length in batch.lengths]
    return PackedBatch(
        tuple(sample for batch in batches for sample in batch.samples),
        cu_seqlens_of(lengths),
        {key: torch.cat([batch.tokens[key] for batch in batches]) for key in first.tokens},
        {key: torch.cat([batch.per_sample[key] for batch in batches]) for key in first.per_sample},
    )


def _joined(tensors: list[Tensor], like: Tensor | None = None) -> Tensor:
    if tensors:
        return torch.cat(tensors)
    return torch.empty(0) if like is None else like[:0]

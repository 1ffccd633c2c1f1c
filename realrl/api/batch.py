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
    """The indices of the tokens of `loss_mask`: int64 `[R]`, on the device of the other tensors. A
    micro-batch that an engine gives to a loss has them; to look for them on a device would make the host
    wait."""

    def __post_init__(self) -> None:
        num_samples = len(self.samples)
        assert len(self.cu_seqlens) == num_samples + 1, "cu_seqlens does not fit the samples"
        num_tokens = self.num_tokens
        for key, tensor in self.tokens.items():
            found = len(tensor)
            assert found == num_tokens, f"{key}: {found} tokens, not {num_tokens}"
        for key, tensor in self.per_sample.items():
            found = len(tensor)
            assert found == num_samples, f"{key}: {found} samples, not {num_samples}"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: str) -> Tensor:
        if key in self.tokens:
            return self.tokens[key]
        return self.per_sample[key]

    @property
    def num_tokens(self) -> int:
        """Tokens of all samples."""
        return int(self.cu_seqlens[-1])

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample."""
        lengths: list[int] = self.cu_seqlens.diff().tolist()
        return lengths

    def with_keys(
        self, *, tokens: Mapping[str, Tensor] | None = None, per_sample: Mapping[str, Tensor] | None = None
    ) -> PackedBatch:
        """Return the same samples with more keys."""
        return replace(
            self,
            tokens={**self.tokens, **(tokens or {})},
            per_sample={**self.per_sample, **(per_sample or {})},
        )

    def select(self, indices: Sequence[int]) -> PackedBatch:
        """Return the samples at `indices`, in that order."""
        starts = self.cu_seqlens.tolist()
        spans = [slice(starts[i], starts[i + 1]) for i in indices]
        picked = torch.as_tensor(list(indices), dtype=torch.long)
        samples = [self.samples[i] for i in indices]
        lengths = [span.stop - span.start for span in spans]
        tokens = {}
        for key, tensor in self.tokens.items():
            pieces = [tensor[span] for span in spans]
            tokens[key] = torch.cat(pieces) if pieces else tensor[:0]
        per_sample = {}
        for key, tensor in self.per_sample.items():
            per_sample[key] = tensor[picked.to(tensor.device)]
        return PackedBatch(
            tuple(samples),
            cu_seqlens_of(lengths),
            tokens,
            per_sample,
        )

    def unpacked(self, key: str) -> list[Tensor]:
        """Return one tensor for each sample: the values of its tokens, or `[1]`."""
        if not self.samples:
            return []
        lengths = self.lengths
        if key in self.per_sample:
            lengths = [1] * len(self.samples)
        parts = self[key].split_with_sizes(lengths)
        return list(parts)

    def to(self, device: torch.device | str) -> PackedBatch:
        """Return the same batch with every tensor but `cu_seqlens` on `device`."""
        responses = None
        if self.responses is not None:
            responses = self.responses.to(device)
        return replace(
            self,
            tokens=_moved(self.tokens, device),
            per_sample=_moved(self.per_sample, device),
            responses=responses,
        )


def cu_seqlens_of(lengths: Iterable[int]) -> Tensor:
    """Return the cumulative lengths, int32 `[B+1]`."""
    sums = torch.tensor([0, *lengths]).cumsum(0)
    return sums.to(torch.int32)


def pack(
    samples: Sequence[Sample],
    tokens: Mapping[str, Sequence[Tensor]],
    per_sample: Mapping[str, Sequence[Tensor]] | None = None,
    dtypes: Mapping[str, torch.dtype] | None = None,
) -> PackedBatch:
    """Lay one tensor for each sample end to end, for each key.

    The keys of `tokens` have one number per token, and give the lengths; without any, no sample has tokens.
    The keys of `per_sample` have one number each. `dtypes` are the types of keys where there are no samples.
    """
    lengths = [0] * len(samples)
    if tokens:
        of_any_key = next(iter(tokens.values()))
        lengths = [len(tensor) for tensor in of_any_key]
        _check_lengths(samples, tokens)

    return PackedBatch(
        tuple(samples),
        cu_seqlens_of(lengths),
        _joined(tokens, dtypes or {}),
        _joined(per_sample or {}, dtypes or {}),
    )


def _joined(columns: Mapping[str, Sequence[Tensor]], dtypes: Mapping[str, torch.dtype]) -> dict[str, Tensor]:
    """Return the tensors of each key end to end; without any, an empty one of the key's type."""
    joined: dict[str, Tensor] = {}
    for key, tensors in columns.items():
        joined[key] = torch.cat(list(tensors)) if tensors else torch.empty(0, dtype=dtypes.get(key))
    return joined


def _check_lengths(samples: Sequence[Sample], tokens: Mapping[str, Sequence[Tensor]]) -> None:
    """Check that all keys of a sample have the same number of elements."""
    (first, reference), *others = tokens.items()
    for key, tensors in others:
        for sample, one, other in zip(samples, reference, tensors, strict=True):
            assert len(one) == len(other), (
                f"sample {sample.id} has {len(one)} elements of {first} but {len(other)} of {key}"
            )


def concatenated(*batches: PackedBatch) -> PackedBatch:
    """Return the samples of several batches with the same keys, one batch after the other."""
    samples: list[Sample] = []
    lengths: list[int] = []
    for batch in batches:
        samples += batch.samples
        lengths += batch.lengths
    first = batches[0]
    tokens = {}
    for key in first.tokens:
        parts = [batch.tokens[key] for batch in batches]
        tokens[key] = torch.cat(parts)
    per_sample = {}
    for key in first.per_sample:
        parts = [batch.per_sample[key] for batch in batches]
        per_sample[key] = torch.cat(parts)
    return PackedBatch(
        tuple(samples),
        cu_seqlens_of(lengths),
        tokens,
        per_sample,
    )


def _moved(tensors: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    """Return every tensor on `device`, under its key."""
    moved = {}
    for key, tensor in tensors.items():
        moved[key] = tensor.to(device)
    return moved

"""The samples that one worker holds, by job, key and sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch, Sample, cu_seqlens_of, pack
from realrl.api.messages import KeyMove
from realrl.layouts.layout import Layout, Part, Pattern
from realrl.layouts.plan import plan
from realrl.layouts.topology import Topology
from realrl.program.instructions import Move
from realrl.realloc.transfer import TransferSettings, execute

Samples = dict[str, dict[int, Tensor]]
"""1-D tensors by key and sample."""


class SampleStore:
    """Keeps what calls made here, and what moves brought here, until the job is forgotten."""

    def __init__(self, rank: int, topology: Topology, settings: TransferSettings) -> None:
        self._rank, self._topology, self._settings = rank, topology, settings
        self._jobs: dict[int, Samples] = {}

    def put(self, job: int, batch: PackedBatch, keys: Sequence[str]) -> None:
        """Keep `keys` of a batch, one tensor a sample."""
        for key in keys:
            for sample, tensor in zip(batch.samples, batch.unpacked(key), strict=True):
                self._of(job, key)[sample.id] = tensor.detach().cpu().contiguous()

    def get(self, job: int, key: str, sample: int) -> Tensor:
        return self._jobs[job][key][sample]

    def forget(self, job: int) -> None:
        self._jobs.pop(job, None)

    def move(self, instruction: Move) -> None:
        """This rank's part of a move. Collective: over the instruction's ranks."""
        transfer = plan(*move_layouts(instruction.moves), self._topology)
        source = {
            _local(key, sample): self.get(instruction.job, key, sample)
            for move in instruction.moves
            for key in move.dtypes
            for sample in move.source.get(self._rank, ())
        }
        target = {
            (key, sample): torch.empty(move.lengths[sample], dtype=getattr(torch, dtype))
            for move in instruction.moves
            for key, dtype in move.dtypes.items()
            for sample in move.target.get(self._rank, ())
        }
        by_name = {_local(key, sample): tensor for (key, sample), tensor in target.items()}
        execute(transfer, source, by_name, rank=self._rank, settings=self._settings)
        for (key, sample), tensor in target.items():
            self._of(instruction.job, key)[sample] = tensor

    def _of(self, job: int, key: str) -> dict[int, Tensor]:
        return self._jobs.setdefault(job, {}).setdefault(key, {})


def move_layouts(keys: Sequence[KeyMove]) -> tuple[Layout, Layout]:
    """Who holds which samples, and who lacks which: each key of a sample is a tensor."""
    return tuple(
        Layout(tuple(pattern for move in keys for pattern in _patterns(move, getattr(move, side))))
        for side in ("source", "target")
    )


def batch_of(
    samples: Sequence[Sample],
    columns: Mapping[str, Sequence[Tensor]],
    per_sample: frozenset[str],
    dtypes: Mapping[str, torch.dtype],
) -> PackedBatch:
    """A call's inputs, packed; `dtypes` matter where there is no sample."""
    columns = {key: tensors or [torch.empty(0, dtype=dtypes[key])] for key, tensors in columns.items()}
    tokens = {key: tensors for key, tensors in columns.items() if key not in per_sample}
    singles = {key: tensors for key, tensors in columns.items() if key in per_sample}
    if tokens and samples:
        _check_lengths(samples, tokens)
        return pack(samples, tokens, singles)
    return PackedBatch(
        tuple(samples),
        cu_seqlens_of([0] * len(samples)),
        {key: torch.cat(list(tensors)) for key, tensors in tokens.items()},
        {key: torch.cat(list(tensors)) for key, tensors in singles.items()},
    )


def _check_lengths(samples: Sequence[Sample], tokens: Mapping[str, Sequence[Tensor]]) -> None:
    (first, reference), *others = tokens.items()
    for key, tensors in others:
        for sample, one, other in zip(samples, reference, tensors, strict=True):
            assert len(one) == len(other), (
                f"sample {sample.id} has {len(one)} elements of {first} but {len(other)} of {key}"
            )


def _patterns(move: KeyMove, samples_of: Mapping[int, Sequence[int]]) -> Iterator[Pattern]:
    ranks: dict[int, list[int]] = {}
    for rank, samples in samples_of.items():
        for sample in samples:
            ranks.setdefault(sample, []).append(rank)
    for key in move.dtypes:
        for sample, members in ranks.items():
            name = _local(key, sample)
            yield Pattern(name, (Part(tuple(members), (0,), (move.lengths[sample],), name, (0,)),))


def _local(key: str, sample: int) -> str:
    return f"{key}/{sample}"

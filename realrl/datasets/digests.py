"""Digests of a run's rows: the same for every process that reads the same rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import torch

from realrl.api.recipe import Dataset


class RowsDigest(msgspec.Struct, frozen=True):
    """One side of a run's data."""

    num_rows: int
    checksum: str


class DataDigest(NamedTuple):
    """Both sides of a run's data."""

    rows: RowsDigest
    held_out: RowsDigest | None


def digest_rows(dataset: Dataset) -> RowsDigest:
    """A digest of all that a rank may look up in the rows: tokens, solutions, difficulty, whatever they have.

    Where a row comes from, as a file's name and line, is left out: files may move.
    """
    digest = hashlib.blake2b(digest_size=16)
    records = getattr(dataset, "rows", None)
    for row in range(len(dataset)):
        for part in _parts(dataset, row, None if records is None else records[row]):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return RowsDigest(len(dataset), digest.hexdigest())


def _parts(dataset: Dataset, row: int, record: Any) -> Iterator[bytes]:
    for key, tensor in sorted(dataset.tensors(row).items()):
        yield f"{key} {tensor.dtype}".encode()
        yield tensor.contiguous().view(torch.uint8).numpy().tobytes()
    if isinstance(record, msgspec.Struct):
        yield msgspec.msgpack.encode(msgspec.structs.replace(record, place=""))

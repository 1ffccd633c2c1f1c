"""Digests of a run's rows: equal in every process that reads the same rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import torch

from realrl.api.recipe import Dataset


class RowsDigest(msgspec.Struct, frozen=True):
    """The digest of one side of a run's data."""

    num_rows: int
    checksum: str


class DataDigest(NamedTuple):
    """The digests of all sides of a run's data."""

    rows: RowsDigest
    held_out: RowsDigest | None
    more_sets: Mapping[str, RowsDigest] = {}
    """Those of further sets that the run is evaluated on, by name."""


def digest_rows(dataset: Dataset) -> RowsDigest:
    """Return a digest of everything that a rank may read of the rows: tensors and fields.

    A row's place is excluded: files may move.
    """
    digest = hashlib.blake2b(digest_size=16)
    records = getattr(dataset, "rows", None)
    num_rows = len(dataset)
    for row in range(num_rows):
        record = None if records is None else records[row]
        for part in _parts(dataset, row, record):
            # The length makes the boundaries of the parts count, not only their bytes.
            length = len(part).to_bytes(8, "little")
            digest.update(length)
            digest.update(part)
    return RowsDigest(num_rows, digest.hexdigest())


def _parts(dataset: Dataset, row: int, record: Any) -> Iterator[bytes]:
    """Yield the bytes of a row's tensors, in the order of their keys, and of its record."""
    tensors = dataset.tensors(row)
    for key, tensor in sorted(tensors.items()):
        yield f"{key} {tensor.dtype}".encode()
        tensor_bytes = tensor.contiguous().view(torch.uint8)
        yield tensor_bytes.numpy().tobytes()
    if isinstance(record, msgspec.Struct):
        placeless = msgspec.structs.replace(record, place="")
        yield msgspec.msgpack.encode(_without_new_fields(placeless))
        metadata = getattr(record, "metadata", None)
        if metadata:
            # As JSON: msgpack has no numbers as large as these may be.
            text = json.dumps(metadata, sort_keys=True)
            yield text.encode()


def _without_new_fields(record: Any) -> dict[str, Any]:
    """Return the fields of a record, without its metadata, and without a source if it has none.

    Rows without them have the digest that they had before rows had these fields, so that older runs resume.
    """
    fields = msgspec.structs.asdict(record)
    fields.pop("metadata", None)
    if not fields.get("source"):
        fields.pop("source", None)
    return fields

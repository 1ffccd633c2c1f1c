"""Records of Parquet files and of Hugging Face datasets; needs `realrl[data]`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

HUGGING_FACE = "hf:"
"""What a path of a Hugging Face dataset begins with."""


def read_parquet(path: str, key: str, columns: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row, under its place, with those of `columns` that there are. `key` is what gave the path.

    Raises:
        ValueError: no such file, another kind of file, or no pyarrow.
    """
    parquet = _module("pyarrow.parquet", key)
    try:
        file = parquet.ParquetFile(Path(path).expanduser())
        names = [name for name in file.schema_arrow.names if name in columns]
        rows = (row for batch in file.iter_batches(columns=names) for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield f"{path}: row {number}", row
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{key}: {path!r}: cannot read this Parquet file ({_line(error)})") from None


def read_hugging_face(
    path: str, split: str, key: str, columns: Collection[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a split of `hf:OWNER/NAME[:CONFIG]` or `hf:FOLDER`, as `read_parquet` gives it.

    Raises:
        ValueError: no such dataset or split, or no `datasets`.
    """
    datasets = _module("datasets", key)
    try:
        rows = _split_of(datasets, path.removeprefix(HUGGING_FACE), split)
    except Exception as error:  # of many kinds: the network's, the hub's, the files'
        raise ValueError(f"{key}: {path}: cannot read the split {split!r} of it ({_line(error)})") from None
    rows = rows.select_columns([name for name in rows.column_names if name in columns])
    for number, row in enumerate(rows, 1):
        yield f"{path}[{split}]: row {number}", row


def _split_of(datasets: Any, name: str, split: str) -> Any:
    """Of a dataset that `save_to_disk` wrote, of a folder of data files, or of the hub's."""
    name, _, config = name.partition(":")
    folder = Path(name).expanduser()
    if (folder / "dataset_dict.json").is_file():
        return datasets.load_from_disk(str(folder))[split]
    if (folder / "state.json").is_file():
        return datasets.load_from_disk(str(folder))
    return datasets.load_dataset(str(folder) if folder.is_dir() else name, config or None, split=split)


def _module(name: str, key: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise ValueError(f"{key}: this dataset needs the package {package}; install realrl[data]") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

"""Records of Parquet files and of Hugging Face datasets; needs `realrl[data]`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from realrl.base.hub.errors import explain
from realrl.base.hub.fetch import fetch
from realrl.base.hub.repo import Repo, parse_repo

HUGGING_FACE = "hf:"
"""What a path of a Hugging Face dataset begins with."""

_CARD = ("README.md", ".gitattributes")
"""Files that a dataset of the Hub has; they are small."""


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
    path: str, split: str, key: str, columns: Collection[str], commit: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a split of `hf:OWNER/NAME[@REVISION][:CONFIG]` or `hf:FOLDER`, as `read_parquet` gives it.

    `commit` is that of a dataset of the Hub; left out, its revision as it is now.

    Raises:
        ValueError: no such dataset or split, no access to it, or no `datasets`.
    """
    datasets = _module("datasets", key)
    # That a dataset has no card, or one without a header, matters to nobody here.
    logging.getLogger("huggingface_hub.repocard").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    rows = _split_of(datasets, path, split, key, commit)
    rows = rows.select_columns([name for name in rows.column_names if name in columns])
    for number, row in enumerate(rows, 1):
        yield f"{path}[{split}]: row {number}", row


def is_on_hub(path: str) -> bool:
    """Whether a path names a dataset of the Hub, and no folder that exists."""
    return path.startswith(HUGGING_FACE) and not os.path.exists(_folder(path))


def dataset_commit(path: str, key: str) -> str | None:
    """The commit that a dataset of the Hub has now; None for what is no dataset of the Hub.

    Raises:
        ValueError: no such dataset, or no access to it. `key` is what gave the path.
    """
    if not is_on_hub(path):
        return None
    repo = _repo(path, key)
    try:
        return fetch(repo, _CARD, check_access=True).commit
    except ValueError as error:
        raise ValueError(f"{key}: {path}: {error}") from None


def check_no_dataset(path: str, key: str) -> None:
    """Raise ValueError where a path that is no file would name a dataset of the Hub."""
    repo = parse_repo("dataset", path.partition(":")[0])
    if repo and "/" in repo.name and not Path(path).suffix and not os.path.exists(path):
        raise ValueError(
            f"{key}: there is no file {path!r}; for the dataset of the Hugging Face Hub, give"
            f" {key}={HUGGING_FACE}{path}, with its configuration after a colon if it has several, as"
            f" {HUGGING_FACE}{path}:main"
        )


def _split_of(datasets: Any, path: str, split: str, key: str, commit: str | None) -> Any:
    """Of a dataset that `save_to_disk` wrote, of a folder of data files, or of the Hub's."""
    folder = _folder(path)
    try:
        if (folder / "dataset_dict.json").is_file():
            return datasets.load_from_disk(str(folder))[split]
        if (folder / "state.json").is_file():
            return datasets.load_from_disk(str(folder))
        config = path.removeprefix(HUGGING_FACE).partition(":")[2] or None
        if folder.is_dir():
            return datasets.load_dataset(str(folder), config, split=split)
        repo = _repo(path, key)
        rows = datasets.load_dataset(repo.name, config, split=split, revision=commit or repo.revision)
    except Exception as error:  # of many kinds: the network's, the Hub's, the files'
        why = None if os.path.exists(folder) else explain(error, _repo(path, key))
        why = why or f"cannot read the split {split!r} of it ({_line(error)})"
        raise ValueError(f"{key}: {path}: {why}") from None
    _check_commit(rows, path, key, commit)
    return rows


def _check_commit(rows: Any, path: str, key: str, commit: str | None) -> None:
    """`datasets` takes what it has in its cache, of whatever commit, where the Hub is out of reach."""
    files = [file["filename"] for file in rows.cache_files]
    if commit and not all(commit in file for file in files):
        raise ValueError(
            f"{key}: {path}: the Hugging Face Hub is out of reach, and the cache has another commit of it"
            f" than {commit} ({files[0]}); start where there is a network"
        )


def _repo(path: str, key: str) -> Repo:
    repo = parse_repo("dataset", _name(path))
    if repo is None:
        raise ValueError(
            f"{key}: {path}: expected {HUGGING_FACE}OWNER/NAME[@REVISION][:CONFIG], or {HUGGING_FACE}FOLDER"
            " with a folder that exists"
        )
    return repo


def _name(path: str) -> str:
    return path.removeprefix(HUGGING_FACE).partition(":")[0]


def _folder(path: str) -> Path:
    return Path(_name(path)).expanduser()


def _module(name: str, key: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise ValueError(f"{key}: this dataset needs the package {package}; install realrl[data]") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

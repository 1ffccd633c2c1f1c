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
"""The prefix of paths of Hugging Face datasets."""

_CARD = ("README.md", ".gitattributes")
"""Small files that a dataset of the Hub has: fetching them tells its commit."""


def read_parquet(
    path: str, key: str, columns: Collection[str] | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the record of each row, with those of `columns` that the file has (None: all).

    `key` is the config key that gives the path.

    Raises:
        ValueError: no such file, another kind of file, or pyarrow is not installed.
    """
    parquet = _module("pyarrow.parquet", key)
    try:
        file = parquet.ParquetFile(Path(path).expanduser())
        names = [name for name in file.schema_arrow.names if columns is None or name in columns]
        number = 0
        for batch in file.iter_batches(columns=names):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", row
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{key}: {path!r}: cannot read this Parquet file ({_line(error)})") from None


def read_hugging_face(
    path: str, split: str, key: str, columns: Collection[str] | None, commit: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a split of `hf:OWNER/NAME[@REVISION][:CONFIG]` or `hf:FOLDER` as `read_parquet` does.

    `commit` pins a dataset of the Hub; None reads its revision as it is now.

    Raises:
        ValueError: no such dataset or split, no access to it, or `datasets` is not installed.
    """
    datasets = _module("datasets", key)
    # It warns of datasets without a card, which do no harm here.
    logging.getLogger("huggingface_hub.repocard").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    rows = _split_of(datasets, path, split, key, commit)
    if columns is not None:
        names = [name for name in rows.column_names if name in columns]
        rows = rows.select_columns(names)
    for number, row in enumerate(rows, 1):
        yield f"{path}[{split}]: row {number}", row


def is_on_hub(path: str) -> bool:
    """Return whether a path names a dataset of the Hub; a folder that exists takes precedence."""
    return path.startswith(HUGGING_FACE) and not os.path.exists(_folder(path))


def dataset_commit(path: str, key: str) -> str | None:
    """Return the current commit of a dataset of the Hub, or None if the path names another source.

    `key` is the config key that gives the path.

    Raises:
        ValueError: no such dataset, or no access to it.
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
    if repo is None or "/" not in repo.name:
        return
    is_file_name = bool(Path(path).suffix)
    if not is_file_name and not os.path.exists(path):
        raise ValueError(
            f"{key}: there is no file {path!r}; for the dataset of the Hugging Face Hub, give"
            f" {key}={HUGGING_FACE}{path}, with its configuration after a colon if it has several, as"
            f" {HUGGING_FACE}{path}:main"
        )


def _split_of(datasets: Any, path: str, split: str, key: str, commit: str | None) -> Any:
    """Return a split as a `datasets.Dataset`; errors name the config key and the path."""
    try:
        rows = _local_split(datasets, path, split)
        if rows is not None:
            return rows
        repo = _repo(path, key)
        revision = commit or repo.revision
        rows = datasets.load_dataset(repo.name, _config_name(path), split=split, revision=revision)
    # The errors are of many kinds: the network's, the Hub's, the files'.
    except Exception as error:
        why = None
        if not os.path.exists(_folder(path)):
            why = explain(error, _repo(path, key))
        if not why:
            why = f"cannot read the split {split!r} of it ({_line(error)})"
        raise ValueError(f"{key}: {path}: {why}") from None
    _check_commit(rows, path, key, commit)
    return rows


def _local_split(datasets: Any, path: str, split: str) -> Any:
    """Return a split of a folder, written by `save_to_disk` or of data files; None if there is no folder."""
    folder = _folder(path)
    has_splits = (folder / "dataset_dict.json").is_file()
    if has_splits or (folder / "state.json").is_file():
        saved = datasets.load_from_disk(str(folder))
        return saved[split] if has_splits else saved
    if folder.is_dir():
        return datasets.load_dataset(str(folder), _config_name(path), split=split)
    return None


def _check_commit(rows: Any, path: str, key: str, commit: str | None) -> None:
    """Raise ValueError if the rows are of another commit.

    When the Hub is out of reach, `datasets` returns what its cache has, of any commit.
    """
    if not commit:
        return
    files = [file["filename"] for file in rows.cache_files]
    for file in files:
        if commit not in file:
            raise ValueError(
                f"{key}: {path}: the Hugging Face Hub is out of reach, and the cache has another commit of it"
                f" than {commit} ({files[0]}); start where there is a network"
            )


def _repo(path: str, key: str) -> Repo:
    """Return the dataset of the Hub that a path names."""
    repo = parse_repo("dataset", _name(path))
    if repo is None:
        raise ValueError(
            f"{key}: {path}: expected {HUGGING_FACE}OWNER/NAME[@REVISION][:CONFIG], or {HUGGING_FACE}FOLDER"
            " with a folder that exists"
        )
    return repo


def _name(path: str) -> str:
    return path.removeprefix(HUGGING_FACE).partition(":")[0]


def _config_name(path: str) -> str | None:
    """Return the part after the colon: a configuration of the dataset."""
    name = path.removeprefix(HUGGING_FACE).partition(":")[2]
    return name or None


def _folder(path: str) -> Path:
    return Path(_name(path)).expanduser()


def _module(name: str, key: str) -> Any:
    """Import an optional package; a ValueError says how to install it."""
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise ValueError(f"{key}: this dataset needs the package {package}; install realrl[data]") from None


def _line(error: Exception) -> str:
    """Return an error's message on one line, or its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__

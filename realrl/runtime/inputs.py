"""Digests of what a run reads: the rows of its data, and the files of its models.

    rows         master: digest ──Setup──▶ every worker: its own digest ── equal, or it refuses
                          └──────────────▶ recovery points ── equal at a resume, or refused by name
    model files  master: sample ──Setup──▶ every worker: its own sample ── equal, or it refuses
                          └ every byte ──▶ recovery points ── equal at a resume, or refused by name

A sample is a file's size, its header, and blocks spread over the rest. It takes each rank milliseconds. It
differs for another model, but not for a flipped bit.

Only the master reads every byte, one file per thread, while the workers start. A file whose size, inode and
times have not changed is not read again. Weights are read only if the run does not change them, as those of a
reference or a reward model: the others come from the recovery point. The descriptions (config, tokenizer) of
every model are read.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec

from realrl.api.config import RunConfig
from realrl.api.configure import plain, sections
from realrl.api.messages import Digests
from realrl.api.recipe import Recipe
from realrl.api.traits import data_of, evals_of
from realrl.base.files import checksum
from realrl.datasets.digests import DataDigest, RowsDigest, digest_rows
from realrl.realloc.checkpoint import weight_files
from realrl.runtime.failure import RunFailed, RunRefused
from realrl.runtime.model_directories import DESCRIPTION, resolve_model
from realrl.runtime.run_data import RunData

_HEADER_LENGTH_BYTES = 8
"""The number at the beginning of a safetensors file."""
_MOST_HEADER_BYTES = 100 << 20
"""The longest header that safetensors itself reads."""
_NUM_BLOCKS = 64
_BLOCK_BYTES = 4096
_DIGEST_BYTES = 16
_READ_AT_ONCE = 4
"""Files, each in a thread: enough for a disk, and few compared with the workers' threads."""


class FileDigest(msgspec.Struct, frozen=True):
    """The content of a file, and how to tell without reading it that it has not changed."""

    num_bytes: int
    stamp: tuple[int, int, int]
    """The inode, the time of the last write, and the time of the last change, which nobody can set."""
    checksum: str


class InputDigests(msgspec.Struct, frozen=True):
    """All that a run reads."""

    rows: RowsDigest
    held_out: RowsDigest | None
    models: dict[str, dict[str, FileDigest]]
    """By model and file."""
    more_sets: dict[str, RowsDigest] = {}
    """Further sets that the run is evaluated on, by name."""


def digest_data(data: RunData) -> DataDigest:
    """Return the digests of the training rows and of all rows that the run is evaluated on."""
    held_out = None if data.held_out is None else digest_rows(data.held_out)
    more_sets = {name: digest_rows(rows) for name, rows in data.more_sets.items()}
    return DataDigest(digest_rows(data.rows), held_out, more_sets)


def sample_model(directory: Path) -> str:
    """Return a digest of a model's descriptions, and of samples of its weights."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for name in _described(directory):
        digest.update(f"{name} {checksum(directory / name)}\n".encode())

    names = _weights(directory)
    paths = [directory / name for name in names]
    with ThreadPoolExecutor(_READ_AT_ONCE) as threads:
        samples = threads.map(_sample, paths)
        for name, sample in zip(names, samples):
            digest.update(f"{name} {sample}\n".encode())
    return digest.hexdigest()


def _sample(path: Path) -> str:
    """Return a digest of the size, the header and some blocks of a safetensors file."""
    num_bytes = path.stat().st_size
    digest = hashlib.blake2b(str(num_bytes).encode(), digest_size=_DIGEST_BYTES)
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
        header = file.read(min(header_bytes, _MOST_HEADER_BYTES))
        digest.update(header)

        first = file.tell()
        last = max(first, num_bytes - _BLOCK_BYTES)
        distance = last - first
        for number in range(_NUM_BLOCKS):
            offset = distance * number // (_NUM_BLOCKS - 1)
            file.seek(first + offset)
            block = file.read(_BLOCK_BYTES)
            digest.update(block)
    return digest.hexdigest()


def digests_of(recipe: Recipe, config: RunConfig, data: DataDigest) -> Digests:
    """Return what every rank of a run must find."""
    directories = model_directories(recipe, config)
    models: dict[str, str] = {}
    for name, directory in directories.items():
        models[name] = sample_model(directory)
    return Digests(
        rows=_in_words(data.rows),
        held_out=_in_words(data.held_out),
        models=models,
        more_sets={name: _in_words(rows) for name, rows in data.more_sets.items()},
    )


def check_digests(expected: Digests, recipe: Recipe, config: RunConfig, data: RunData, rank: int) -> None:
    """Refuse to train on other rows or models than the master's.

    Raises:
        RunRefused: this rank reads something else; it is named.
    """
    found = digests_of(recipe, config, digest_data(data))
    who = f"rank {rank} on {socket.gethostname()}"
    sides = (("path", found.rows, expected.rows), ("eval_path", found.held_out, expected.held_out))
    for key, own, wanted in sides:
        if own != wanted:
            section = data_of(config)
            place = "" if section is None else plain(section)[key]
            raise _other_rows(f"data.{key}", who, own, place, wanted)

    for name, wanted in expected.more_sets.items():
        own = found.more_sets.get(name, _in_words(None))
        if own != wanted:
            raise _other_rows(f"evals.{name}.path", who, own, evals_of(config)[name].path, wanted)

    directories = model_directories(recipe, config)
    keys = model_keys(recipe, config)
    for model, sample in expected.models.items():
        if found.models[model] != sample:
            raise RunRefused(
                f"{keys[model]}: {who} has other files in {directories[model]} than the master; put the same"
                " ones on every host"
            )


def _other_rows(key: str, who: str, own: str, place: str, wanted: str) -> RunRefused:
    """Return the refusal of a rank that reads other rows than the master."""
    return RunRefused(
        f"{key}: {who} reads {own} from {place}, the master {wanted}; all ranks must read the"
        " same: give a file that stays as it is, on a disk that all hosts share, and a chat template"
        " that draws nothing"
    )


def model_keys(recipe: Recipe, config: RunConfig) -> dict[str, str]:
    """Return the config's key that names each model's directory, by model."""
    key_of_section = {id(section): f"{path}.path" for path, section in sections(config)}
    models = recipe.models(config)
    keys: dict[str, str] = {}
    for name, spec in models.items():
        section = id(spec.model)
        keys[name] = key_of_section.get(section, name)
    return keys


def _in_words(rows: RowsDigest | None) -> str:
    if rows is None:
        return "no rows"
    return f"{rows.num_rows} rows with the digest {rows.checksum}"


def model_directories(recipe: Recipe, config: RunConfig) -> dict[str, Path]:
    """Return the directory of each model of a run."""
    directories: dict[str, Path] = {}
    for name, spec in recipe.models(config).items():
        directories[name] = resolve_model(spec.model.path, spec.model.commit)
    return directories


def _weights(directory: Path) -> list[str]:
    """Return the names of the files with a model's weights."""
    try:
        return weight_files(directory)
    except ValueError as error:
        raise RunRefused(str(error)) from None


def _described(directory: Path) -> list[str]:
    """Return the names of the files that describe a model."""
    return [name for name in DESCRIPTION if (directory / name).is_file()]


class InputsReader:
    """Reads the files of a run's models in threads. Use it as a context."""

    def __init__(
        self,
        recipe: Recipe,
        config: RunConfig,
        data: DataDigest,
        known: InputDigests | None = None,
        *,
        reads_files: bool = True,
    ) -> None:
        """Begin to read.

        `data` is what was read of the rows. Files that are as they were in `known`, which was read earlier,
        are not read again.
        """
        self._data = data
        self._threads = ThreadPoolExecutor(_READ_AT_ONCE, thread_name_prefix="inputs")
        self._models: dict[str, dict[str, Future[FileDigest]]] = {}
        if not reads_files:
            return

        changed = recipe.graph(config).changed
        known_models = known.models if known else {}
        for model, directory in model_directories(recipe, config).items():
            names = _described(directory)
            if model not in changed:
                names += _weights(directory)
            self._models[model] = self._begin(directory, names, known_models.get(model, {}))

    def _begin(
        self, directory: Path, names: Iterable[str], known: Mapping[str, FileDigest]
    ) -> dict[str, Future[FileDigest]]:
        """Begin to read files of a model."""
        reads: dict[str, Future[FileDigest]] = {}
        for name in names:
            reads[name] = self._threads.submit(_digest_file, directory / name, known.get(name))
        return reads

    def all(self) -> InputDigests:
        """Wait until everything is read, and return it.

        Raises:
            RunFailed: a file cannot be read, or was written to meanwhile.
        """
        models: dict[str, dict[str, FileDigest]] = {}
        for model, reads in self._models.items():
            models[model] = {}
            for name, read in reads.items():
                models[model][name] = read.result()
        return InputDigests(self._data.rows, self._data.held_out, models, dict(self._data.more_sets))

    def close(self) -> None:
        """Do not begin to read other files."""
        self._threads.shutdown(cancel_futures=True)

    def __enter__(self) -> InputsReader:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def difference(before: InputDigests, now: InputDigests, keys: Mapping[str, str]) -> str | None:
    """Describe the first thing that a run reads now and did not read before; None if there is none.

    `keys` are the config's keys of the models' directories, by model.
    """
    if before.rows != now.rows:
        return f"data.path: {_in_words(now.rows)} now, {_in_words(before.rows)} then"
    if before.held_out != now.held_out:
        return f"data.eval_path: {_in_words(now.held_out)} now, {_in_words(before.held_out)} then"
    for name, rows in now.more_sets.items():
        # A set that is new begins with the step that the run resumes from.
        then = before.more_sets.get(name, rows)
        if then != rows:
            return f"evals.{name}.path: {_in_words(rows)} now, {_in_words(then)} then"

    for model, files in now.models.items():
        key = keys.get(model, model)
        old_files = before.models.get(model, {})
        names = files.keys() | old_files.keys()
        for name in sorted(names):
            fault = _difference_of(old_files.get(name), files.get(name))
            if fault is not None:
                return f"{key}: {name} {fault}"
    return None


def _difference_of(old: FileDigest | None, new: FileDigest | None) -> str | None:
    """Describe how a file differs from what it was; None if it does not."""
    if old is None:
        return "is new"
    if new is None:
        return "is missing"
    return None if old.checksum == new.checksum else "has other content"


def _digest_file(path: Path, before: FileDigest | None) -> FileDigest:
    """Return the digest of a file, which is `before` if the file has not changed since.

    Raises:
        RunFailed: the file cannot be read, or was written to meanwhile.
    """
    try:
        num_bytes, stamp = _stat(path)
        if before and before.num_bytes == num_bytes and before.stamp == stamp:
            return before
        found = FileDigest(num_bytes, stamp, checksum(path))
        is_same = _stat(path) == (num_bytes, stamp)
    except OSError as error:
        raise RunFailed(f"cannot read {path}: {error.strerror}") from error
    if not is_same:
        raise RunFailed(f"{path} was written to while it was read; start again when it is whole")
    return found


def _stat(path: Path) -> tuple[int, tuple[int, int, int]]:
    status = os.stat(path)
    return status.st_size, (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)

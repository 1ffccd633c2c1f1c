"""What a run reads, by digest: the rows of its data, and the files of its models.

    rows         master: digest ──Setup──▶ every worker: its own digest ── equal, or it refuses
                          └──────────────▶ recovery points ── equal at a resume, or refused by name
    model files  master: sample ──Setup──▶ every worker: its own sample ── equal, or it refuses
                          └ every byte ──▶ recovery points ── equal at a resume, or refused by name

A sample is a file's size, its header, and blocks spread over the rest. It costs each rank milliseconds, and
tells another model, though not a bit that flipped.

Every byte is read by the master alone, a file a thread, while the workers start: it costs what reading costs,
once. A file that has its size, inode and times as before is not read again. Of weights only those are read
that the run does not change, as a reference's or a reward model's: others come from the recovery point. The
descriptions (config, tokenizer) of every model are read.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec

from realrl.api.config import RunConfig
from realrl.api.configure import plain, sections
from realrl.api.messages import Digests
from realrl.api.recipe import Recipe
from realrl.api.traits import data_of
from realrl.base.files import checksum
from realrl.datasets.digests import DataDigest, RowsDigest, digest_rows
from realrl.realloc.checkpoint import weight_files
from realrl.runtime.failure import RunFailed, RunRefused
from realrl.runtime.model_directories import DESCRIPTION, resolve_model
from realrl.runtime.run_data import RunData

_HEADER_LENGTH_BYTES = 8
"""The number at the beginning of a safetensors file."""
_MOST_HEADER_BYTES = 100 << 20
"""What safetensors itself takes at most."""
_NUM_BLOCKS, _BLOCK_BYTES = 64, 4096
_READ_AT_ONCE = 4
"""Files, each in a thread: enough for a disk, and few beside the workers' threads."""


class FileDigest(msgspec.Struct, frozen=True):
    """A file, and how to tell without reading it that it is the same one."""

    num_bytes: int
    stamp: tuple[int, int, int]
    """Inode, time of the last write, and time of the last change of any kind, which nobody can set."""
    checksum: str


class InputDigests(msgspec.Struct, frozen=True):
    """All that a run reads."""

    rows: RowsDigest
    held_out: RowsDigest | None
    models: dict[str, dict[str, FileDigest]]
    """By model and file."""


def digest_data(data: RunData) -> DataDigest:
    """`digest_rows` of both sides."""
    return DataDigest(digest_rows(data.rows), None if data.held_out is None else digest_rows(data.held_out))


def sample_model(directory: Path) -> str:
    """A digest of a model's descriptions, and of samples of its weights."""
    digest = hashlib.blake2b(digest_size=16)
    for name in _described(directory):
        digest.update(f"{name} {checksum(directory / name)}\n".encode())
    names = _weights(directory)
    with ThreadPoolExecutor(_READ_AT_ONCE) as threads:
        for name, sample in zip(names, threads.map(lambda name: _sample(directory / name), names)):
            digest.update(f"{name} {sample}\n".encode())
    return digest.hexdigest()


def _sample(path: Path) -> str:
    num_bytes = path.stat().st_size
    digest = hashlib.blake2b(str(num_bytes).encode(), digest_size=16)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
        digest.update(file.read(min(length, _MOST_HEADER_BYTES)))
        first, last = file.tell(), max(file.tell(), num_bytes - _BLOCK_BYTES)
        for block in range(_NUM_BLOCKS):
            file.seek(first + (last - first) * block // (_NUM_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()


def digests_of(recipe: Recipe, config: RunConfig, data: DataDigest) -> Digests:
    """What every rank of a run must find."""
    return Digests(
        rows=_in_words(data.rows),
        held_out=_in_words(data.held_out),
        models={name: sample_model(path) for name, path in model_directories(recipe, config).items()},
    )


def check_digests(expected: Digests, recipe: Recipe, config: RunConfig, data: RunData, rank: int) -> None:
    """Refuse to train on other rows or models than the master's.

    Raises:
        RunRefused: this rank reads something else; it is named.
    """
    found = digests_of(recipe, config, digest_data(data))
    who = f"rank {rank} on {socket.gethostname()}"
    for side, key in (("rows", "path"), ("held_out", "eval_path")):
        ours, wanted = getattr(found, side), getattr(expected, side)
        if ours != wanted:
            section = data_of(config)
            place = "" if section is None else plain(section)[key]
            raise RunRefused(
                f"data.{key}: {who} reads {ours} from {place}, the master {wanted}; all ranks must read the"
                " same: give a file that stays as it is, on a disk that all hosts share, and a chat template"
                " that draws nothing"
            )
    directories, keys = model_directories(recipe, config), model_keys(recipe, config)
    for model, sample in expected.models.items():
        if found.models[model] != sample:
            raise RunRefused(
                f"{keys[model]}: {who} has other files in {directories[model]} than the master; put the same"
                " ones on every host"
            )


def model_keys(recipe: Recipe, config: RunConfig) -> dict[str, str]:
    """The config's key that names each model's directory."""
    of_section = {id(section): f"{path}.path" for path, section in sections(config)}
    return {name: of_section.get(id(spec.model), name) for name, spec in recipe.models(config).items()}


def _in_words(rows: RowsDigest | None) -> str:
    return "no rows" if rows is None else f"{rows.num_rows} rows with the digest {rows.checksum}"


def model_directories(recipe: Recipe, config: RunConfig) -> dict[str, Path]:
    """Where each model of a run lies."""
    models = {name: spec.model for name, spec in recipe.models(config).items()}
    return {name: resolve_model(model.path, model.commit) for name, model in models.items()}


def _weights(directory: Path) -> list[str]:
    try:
        return weight_files(directory)
    except ValueError as error:
        raise RunRefused(str(error)) from None


def _described(directory: Path) -> list[str]:
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
        """`known`: what was read earlier; files that are as they were are not read again."""
        changed = recipe.graph(config).changed
        self._data = data
        self._threads = ThreadPoolExecutor(_READ_AT_ONCE, thread_name_prefix="inputs")
        self._models: dict[str, dict[str, Future[FileDigest]]] = {}
        for model, directory in model_directories(recipe, config).items() if reads_files else ():
            before = known.models.get(model, {}) if known else {}
            names = _described(directory) + ([] if model in changed else _weights(directory))
            self._models[model] = {
                name: self._threads.submit(_digest_file, directory / name, before.get(name)) for name in names
            }

    def all(self) -> InputDigests:
        """Everything, once it is read.

        Raises:
            RunFailed: a file cannot be read, or was written to meanwhile.
        """
        files = {
            model: {name: read.result() for name, read in reads.items()}
            for model, reads in self._models.items()
        }
        return InputDigests(*self._data, files)

    def close(self) -> None:
        """What was not begun is not read."""
        self._threads.shutdown(cancel_futures=True)

    def __enter__(self) -> InputsReader:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def difference(before: InputDigests, now: InputDigests, keys: Mapping[str, str]) -> str | None:
    """What a run reads now that it did not read before, by the config's key; None for nothing.

    `keys`: of the config, by model.
    """
    for key, old, new in (
        ("data.path", before.rows, now.rows),
        ("data.eval_path", before.held_out, now.held_out),
    ):
        if old != new:
            return f"{key}: {_in_words(new)} now, {_in_words(old)} then"
    for model, files in now.models.items():
        old_files = before.models.get(model, {})
        for name in sorted(files.keys() | old_files.keys()):
            if fault := _difference_of(old_files.get(name), files.get(name)):
                return f"{keys.get(model, model)}: {name} {fault}"
    return None


def _difference_of(old: FileDigest | None, new: FileDigest | None) -> str | None:
    if old is None or new is None:
        return "is new" if old is None else "is missing"
    return None if old.checksum == new.checksum else "has other content"


def _digest_file(path: Path, before: FileDigest | None) -> FileDigest:
    try:
        num_bytes, stamp = _stat(path)
        if before and (before.num_bytes, before.stamp) == (num_bytes, stamp):
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

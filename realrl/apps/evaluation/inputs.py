"""The inputs of an evaluation, its model and problems: its folder takes answers to no other ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import msgspec

from realrl.apps.evaluation.benchmarks import Benchmark
from realrl.base.files import write_atomically
from realrl.datasets.conversations import turns_of

INPUTS = "inputs.json"
PROBLEMS = "problems.jsonl"
_OTHERS = {"model": "another model", "problems": "other problems"}
_OF_MODEL = (".safetensors", ".json", ".jinja")
"""Endings of files that a model's answers depend on."""
_CHUNK_BYTES = 1 << 20


def open_folder(folder: Path, model: Path, benchmarks: Sequence[Benchmark], *, is_begun: bool) -> None:
    """Write all problems into one file of the folder, `PROBLEMS`.

    `is_begun` says that the folder has answers already.

    Raises:
        ValueError: the folder cannot be written, or has answers of another model or to other problems.
    """
    lines = "".join(chain.from_iterable(map(_lines, benchmarks)))
    inputs = {
        "model": _digest_of(model),
        "problems": hashlib.blake2b(lines.encode()).hexdigest(),
    }
    before = _read(folder / INPUTS) if is_begun else inputs
    for name, digest in inputs.items():
        if before.get(name) != digest:
            raise ValueError(f"--output: {folder} is an evaluation of {_OTHERS[name]}; give another folder")
    try:
        write_atomically(folder / INPUTS, json.dumps(inputs, indent=2) + "\n")
        write_atomically(folder / PROBLEMS, lines)
    except OSError as error:
        raise ValueError(
            f"--output: cannot write to {folder} ({error.strerror}); give another folder"
        ) from None


def _read(file: Path) -> dict[str, str]:
    """Return the inputs that a folder records.

    Raises:
        ValueError: they cannot be read.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--output: cannot read {file} ({error}); give another folder") from None


def _lines(benchmark: Benchmark) -> Iterator[str]:
    """Yield the lines of a benchmark's problems in the file."""
    for problem in benchmark.problems:
        prompt = problem.prompt
        row = {
            "query_id": problem.query_id,
            "prompt": prompt if isinstance(prompt, str) else turns_of(prompt),
            "solutions": problem.solutions,
        }
        line = msgspec.json.encode(row).decode()
        yield line + "\n"


def _digest_of(model: Path) -> str:
    """Return a digest of the weights and descriptions in a model's directory."""
    digest = hashlib.blake2b()
    for file in sorted(model.iterdir()):
        if file.suffix not in _OF_MODEL:
            continue
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            while chunk := content.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()

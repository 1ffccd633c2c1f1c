"""What an evaluation is of: its folder takes answers to no other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from realrl.apps.evaluation.benchmarks import Benchmark
from realrl.base.files import write_atomically
from realrl.datasets.conversations import turns_of

INPUTS, PROBLEMS = "inputs.json", "problems.jsonl"
_OTHERS = {"model": "another model", "problems": "other problems"}
_OF_MODEL = (".safetensors", ".json", ".jinja")


def open_folder(folder: Path, model: Path, benchmarks: Sequence[Benchmark], *, is_begun: bool) -> None:
    """Write all problems into one file of the folder, `PROBLEMS`.

    Raises:
        ValueError: it cannot be written, or the folder `is_begun` and of another model or other problems.
    """
    lines = "".join(line for benchmark in benchmarks for line in _lines(benchmark))
    inputs = {"model": _digest_of(model), "problems": hashlib.blake2b(lines.encode()).hexdigest()}
    before = _read(folder / INPUTS) if is_begun else inputs
    for name in (name for name in inputs if before.get(name) != inputs[name]):
        raise ValueError(f"--output: {folder} is an evaluation of {_OTHERS[name]}; give another folder")
    try:
        write_atomically(folder / INPUTS, json.dumps(inputs, indent=2) + "\n")
        write_atomically(folder / PROBLEMS, lines)
    except OSError as error:
        raise ValueError(
            f"--output: cannot write to {folder} ({error.strerror}); give another folder"
        ) from None


def _read(file: Path) -> dict[str, str]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--output: cannot read {file} ({error}); give another folder") from None


def _lines(benchmark: Benchmark) -> Iterator[str]:
    for problem in benchmark.problems:
        prompt = problem.prompt if isinstance(problem.prompt, str) else turns_of(problem.prompt)
        row = {"query_id": problem.query_id, "prompt": prompt, "solutions": problem.solutions}
        yield msgspec.json.encode(row).decode() + "\n"


def _digest_of(model: Path) -> str:
    """Of the weights and descriptions in a model's directory."""
    digest = hashlib.blake2b()
    for file in sorted(file for file in model.iterdir() if file.suffix in _OF_MODEL):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()

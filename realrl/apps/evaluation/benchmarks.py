"""The problems that a model is evaluated on."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from realrl.api.data import DataConfig
from realrl.base.spelling import did_you_mean

if TYPE_CHECKING:
    from realrl.datasets.prompts import Problem

DATA_VARIABLE = "REALRL_MATH_DATA"

FILES = {
    "math500": ("math500.jsonl",),
    "aime24": ("aime24.jsonl",),
    "aime25": ("aime25.jsonl",),
    "amc23": ("amc23.jsonl",),
    "gsm8k": ("gsm8k.jsonl", "gsm8k_test.jsonl"),
}
"""Under which names a benchmark's file is looked for."""
_WORD = re.compile(r"[\w-]+")
"""What looks like a benchmark's name rather than a path."""
TITLES = {"math500": "MATH-500", "aime24": "AIME24", "aime25": "AIME25", "amc23": "AMC23", "gsm8k": "GSM8K"}


@dataclass(frozen=True)
class Benchmark:
    """Problems under one name."""

    name: str
    """Of its file of results, too."""
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    """What a person should know of their file."""

    @property
    def title(self) -> str:
        return TITLES.get(self.name, self.name)


def load_benchmarks(data: Sequence[str], directory: Path | None, limit: int | None) -> list[Benchmark]:
    """Each of `data`, a benchmark's name or whatever `data.path` takes; of each the first `limit` problems.

    Raises:
        ValueError: a benchmark without its file, data that cannot be read, or two of one name.
    """
    found: list[Benchmark] = []
    for source in data:
        name = (
            source if source in FILES else re.sub(r"[^\w.-]+", "-", Path(source).stem).strip("-.") or "data"
        )
        if name in {benchmark.name for benchmark in found}:
            raise ValueError(f"--data: two are named {name!r}; give each once, or rename a file")
        problems, notes = _load(str(_file(source, directory)) if source in FILES else source)
        found.append(Benchmark(name, tuple(problems[:limit]), tuple(notes)))
    return found


def _load(path: str) -> tuple[list[Problem], list[str]]:
    from realrl.datasets.prompts import load_problems  # not at the top: it takes torch, the options need none

    try:
        return load_problems(DataConfig(path=path, eval_path=path), held_out=True)
    except ValueError as error:
        if _WORD.fullmatch(path) and not Path(path).exists():
            raise _unknown(path) from None
        raise ValueError(str(error).replace("data.eval_path", "--data")) from None


def _unknown(name: str) -> ValueError:
    names = (*FILES, "sums")
    expected = f"expected {', '.join(names)} or a file of rows"
    return ValueError(f"--data: {expected}, got {name!r}{did_you_mean(name, names)}")


def _file(name: str, directory: Path | None) -> Path:
    given = directory or os.environ.get(DATA_VARIABLE)
    wanted = " or ".join(FILES[name])
    if not given:
        raise ValueError(
            f"--data: {name} is read from a file {wanted}; give its folder as --data-dir or ${DATA_VARIABLE},"
            " or a file's path in place of the name"
        )
    paths = [Path(given).expanduser() / file for file in FILES[name]]
    if path := next((path for path in paths if path.is_file()), None):
        return path
    raise ValueError(
        f"--data: {name}: expected {wanted} in {given}, found none; give another --data-dir, or a file's path"
        " in place of the name"
    )

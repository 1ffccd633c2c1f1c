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
"""The names under which a benchmark's file is looked for."""
_WORD = re.compile(r"[\w-]+")
"""A text that looks like a benchmark's name rather than a path."""
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")
"""Characters of a path that the name of its results does not have."""
TITLES = {"math500": "MATH-500", "aime24": "AIME24", "aime25": "AIME25", "amc23": "AMC23", "gsm8k": "GSM8K"}


@dataclass(frozen=True)
class Benchmark:
    """Problems under one name."""

    name: str
    """The name of its file of results, too."""
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    """What a user should know about the file of problems."""

    @property
    def title(self) -> str:
        """Its name as papers write it."""
        return TITLES.get(self.name, self.name)


def load_benchmarks(data: Sequence[str], directory: Path | None, limit: int | None) -> list[Benchmark]:
    """Return the first `limit` problems of each of `data`: a benchmark's name, or what `data.path` takes.

    Raises:
        ValueError: a benchmark without its file, data that cannot be read, or two of one name.
    """
    found: dict[str, Benchmark] = {}
    for source in data:
        is_known = source in FILES
        name = source if is_known else _name_of(source)
        if name in found:
            raise ValueError(f"--data: two are named {name!r}; give each once, or rename a file")
        path = str(_file(source, directory)) if is_known else source
        problems, notes = _load(path)
        found[name] = Benchmark(name, tuple(problems[:limit]), tuple(notes))
    return list(found.values())


def _name_of(path: str) -> str:
    """Return the name of the results on the problems at a path."""
    stem = Path(path).stem
    name = _NOT_IN_NAMES.sub("-", stem)
    return name.strip("-.") or "data"


def _load(path: str) -> tuple[list[Problem], list[str]]:
    """Return the problems at a path, and notes on them."""
    # Imported here, because it needs torch and the command's options do not.
    from realrl.datasets.prompts import load_problems

    try:
        return load_problems(DataConfig(path=path, eval_path=path), held_out=True)
    except ValueError as error:
        if _WORD.fullmatch(path) and not Path(path).exists():
            raise _unknown(path) from None
        raise ValueError(str(error).replace("data.eval_path", "--data")) from None


def _unknown(name: str) -> ValueError:
    """Return the error about a name that is neither a benchmark's nor a file's."""
    names = (*FILES, "sums")
    expected = ", ".join(names)
    hint = did_you_mean(name, names)
    return ValueError(f"--data: expected {expected} or a file of rows, got {name!r}{hint}")


def _file(name: str, directory: Path | None) -> Path:
    """Return the file of a benchmark's problems.

    Raises:
        ValueError: there is none.
    """
    given = directory or os.environ.get(DATA_VARIABLE)
    wanted = " or ".join(FILES[name])
    if not given:
        raise ValueError(
            f"--data: {name} is read from a file {wanted}; give its folder as --data-dir or ${DATA_VARIABLE},"
            " or a file's path in place of the name"
        )
    folder = Path(given).expanduser()
    for file in FILES[name]:
        path = folder / file
        if path.is_file():
            return path
    raise ValueError(
        f"--data: {name}: expected {wanted} in {given}, found none; give another --data-dir, or a file's path"
        " in place of the name"
    )

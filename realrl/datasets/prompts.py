"""Problems with checkable answers, from a file or made on the spot."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from torch import Tensor

from realrl.api.data import DataConfig
from realrl.datasets.contents import check_is_file, plain_text
from realrl.datasets.conversations import words_of
from realrl.datasets.encode import EncodedRows
from realrl.datasets.fields import ANSWERS, CONVERSATIONS, QUESTIONS, Names
from realrl.datasets.jsonl import decode
from realrl.datasets.records import Row, names_key, read_rows
from realrl.datasets.texts import answers_of
from realrl.rewards.gym import GymItem

EXAMPLE = '{"query_id": "1", "prompt": "What is 1 + 1?", "solutions": ["2"]}'

_NOTHING = re.compile(r"(?:\\boxed\{\s*\}|####|\$|\s)*")
"""Gold answers that say nothing, so that no response can match them."""


class Problem(Row):
    """A question and the answers that are right, in AReaL's schema."""

    NAMES: ClassVar[Names] = {"prompt": (*QUESTIONS, *CONVERSATIONS), "solutions": ANSWERS}

    solutions: list[str] | None = None
    """None only in a file whose solutions stand in one of their own."""
    gym: GymItem | None = None
    """For a row of reasoning-gym, what scores answers to it."""


class _Info(msgspec.Struct):
    """What a file of solutions has under a `query_id`."""

    solutions: list[str]


class PromptDataset(EncodedRows[Problem]):
    """Problems by row; a `realrl.api.recipe.Dataset` with the key `prompts`."""

    def length(self, row: int) -> int:
        """Tokens of the prompt."""
        return len(self.prompts[row])

    def tensors(self, row: int) -> dict[str, Tensor]:
        return {"prompts": self.prompts[row]}

    def prompt(self, row: int) -> str:
        """The question, without any template."""
        return words_of(self.rows[row].prompt)

    def solutions(self, row: int) -> list[str]:
        return self.rows[row].solutions

    def gym(self, row: int) -> GymItem | None:
        """What scores answers to a row of reasoning-gym."""
        return self.rows[row].gym


def load_prompts(
    data: DataConfig, tokenizer: Any, *, needs_solutions: bool = True
) -> tuple[PromptDataset, PromptDataset | None]:
    """Training rows and held-out rows, if there are any, of `data`.

    Raises:
        ValueError: a source that cannot be read, a bad row, by its place, or one without solutions, where
            these are needed.
    """

    def load(held_out: bool) -> PromptDataset:
        return _load(data, tokenizer, held_out=held_out, needs_solutions=needs_solutions)

    return load(False), load(True) if data.held_out_path else None


def load_questions(data: DataConfig, tokenizer: Any) -> PromptDataset:
    """The rows of `data.path` alone; those without solutions have an empty list of them."""
    return _load(data, tokenizer, held_out=False, needs_solutions=False)


def load_problems(
    data: DataConfig, *, held_out: bool, needs_solutions: bool = True
) -> tuple[list[Problem], list[str]]:
    """The rows of one side of `load_prompts`, too long ones among them, and notes for a person.

    Without `needs_solutions`, a row may have none.
    """
    rows, notes = read_rows(data, Problem, EXAMPLE, held_out=held_out)
    info = _read_info(data.solutions_path) if data.solutions_path else {}
    given = [_solutions(row, info) for row in rows]
    if needs_solutions:
        _check_solutions(rows, given)
    for row, solutions in zip(rows, given, strict=True):
        row.solutions = _saying(solutions)
    return rows, notes + _note_of_blank_ones(rows, given)


def _load(data: DataConfig, tokenizer: Any, *, held_out: bool, needs_solutions: bool) -> PromptDataset:
    with names_key(data, held_out=held_out):
        rows, notes = load_problems(data, held_out=held_out, needs_solutions=needs_solutions)
        return PromptDataset(rows, tokenizer, data, held_out=held_out, notes=notes)


def _read_info(path: str) -> dict[str, _Info]:
    key, example = "data.solutions_path", '{"1": {"solutions": ["2"]}}'
    try:
        content = check_is_file(path, key).read_bytes()
        found = decode(plain_text(content, path, key, example))
        return {query_id: _info(entry) for query_id, entry in msgspec.convert(found, dict[str, dict]).items()}
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        reason = getattr(error, "strerror", error)
        raise ValueError(
            f"{key}: {path!r}: cannot read solutions ({reason}); expected a JSON file like {example}"
        ) from None


def _info(entry: Mapping[str, Any]) -> _Info:
    """An entry whose answers are texts."""
    given = {"solutions": answers_of(entry["solutions"])} if "solutions" in entry else {}
    return msgspec.convert(given, _Info)


def _solutions(row: Problem, info: Mapping[str, _Info]) -> list[str] | None:
    if row.solutions is None and row.query_id in info:
        return info[row.query_id].solutions
    return row.solutions


def _saying(solutions: list[str] | None) -> list[str]:
    """Those that say something."""
    return [solution for solution in solutions or () if not _NOTHING.fullmatch(solution)]


def _check_solutions(rows: Sequence[Problem], given: Sequence[list[str] | None]) -> None:
    """Every row has an answer that a response could match, but for those with a scorer of their own."""
    lacking = [i for i, row in enumerate(rows) if not row.gym and not _saying(given[i])]
    if not lacking:
        return
    first, found = rows[lacking[0]], given[lacking[0]]
    what = "`solutions` is empty" if not found else f"no response can match the `solutions` {found!r}"
    if found is None:
        what = "no `solutions`, here or in data.solutions_path"
        if "solutions" in first.nulls:
            what = f"`{first.nulls['solutions']}` is null"
    others = f" (so are {len(lacking)} of {len(rows)} rows)" if len(lacking) > 1 else ""
    raise ValueError(f"{first.place}: {what}{others}; expected a line like {EXAMPLE}")


def _note_of_blank_ones(rows: Sequence[Problem], given: Sequence[list[str] | None]) -> list[str]:
    cut = [row for row, solutions in zip(rows, given) if len(solutions or ()) > len(row.solutions)]
    if not cut:
        return []
    return [
        f"dropped empty `solutions` of {len(cut)} of {len(rows)} rows, which have others or need none; the"
        f" first is {cut[0].place}"
    ]

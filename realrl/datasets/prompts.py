"""Problems with checkable answers, from a file or made on the spot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from realrl.api.config import DataConfig
from realrl.datasets.encode import encode_prompts
from realrl.datasets.jsonl import read_jsonl
from realrl.datasets.sums import SUMS, sums

EXAMPLE = '{"query_id": "1", "prompt": "What is 1 + 1?", "solutions": ["2"]}'


class ProblemLine(msgspec.Struct):
    """A line of a problem file, in AReaL's schema."""

    query_id: str
    prompt: str
    solutions: list[str] | None = None
    task: str = "math"


class _Info(msgspec.Struct):
    """What a file of solutions has under a `query_id`."""

    solutions: list[str]


@dataclass(frozen=True)
class Problem:
    """A question and the answers that are right."""

    query_id: str
    prompt: str
    solutions: list[str]
    place: str
    """Where it comes from, as `file:line`."""


class PromptDataset:
    """Problems by row, their prompts tokenized; a `realrl.api.recipe.Dataset` with the key `prompts`."""

    def __init__(
        self,
        rows: Sequence[Problem],
        tokenizer: Any,
        *,
        max_prompt_tokens: int,
        chat: bool,
        drop_long: bool = False,
    ) -> None:
        self.notes: list[str] = []
        """What a person should know of it."""
        texts, places = [row.prompt for row in rows], [row.place for row in rows]
        limit = None if drop_long else max_prompt_tokens
        prompts = encode_prompts(texts, places, tokenizer, chat=chat, max_prompt_tokens=limit)
        kept = [i for i, prompt in enumerate(prompts) if len(prompt) <= max_prompt_tokens]
        self._rows, self._prompts = [rows[i] for i in kept], [prompts[i] for i in kept]
        if dropped := sorted(set(range(len(rows))) - set(kept)):
            self.notes.append(
                f"dropped {len(dropped)} of {len(rows)} prompts, which have more than"
                f" data.max_prompt_tokens={max_prompt_tokens} tokens; the first is {places[dropped[0]]}"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def length(self, row: int) -> int:
        """Tokens of the prompt."""
        return len(self._prompts[row])

    def place(self, row: int) -> str:
        """Where the row comes from, as `file:line`."""
        return self._rows[row].place

    def tensors(self, row: int) -> dict[str, Tensor]:
        return {"prompts": self._prompts[row]}

    def query_id(self, row: int) -> str:
        """Its name in the file."""
        return self._rows[row].query_id

    def prompt(self, row: int) -> str:
        """The question, without the chat template."""
        return self._rows[row].prompt

    def solutions(self, row: int) -> list[str]:
        return self._rows[row].solutions


def load_prompts(data: DataConfig, tokenizer: Any) -> tuple[PromptDataset, PromptDataset | None]:
    """Training rows and held-out rows: those of JSONL files of `ProblemLine`, or of `sums`.

    Raises:
        ValueError: a missing or empty file, a bad line, by its `file:line`, or one without solutions.
    """

    def load(path: str, held_out: bool) -> PromptDataset:
        rows = load_problems(path, held_out=held_out, solutions_path=data.solutions_path)
        return _encoded(rows, data, tokenizer)

    return load(data.path, False), load(data.held_out_path, True) if data.held_out_path else None


def load_questions(data: DataConfig, tokenizer: Any) -> PromptDataset:
    """The rows of `data.path` alone; those without solutions have an empty list of them."""
    rows = load_problems(data.path, held_out=False, solutions_path=data.solutions_path, needs_solutions=False)
    return _encoded(rows, data, tokenizer)


def _encoded(rows: Sequence[Problem], data: DataConfig, tokenizer: Any) -> PromptDataset:
    options = {"max_prompt_tokens": data.max_prompt_tokens, "drop_long": data.drop_long}
    return PromptDataset(rows, tokenizer, chat=data.chat, **options)


def load_problems(
    path: str, *, held_out: bool, solutions_path: str | None = None, needs_solutions: bool = True
) -> list[Problem]:
    """The rows of `load_prompts`; `held_out` chooses the side of `sums`. Without `needs_solutions`, a row may
    have none.
    """
    if path == SUMS:
        return [
            Problem(f"{row.a}+{row.b}", row.prompt, [row.solution], f"{SUMS}: {row.a} + {row.b}")
            for row in sums(held_out=held_out)
        ]
    lines = read_jsonl(path, ProblemLine, EXAMPLE, held_out=held_out)
    info = _read_info(solutions_path) if solutions_path else {}
    problems = []
    for place, line in lines:
        found = _solutions(line, info)
        solutions = _required(place, found) if needs_solutions else found or []
        problems.append(Problem(line.query_id, line.prompt, solutions, place))
    return problems


def _read_info(path: str) -> dict[str, _Info]:
    try:
        return msgspec.json.decode(Path(path).expanduser().read_bytes(), type=dict[str, _Info])
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise ValueError(
            f"data.solutions_path: {path!r}: cannot read solutions ({error}); expected a JSON file like"
            ' {"1": {"solutions": ["2"]}}'
        ) from None


def _solutions(line: ProblemLine, info: Mapping[str, _Info]) -> list[str] | None:
    if line.solutions is None and line.query_id in info:
        return info[line.query_id].solutions
    return line.solutions


def _required(place: str, solutions: list[str] | None) -> list[str]:
    if solutions:
        return solutions
    if solutions is None:
        raise ValueError(
            f"{place}: no `solutions`, here or in data.solutions_path; expected a line like {EXAMPLE}"
        )
    raise ValueError(f"{place}: `solutions` is empty; expected a line like {EXAMPLE}")

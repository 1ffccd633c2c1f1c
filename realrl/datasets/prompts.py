"""Problems with checkable answers, from files or generated."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from torch import Tensor

from realrl.api.data import GYM_PREFIX, DataConfig, DataPart, DataSetConfig
from realrl.datasets.contents import check_is_file, plain_text
from realrl.datasets.conversations import words_of
from realrl.datasets.encode import EncodedRows
from realrl.datasets.fields import ANSWERS, CONVERSATIONS, QUESTIONS, Names
from realrl.datasets.jsonl import decode
from realrl.datasets.records import Row, read_rows
from realrl.datasets.sides import (
    check_no_example_is_held_out,
    check_no_rewards,
    load_sides,
    load_training,
)
from realrl.datasets.sources import names_key
from realrl.datasets.texts import answers_of
from realrl.rewards.functions import BUILT_IN, GYM, MATH, load_function, weights_of
from realrl.rewards.gym import GymItem

EXAMPLE = '{"query_id": "1", "prompt": "What is 1 + 1?", "solutions": ["2"]}'

_NOTHING = re.compile(r"(?:\\boxed\{\s*\}|####|\$|\s)*")
"""Matches empty gold answers, which no response can match."""


class Problem(Row):
    """A question and its right answers, in AReaL's schema."""

    NAMES: ClassVar[Names] = {"prompt": (*QUESTIONS, *CONVERSATIONS), "solutions": ANSWERS}

    solutions: list[str] | None = None
    """None: the solutions are in the file at `data.solutions_path`."""
    gym: GymItem | None = None
    """The scorer of answers, for a row of reasoning-gym."""
    metadata: dict[str, Any] = {}
    """The row's further fields in its file, as JSON values."""


class _Info(msgspec.Struct):
    """The entry of a file of solutions under a `query_id`."""

    solutions: list[str]


class PromptDataset(EncodedRows[Problem]):
    """Problems by row; a `realrl.api.recipe.Dataset` with the key `prompts`."""

    def length(self, row: int) -> int:
        """Return the number of tokens of the prompt."""
        return len(self.prompts[row])

    def tensors(self, row: int) -> dict[str, Tensor]:
        """Return the prompt's token ids.

        Shapes: `prompts` int64 `[T]`.
        """
        return {"prompts": self.prompts[row]}

    def prompt(self, row: int) -> str:
        """Return the question without a template."""
        return words_of(self.rows[row].prompt)

    def solutions(self, row: int) -> list[str]:
        """Return the right answers to the question."""
        return self.rows[row].solutions or []

    def metadata(self, row: int) -> Mapping[str, Any]:
        """Return the row's further fields in its file, as JSON values."""
        return self.rows[row].metadata

    def gym(self, row: int) -> GymItem | None:
        """Return the scorer of answers to a row of reasoning-gym; None for other rows."""
        return self.rows[row].gym


def load_prompts(
    data: DataConfig, tokenizer: Any, *, needs_solutions: bool = True
) -> tuple[PromptDataset, PromptDataset | None]:
    """Return the training rows of `data`, and its held-out rows or None; rows keep their further fields.

    `needs_solutions` says whether the run's reward needs them; a set may have another reward.

    Raises:
        ValueError: a source that cannot be read, a bad row, or a row without solutions where they are needed;
            the message names the row's place. Or a set's reward that cannot be one.
    """
    needing = {"": needs_solutions}
    for name, each in data.sets.items():
        needing[name] = needs_solutions if each.reward is None else _check_reward(name, each)

    def load(part: DataPart, held_out: bool) -> PromptDataset:
        with names_key(part, held_out=held_out):
            rows, notes = _problems(
                part, held_out=held_out, needs_solutions=needing[part.name], has_metadata=True
            )
            return PromptDataset(rows, tokenizer, part, held_out=held_out, notes=notes)

    return load_sides(data, tokenizer, load)


def load_eval_set(
    part: DataPart, tokenizer: Any, *, limit: int = 0, needs_solutions: bool = True
) -> PromptDataset:
    """Return the held-out rows of `part`, the first `limit` of them (0: all).

    Raises:
        ValueError: as `load_prompts`; or an example of its prompts is among these rows.
    """
    with names_key(part, held_out=True):
        rows, notes = _problems(part, held_out=True, needs_solutions=needs_solutions, has_metadata=True)
        taken = rows[: limit or None]
        loaded = PromptDataset(taken, tokenizer, part, held_out=True, notes=notes)
    check_no_example_is_held_out([part], loaded)
    return loaded


def load_questions(data: DataConfig, tokenizer: Any) -> PromptDataset:
    """Return the training rows of `data`; a row without solutions has an empty list of them.

    Raises:
        ValueError: as `load_prompts`; or a set with a weight or a reward.
    """
    check_no_rewards(data)
    for name, each in data.sets.items():
        if each.weight is not None:
            raise ValueError(
                f"data.sets.{name}.weight: nothing is trained here, and each row is read once; leave it out"
            )

    def load(part: DataPart, held_out: bool) -> PromptDataset:
        with names_key(part, held_out=held_out):
            rows, notes = _problems(part, held_out=held_out, needs_solutions=False)
            return PromptDataset(rows, tokenizer, part, held_out=held_out, notes=notes)

    return load_training(data, tokenizer, load)


def load_problems(
    data: DataConfig, *, held_out: bool, needs_solutions: bool = True
) -> tuple[list[Problem], list[str]]:
    """Return one side's rows before any is dropped for its length, and notes on them for the user.

    Without `needs_solutions`, a row may have no solutions. `data` has no sets.

    Raises:
        ValueError: as `load_prompts`.
    """
    return _problems(data.whole, held_out=held_out, needs_solutions=needs_solutions)


def _problems(
    part: DataPart, *, held_out: bool, needs_solutions: bool, has_metadata: bool = False
) -> tuple[list[Problem], list[str]]:
    """Return the rows of one side of `part` before any is dropped for its length, and notes on them."""
    data = part.data
    rows, notes = read_rows(part, Problem, EXAMPLE, held_out=held_out, has_metadata=has_metadata)
    info: dict[str, _Info] = {}
    if data.solutions_path:
        info = _read_info(data.solutions_path)
    given = [_solutions(row, info) for row in rows]
    if needs_solutions:
        _check_solutions(rows, given)
    for row, solutions in zip(rows, given, strict=True):
        row.solutions = _non_empty(solutions)
    notes_of_blank_ones = _note_of_blank_ones(rows, given)
    return rows, notes + notes_of_blank_ones


def _check_reward(name: str, data_set: DataSetConfig) -> bool:
    """Check a set's reward; return whether it needs solutions.

    Raises:
        ValueError: the reward names nothing that rewards, or nothing that rewards such rows.
    """
    assert data_set.reward is not None, "there is a reward to check"
    try:
        weights = weights_of(data_set.reward)
        for reward in weights:
            if reward not in BUILT_IN:
                load_function(reward)
    except ValueError as error:
        raise ValueError(f"data.sets.{name}.{error}") from None
    if GYM in weights and not data_set.path.startswith(GYM_PREFIX):
        raise ValueError(
            f"data.sets.{name}.reward: `gym` is for tasks of reasoning-gym, got the path {data_set.path}; set"
            " `math` or another reward"
        )
    return MATH in weights


def _read_info(path: str) -> dict[str, _Info]:
    """Return the entries of a file of solutions by `query_id`."""
    key = "data.solutions_path"
    example = '{"1": {"solutions": ["2"]}}'
    try:
        content = check_is_file(path, key).read_bytes()
        text = plain_text(content, path, key, example)
        document = decode(text)
        entries = msgspec.convert(document, dict[str, dict])
        return {query_id: _info(entry) for query_id, entry in entries.items()}
    # The errors of msgspec are ValueErrors.
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise ValueError(
            f"{key}: {path!r}: cannot read solutions ({reason}); expected a JSON file like {example}"
        ) from None


def _info(entry: Mapping[str, Any]) -> _Info:
    """Return an entry with its answers as texts."""
    given = {}
    if "solutions" in entry:
        given["solutions"] = answers_of(entry["solutions"])
    return msgspec.convert(given, _Info)


def _solutions(row: Problem, info: Mapping[str, _Info]) -> list[str] | None:
    """Return the row's own solutions, else those that the file of solutions has for it."""
    if row.solutions is None and row.query_id in info:
        return info[row.query_id].solutions
    return row.solutions


def _non_empty(solutions: list[str] | None) -> list[str]:
    """Return the solutions that a response can match."""
    if not solutions:
        return []
    return [solution for solution in solutions if not _NOTHING.fullmatch(solution)]


def _check_solutions(rows: Sequence[Problem], given: Sequence[list[str] | None]) -> None:
    """Raise ValueError if a row has neither a solution that a response can match nor a scorer."""
    lacking: list[int] = []
    for number, solutions in enumerate(given):
        if not rows[number].gym and not _non_empty(solutions):
            lacking.append(number)
    if not lacking:
        return
    first = rows[lacking[0]]
    problem = _problem_of_solutions(first, given[lacking[0]])
    others = ""
    if len(lacking) > 1:
        others = f" (so are {len(lacking)} of {len(rows)} rows)"
    raise ValueError(f"{first.place}: {problem}{others}; expected a line like {EXAMPLE}")


def _problem_of_solutions(row: Problem, solutions: list[str] | None) -> str:
    """Return why a row has no solution that a response can match."""
    if solutions is None:
        if "solutions" in row.nulls:
            return f"`{row.nulls['solutions']}` is null"
        return "no `solutions`, here or in data.solutions_path"
    if not solutions:
        return "`solutions` is empty"
    return f"no response can match the `solutions` {solutions!r}"


def _note_of_blank_ones(rows: Sequence[Problem], given: Sequence[list[str] | None]) -> list[str]:
    """Return a note if empty solutions were dropped."""
    cut: list[Problem] = []
    for row, solutions in zip(rows, given, strict=True):
        num_given = len(solutions or ())
        num_left = len(row.solutions or ())
        if num_given > num_left:
            cut.append(row)
    if not cut:
        return []
    return [
        f"dropped empty `solutions` of {len(cut)} of {len(rows)} rows, which have others or need none; the"
        f" first is {cut[0].place}"
    ]

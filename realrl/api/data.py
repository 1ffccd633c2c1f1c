"""The settings of a run's data."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from realrl.base.require import require, require_at_least, require_at_most
from realrl.base.spelling import did_you_mean

Template = Literal["chat", "plain", "r1-distill", "r1-zero", "orz", "qwen-boxed"]

ROW_FIELDS = (
    "query_id",
    "prompt",
    "solutions",
    "response",
    "chosen",
    "rejected",
    "difficulty",
    "verdict",
    "ended",
)
"""All fields that a dataset's row may have."""

GYM_PREFIX = "gym:"
"""The prefix of paths that name tasks of reasoning-gym."""


def _is_day(text: str) -> bool:
    """Return whether `text` is a day as YYYY-MM-DD."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return False
    # Python reads other forms of ISO 8601, too, such as 20260131.
    return day.isoformat() == text


def gym_tasks(path: str) -> list[str]:
    """Return the tasks of reasoning-gym that a path names, or none if it names something else."""
    if not path.startswith(GYM_PREFIX):
        return []
    names = path.removeprefix(GYM_PREFIX)
    return names.split(",")


@dataclass(frozen=True, kw_only=True)
class GymConfig:
    """Rows that reasoning-gym makes."""

    size: int = 1000
    """Training rows of each task."""
    eval_size: int = 100
    """Held-out rows of each task; those that are among the training rows are dropped."""
    seed: int = 1
    """Seed of the rows, which are the same in every run, whatever the run's own seed."""
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Parameters of tasks, by the task's name, that differ from reasoning-gym's defaults: `{chain_sum:
    {max_terms: 3}}`."""
    levels: tuple[int, ...] = ()
    """Levels of each task's curriculum (empty: no curriculum). Every level has the same number of rows. A
    row's level is its `difficulty`, so that with `order: rising` a run takes one level after the other."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "size", "eval_size")
        require_at_most(self, 10**7, "size", "eval_size")
        distinct = sorted(set(self.levels))
        rises = list(self.levels) == distinct
        is_from_zero = not distinct or distinct[0] >= 0
        require(
            rises and is_from_zero,
            f"levels must rise from 0 or more, got {list(self.levels)}",
        )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where rows come from, and how prompts are made of them."""

    path: str = ""
    """The rows: a file of JSON lines (`.jsonl`), of one list (`.json`) or of Parquet (`.parquet`); a Hugging
    Face dataset, `hf:OWNER/NAME[@REVISION][:CONFIG]` or `hf:FOLDER`; tasks of reasoning-gym,
    `gym:TASK[,TASK…]`; a function of Python code that returns rows, `path/to/file.py:function`; or `sums`,
    made on the spot. Required. Rows are `{query_id, prompt, solutions}`; `sft`
    also reads `{prompt, response}`, `rw` and `dpo` read `{prompt, chosen, rejected}`."""
    split: str = "train"
    """Split of a Hugging Face dataset."""
    eval_path: str | None = None
    """The held-out rows, in the same form (empty: none). Left out: those that `path` itself holds out, as
    `sums` and reasoning-gym do, or its `eval_split`; else none."""
    eval_split: str | None = None
    """Split of the Hugging Face dataset of held-out rows. Left out: `test`."""
    commit: str | None = None
    """The commit of a dataset of the Hub. Left out: the commit of its revision when the run starts, which is
    recorded in the run's `config.yaml` and kept by a resume."""
    eval_commit: str | None = None
    """The commit of `eval_path`, like `commit`."""
    solutions_path: str | None = None
    """A JSON file of `{query_id: {"solutions": [...]}}` for lines of `path` without solutions: AReaL's
    `id2info.json`."""
    fields: dict[str, str] = field(default_factory=dict)
    """Names in a file or a Hugging Face dataset of `query_id`, `prompt`, `solutions`, `response`, `chosen`,
    `rejected` or `difficulty`, where they differ: `{prompt: question, solutions: info.answer}`. Dots lead
    into nested fields. A prompt is a text or a list of messages `{role, content}`, solutions are one or a
    list. Of a response that is a list of messages, the last one counts."""
    eval_fields: dict[str, str] = field(default_factory=dict)
    """The names in `eval_path`, like `fields` (empty: as in `fields`)."""
    difficulty: tuple[float, float] | None = None
    """Train only on rows whose `difficulty` is from the first to the second number; the run reports how many
    are left out."""
    order: Literal["shuffled", "rising"] = "shuffled"
    """Order of the rows of each epoch: random, or by rising `difficulty` and random among equals."""
    gym: GymConfig = field(default_factory=GymConfig)
    max_prompt_tokens: int = 1024
    """Most tokens of a prompt; a longer one is refused, or dropped with `drop_long`."""
    max_response_tokens: int | None = None
    """Most tokens of a response of `sft`, `rw` and `dpo`, including the token that ends it; a longer one is
    refused, or dropped with `drop_long`. Left out: prompt and response together may fill the model's
    context."""
    drop_long: bool = False
    """Drop rows whose prompt or response is too long; the run reports how many."""
    template: Template = "chat"
    """The form of prompts: `chat`, the tokenizer's chat template, if it has one; `plain`, the text alone; or
    the form that DeepSeek-R1-Distill, DeepSeek-R1-Zero, Open-Reasoner-Zero or Qwen2.5-Math expects."""
    date: str | None = None
    """The day, as 2026-01-31, for chat templates that contain the date, so that all ranks, and a resume on
    another day, make the same prompts. Left out: the day on which the run starts, recorded in its
    `config.yaml`."""

    def __post_init__(self) -> None:
        if self.date is not None:
            require(_is_day(self.date), f"date must be a day as 2026-01-31, got {self.date!r}")
        for name in ("fields", "eval_fields"):
            names = getattr(self, name)
            for ours in names:
                _check_row_field(name, ours)
        self._check_gym_parameters()
        if self.difficulty is not None:
            least, most = self.difficulty
            require(
                least <= most,
                f"difficulty must be the least and the greatest, got {least} and {most}",
            )
        require_at_least(self, 1, "max_prompt_tokens", "max_response_tokens")

    def _check_gym_parameters(self) -> None:
        """Check that parameters are for tasks that the run has."""
        tasks = gym_tasks(self.path) + gym_tasks(self.held_out_path)
        for name in self.gym.parameters:
            require(
                name in tasks,
                f"gym.parameters: {name!r} is no task of path or eval_path",
            )

    @property
    def held_out_path(self) -> str:
        """The path of the held-out rows; empty without an evaluation."""
        if self.eval_path is not None:
            return self.eval_path
        is_made = self.path == "sums" or self.path.startswith(GYM_PREFIX)
        if is_made or self.eval_split:
            return self.path
        return ""

    @property
    def held_out_commit(self) -> str | None:
        """The commit of `held_out_path`."""
        is_in_path = self.eval_path is None
        return self.commit if is_in_path else self.eval_commit

    @property
    def held_out_split(self) -> str:
        """The split of the held-out rows in a Hugging Face dataset."""
        return self.eval_split or "test"


def _check_row_field(setting: str, name: str) -> None:
    """Check that `setting` renames a field that rows have."""
    if name in ROW_FIELDS:
        return
    hint = did_you_mean(name, ROW_FIELDS)
    known = ", ".join(ROW_FIELDS)
    raise ValueError(f"{setting}: unknown name {name!r}; expected some of {known}{hint}")

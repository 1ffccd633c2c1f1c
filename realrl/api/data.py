"""What a person can set about the data of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from realrl.base.require import require, require_at_most
from realrl.base.spelling import did_you_mean

Template = Literal["chat", "plain", "r1-distill", "r1-zero", "orz", "qwen-boxed"]

ROW_FIELDS = (
    *("query_id", "prompt", "solutions", "response", "chosen", "rejected", "difficulty"),
    *("verdict", "ended"),
)
"""All that a dataset's row may have."""

GYM_PREFIX = "gym:"
"""What a path of tasks of reasoning-gym begins with."""


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def gym_tasks(path: str) -> list[str]:
    """The tasks that a path names; none if it names something else."""
    return path.removeprefix(GYM_PREFIX).split(",") if path.startswith(GYM_PREFIX) else []


@dataclass(frozen=True, kw_only=True)
class GymConfig:
    """Rows that reasoning-gym makes."""

    size: int = 1000
    """Training rows of each task."""
    eval_size: int = 100
    """Held-out rows of each task, less those that training has too."""
    seed: int = 1
    """Of the rows: they are the same in every run, whatever that one's seed."""
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of tasks by name, where they differ from reasoning-gym's: `{chain_sum: {max_terms: 3}}`."""
    levels: tuple[int, ...] = ()
    """Levels of each task's curriculum, as many rows of each one; a row's level is its `difficulty`, so that
    with `order: rising` a run goes from level to level. Empty for no curriculum."""

    def __post_init__(self) -> None:
        for name in ("size", "eval_size"):
            require((value := getattr(self, name)) >= 1, f"{name} must be at least 1, got {value}")
        require_at_most(self, 10**7, "size", "eval_size")
        rising = list(self.levels) == sorted({level for level in self.levels if level >= 0})
        require(rising, f"levels must rise from 0 or more, got {list(self.levels)}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where prompts come from."""

    path: str = ""
    """It must be given: a file of JSON lines (`.jsonl`), of one list (`.json`) or of Parquet (`.parquet`); a
    Hugging Face dataset, `hf:OWNER/NAME[@REVISION][:CONFIG]` or `hf:FOLDER`; tasks of reasoning-gym,
    `gym:TASK[,TASK…]`; a function of Python code, `path/to/file.py:function`, which
    returns rows; or `sums`, made on the spot. Rows are `{query_id, prompt, solutions}`; `sft` reads
    `{prompt, response}` too, `rw` and `dpo` read `{prompt, chosen, rejected}`."""
    split: str = "train"
    """Of a Hugging Face dataset."""
    eval_path: str | None = None
    """Held-out rows, in the same form; empty for none. Left out: what `path` holds out itself, as `sums` and
    reasoning-gym do, or its `eval_split`; else none."""
    eval_split: str | None = None
    """Of a Hugging Face dataset of held-out rows; left out, `test`."""
    commit: str | None = None
    """The commit of a dataset of the Hub. Left out, that of its revision at the start; `config.yaml` of the
    run has it, and a resume keeps it."""
    eval_commit: str | None = None
    """The same for `eval_path`."""
    solutions_path: str | None = None
    """A JSON file of `{query_id: {"solutions": [...]}}`, for lines of `path` that have none: AReaL's
    `id2info.json`."""
    fields: dict[str, str] = field(default_factory=dict)
    """What a file or a Hugging Face dataset calls `query_id`, `prompt`, `solutions`, `response`, `chosen`,
    `rejected` or `difficulty`, where it has another name: `{prompt: question, solutions: info.answer}`, with
    dots into what is nested. Prompts are texts or lists of messages `{role, content}`; solutions are one
    or a list; of a response that is a list of messages the last one counts."""
    eval_fields: dict[str, str] = field(default_factory=dict)
    """The same for `eval_path`; empty, `fields`."""
    difficulty: tuple[float, float] | None = None
    """Train only on rows whose `difficulty` is from the first to the second number, and say how many those
    left out are."""
    order: Literal["shuffled", "rising"] = "shuffled"
    """Of the rows of each epoch: by chance; or by rising `difficulty`, by chance where that is the same."""
    gym: GymConfig = field(default_factory=GymConfig)
    max_prompt_tokens: int = 1024
    """A longer prompt is refused, or dropped."""
    max_response_tokens: int | None = None
    """Most tokens of a response of `sft`, `rw` and `dpo`, with the token that ends it; a longer one is
    refused, or dropped. Left out, a prompt and its response may fill the model's context."""
    drop_long: bool = False
    """Drop rows whose prompt or response is too long, and say how many they are."""
    template: Template = "chat"
    """What each prompt is put into: `chat`, the tokenizer's chat template, if it has one; `plain`, nothing;
    or the form that DeepSeek-R1-Distill, DeepSeek-R1-Zero, Open-Reasoner-Zero or Qwen2.5-Math is asked in."""
    date: str | None = None
    """The day, as 2026-01-31, that a chat template is told where it asks for the time: all ranks, and a
    resume on another day, make the same of a row. Left out, that of the run's start, which its `config.yaml`
    has."""

    def __post_init__(self) -> None:
        if self.date is not None:
            require(_is_day(self.date), f"date must be a day as 2026-01-31, got {self.date!r}")
        for name in ("fields", "eval_fields"):
            for ours in getattr(self, name):
                require(
                    ours in ROW_FIELDS,
                    f"{name}: unknown name {ours!r}; expected some of {', '.join(ROW_FIELDS)}"
                    f"{did_you_mean(ours, ROW_FIELDS)}",
                )
        tasks = gym_tasks(self.path) + gym_tasks(self.held_out_path)
        for name in self.gym.parameters:
            require(name in tasks, f"gym.parameters: {name!r} is no task of path or eval_path")
        if self.difficulty is not None:
            least, most = self.difficulty
            require(least <= most, f"difficulty must be the least and the greatest, got {least} and {most}")
        for name in ("max_prompt_tokens", "max_response_tokens"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be at least 1, got {value}")

    @property
    def held_out_path(self) -> str:
        """What `eval_path` comes to; empty for no evaluation."""
        if self.eval_path is not None:
            return self.eval_path
        holds_out = self.path == "sums" or self.path.startswith(GYM_PREFIX) or self.eval_split
        return self.path if holds_out else ""

    @property
    def held_out_commit(self) -> str | None:
        """The commit of `held_out_path`."""
        return self.commit if self.eval_path is None else self.eval_commit

    @property
    def held_out_split(self) -> str:
        """What `eval_split` comes to."""
        return self.eval_split or "test"

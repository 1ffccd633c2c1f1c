"""The settings of evaluations inside a run: named sets of rows, and how answers to them are sampled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from realrl.api.config import GenerationConfig
from realrl.api.data import DataConfig, DataPart, check_field_names, gym_tasks
from realrl.api.prompt_keys import check_prompt_keys, is_chat_template
from realrl.base.require import require, require_at_least, require_at_most

HELD_OUT = "held_out"
"""The name of the set of the held-out rows of `data`."""
_NAME = re.compile(r"[A-Za-z0-9_-]+")
"""The names of sets; a dot would part a dotted key, and a slash parts a set from a metric."""
_OWN_KEYS = ("template", "max_prompt_tokens", "system", "prefix", "suffix", "examples", "num_examples")
"""Keys of a set that replace those of `data` where they are given."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """A set of problems that a run is evaluated on. A key that is left out is as in `data`, or as it says."""

    path: str = ""
    """The problems, in the form of `data.path`: `evals: {aime: {path: aime.jsonl, n: 8, temperature: 0.6}}`.
    Of `sums` and of tasks of reasoning-gym, the side that is held out. Required."""
    split: str | None = None
    """Split of a Hugging Face dataset. Left out: `data.eval_split`, or `test`."""
    commit: str | None = None
    """The commit of a dataset of the Hub. Left out: the one when the run starts, like `data.commit`."""
    fields: dict[str, str] = field(default_factory=dict)
    """The names of fields, like `data.fields` (empty: as those of the held-out rows)."""
    limit: int = 0
    """Take the first rows only, this many of them (0: all)."""
    n: int = 1
    """Answers to each problem. More than one need a temperature."""
    temperature: float = 0.0
    """Sampling temperature, at least 0.01; 0 takes the most likely token (greedy)."""
    top_p: float = 1.0
    """Sample from the most likely tokens whose probabilities add up to this (1: from all tokens)."""
    max_new_tokens: int | None = None
    """Most tokens of an answer. Left out: `generation.max_new_tokens`."""
    every: int | None = None
    """Evaluate on this set every N steps (0: only at the start and the end). Left out: `eval_every`."""
    max_prompt_tokens: int | None = None
    """Most tokens of a prompt."""
    template: str | None = None
    """The form of prompts."""
    template_arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of the chat template, over those of `data.template_arguments`."""
    system: str | None = None
    """The system message."""
    prefix: str | None = None
    """The text before the question."""
    suffix: str | None = None
    """The text after the question."""
    examples: str | None = None
    """Solved examples that come before the question."""
    num_examples: int | None = None
    """The number of these examples."""

    def __post_init__(self) -> None:
        require(bool(self.path), "path: expected the set's problems, like data.path, got none")
        require_at_least(self, 1, "n", "max_new_tokens", "max_prompt_tokens")
        require_at_most(self, 2**24, "n", "max_new_tokens")
        require_at_least(self, 0, "limit", "every")
        require(
            self.temperature == 0 or self.temperature >= 0.01,
            f"temperature must be 0 or at least 0.01, got {self.temperature}",
        )
        require(0 < self.top_p <= 1, f"top_p must be in (0, 1], got {self.top_p}")
        require(
            not self.is_greedy or self.n == 1,
            f"n: {self.n} answers at temperature 0 would all be the same; set a temperature, or n to 1",
        )
        require(
            not self.is_greedy or self.top_p == 1,
            f"top_p: {self.top_p:g} does nothing at temperature 0; set a temperature, or leave it out",
        )
        check_field_names(self, "fields")
        check_prompt_keys(self)

    @property
    def is_greedy(self) -> bool:
        """Whether each token is the most likely one."""
        return self.temperature == 0

    def generation(self, of_run: GenerationConfig) -> GenerationConfig:
        """Return how answers are sampled, where the run's own responses are sampled as `of_run` says."""
        max_new_tokens = self.max_new_tokens or of_run.max_new_tokens
        return replace(
            of_run,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=0,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min(of_run.min_new_tokens, max_new_tokens),
        )

    def data(self, of_run: DataConfig) -> DataConfig:
        """Return the settings of these rows: those of the run's data, with this set as its held-out rows."""
        tasks = gym_tasks(self.path)
        for path in of_run.paths:
            tasks += gym_tasks(path)
        parameters = {task: of_run.gym.parameters[task] for task in tasks if task in of_run.gym.parameters}
        changes: dict[str, Any] = {
            "eval_path": self.path,
            "eval_split": self.split or of_run.eval_split,
            "eval_commit": self.commit,
            "eval_fields": self.fields or of_run.eval_fields,
            "gym": replace(of_run.gym, parameters=parameters),
            "template_arguments": {**of_run.template_arguments, **self.template_arguments},
        }
        if not is_chat_template(self.template or of_run.template):
            # What is there for chat templates alone is not passed on to other ones.
            changes |= {"template_arguments": self.template_arguments, "system": None}
        for key in _OWN_KEYS:
            value = getattr(self, key)
            if value is not None:
                changes[key] = value
        return replace(of_run, **changes)


OF_HELD_OUT = EvalConfig(path="data.eval_path")
"""How a run is evaluated on the held-out rows of `data`: greedily, every `eval_every` steps."""


def part_of(name: str, each: EvalConfig, data: DataConfig) -> DataPart:
    """Return the rows of a set as a part of a run's data, whose held-out side they are."""
    return DataPart("", f"evals.{name}", each.data(data))


def check_evals(evals: Mapping[str, EvalConfig], data: DataConfig) -> None:
    """Check the names of sets, and that their prompts can be made.

    Raises:
        ValueError: a name that is no name, or is that of the held-out rows; or keys that do not go together.
    """
    for name, each in evals.items():
        require(
            _NAME.fullmatch(name) is not None,
            f"evals: a name has letters, digits, _ and -, got {name!r}",
        )
        require(
            name != HELD_OUT,
            f"evals.{name}: this is the name of the held-out rows of data; give another name",
        )
        try:
            each.data(data)
        except ValueError as error:
            raise ValueError(f"evals.{name}.{error}") from None

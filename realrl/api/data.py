"""The settings of a run's data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Literal, NamedTuple

from realrl.api.prompt_keys import check_fit_to_template, check_prompt_keys, is_chat_template
from realrl.base.require import require, require_at_least, require_at_most
from realrl.base.spelling import did_you_mean

ROW_FIELDS = (
    "query_id",
    "prompt",
    "solutions",
    "response",
    "chosen",
    "rejected",
    "margin",
    "label",
    "difficulty",
    "source",
    "verdict",
    "ended",
)
"""All fields that a dataset's row may have."""

GYM_PREFIX = "gym:"
"""The prefix of paths that name tasks of reasoning-gym."""

Reward = str | dict[str, float]
"""What rewards a response, or several rewards with their weights."""

_SET_NAME = re.compile(r"[A-Za-z0-9_-]+")
"""The names of data sets; a dot would part a dotted key."""


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
class DataSetConfig:
    """One of several data sets. A key that is left out is as in `data`, except where it says otherwise."""

    path: str = ""
    """The rows of one of several data sets, which are given in place of `data.path`, each under a name of its
    own: `sets: {gsm: {path: gsm.jsonl, weight: 2}, aime: {path: aime.jsonl, weight: 1}}`. In the form of
    `data.path`. Required."""
    split: str | None = None
    """Split of a Hugging Face dataset."""
    commit: str | None = None
    """The commit of a dataset of the Hub. Left out: the one when the run starts, like `data.commit`."""
    fields: dict[str, str] = field(default_factory=dict)
    """The names of fields, like `data.fields` (empty: as there)."""
    weight: float | None = None
    """The set's part of each batch, relative to the other sets' weights: with 3 and 1, three quarters and a
    quarter. After every batch, all batches so far have each set's part to within one row. A set is shuffled
    anew whenever all of its rows were read. Left out, for all sets: the number of its rows, so that all sets
    are read equally often."""
    reward: Reward | None = None
    """What rewards the responses to this set's rows, in the form of the run's `reward`. Left out: that."""
    difficulty: tuple[float, float] | None = None
    """Train only on this set's rows whose `difficulty` is from the first to the second number."""
    template: str | None = None
    """The form of prompts. It must end responses with the token that ends those of `data.template`."""
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
        require(bool(self.path), "path: expected the set's rows, like data.path, got none")
        if self.weight is not None:
            is_usable = math.isfinite(self.weight) and self.weight > 0
            require(is_usable, f"weight must be above 0, got {self.weight}; leave the set out instead")
        check_field_names(self, "fields")
        _check_difficulty(self.difficulty)
        check_prompt_keys(self)


class DataPart(NamedTuple):
    """Some of a run's rows: one of its data sets, or all of one side."""

    name: str
    """The set's name; empty without sets."""
    section: str
    """The dotted path of its settings."""
    data: DataConfig
    """The settings of these rows alone."""


class RowSet(NamedTuple):
    """A data set among the rows of a run."""

    name: str
    rows: range
    """The numbers of its rows."""
    weight: int
    """Its share of a batch, in a unit that all sets of the run have in common."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where rows come from, and how prompts are made of them."""

    path: str = ""
    """The rows: a file of JSON lines (`.jsonl`), of one list (`.json`) or of Parquet (`.parquet`); a Hugging
    Face dataset, `hf:OWNER/NAME[@REVISION][:CONFIG]` or `hf:FOLDER`; tasks of reasoning-gym,
    `gym:TASK[,TASK…]`; a function of Python code that returns rows, `path/to/file.py:function`; or `sums`,
    made on the spot. Required, unless there are `sets`. Rows are `{query_id, prompt, solutions}`; `sft` also
    reads `{prompt, response}`, `kto` `{prompt, response, label}`, `rw`, `dpo` and others
    `{prompt, chosen, rejected}`."""
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
    `rejected`, `margin`, `label`, `difficulty` or `source`, where they differ: `{prompt: question, solutions:
    info.answer}`. Dots lead into nested fields. A prompt is a text or a list of messages `{role, content}`,
    solutions are one or a list. Of a response that is a list of messages, the last one counts."""
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
    template: str = "chat"
    """The form of prompts: `chat`, the tokenizer's chat template, if it has one; `plain`, the text alone;
    `r1-distill`, `r1-zero`, `orz` or `qwen-boxed`, which DeepSeek-R1-Distill, DeepSeek-R1-Zero,
    Open-Reasoner-Zero or Qwen2.5-Math expects; or a file with a chat template, `path/to/file.jinja`."""
    template_arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of the chat template, as `{enable_thinking: false}` for Qwen3."""
    system: str | None = None
    """The system message of chat templates; it replaces a row's own. Left out: the row's own, if it has one.
    Empty: an empty one, which replaces the one that some templates add."""
    prefix: str | None = None
    """Text before the question, in the last message of the user; taken as it is written, and not shown to
    reward functions."""
    suffix: str | None = None
    """Text after the question, like `prefix`."""
    examples: str | None = None
    """Solved examples that come before every question (few-shot): a file as `sft` reads it, of rows
    `{prompt, response}`, or `{prompt, solutions}`, whose first solution is put into a box. In chat templates
    they are earlier turns; with `plain`, each one is followed by an empty line. Training rows that are among
    them are dropped; they must not be among the held-out rows."""
    num_examples: int | None = None
    """How many of `examples`, from the first one on. Left out: all."""
    date: str | None = None
    """The day, as 2026-01-31, for chat templates that contain the date, so that all ranks, and a resume on
    another day, make the same prompts. Left out: the day on which the run starts, recorded in its
    `config.yaml`."""

    sets: dict[str, DataSetConfig] = field(default_factory=dict)
    """Several data sets in place of `path`, each under a name of its own."""

    def __post_init__(self) -> None:
        if self.date is not None:
            require(_is_day(self.date), f"date must be a day as 2026-01-31, got {self.date!r}")
        check_field_names(self, "fields", "eval_fields")
        _check_difficulty(self.difficulty)
        check_prompt_keys(self)
        check_fit_to_template(self)
        self._check_sets()
        self._check_gym_parameters()
        require_at_least(self, 1, "max_prompt_tokens", "max_response_tokens")

    def _check_sets(self) -> None:
        """Check that `sets` are all that names training rows, and that weights are given to all or none."""
        if not self.sets:
            return
        require(not self.path, f"path: with data.sets, each set names its own; leave out {self.path!r}")
        require(
            self.commit is None, "commit: with data.sets, each set has its own; give data.sets.NAME.commit"
        )
        require(
            self.eval_split is None or bool(self.eval_path),
            "eval_split: with data.sets, held-out rows have a path of their own; give data.eval_path",
        )
        lacking = []
        for name, each in self.sets.items():
            require(
                _SET_NAME.fullmatch(name) is not None,
                f"sets: a name has letters, digits, _ and -, got {name!r}",
            )
            if each.weight is None:
                lacking.append(name)
        require(
            len(lacking) in (0, len(self.sets)),
            f"sets: weights must be given to all sets or to none; {', '.join(lacking)} have none",
        )
        for name in self.sets:
            try:
                self._of_set(name)
            except ValueError as error:
                raise ValueError(f"sets.{name}.{error}") from None

    def _check_gym_parameters(self) -> None:
        """Check that parameters are for tasks that the run has."""
        tasks = gym_tasks(self.held_out_path)
        for path in self.paths:
            tasks += gym_tasks(path)
        for name in self.gym.parameters:
            require(
                name in tasks,
                f"gym.parameters: {name!r} is no task of path or eval_path",
            )

    @property
    def paths(self) -> list[str]:
        """The paths of the training rows: that of each set, or the only one; empty if none is given."""
        if self.sets:
            return [each.path for each in self.sets.values()]
        return [self.path] if self.path else []

    @property
    def whole(self) -> DataPart:
        """These settings as they are: those of the held-out rows, and without sets of the training rows."""
        return DataPart("", "data", self)

    def parts(self) -> list[DataPart]:
        """Return what the training rows consist of: each set, or all of them as one."""
        if not self.sets:
            return [self.whole]
        return [DataPart(name, f"data.sets.{name}", self._of_set(name)) for name in self.sets]

    def _of_set(self, name: str) -> DataConfig:
        """Return the settings of one set as those of a run that has no other rows, and no held-out ones."""
        own = self.sets[name]
        tasks = gym_tasks(own.path)
        parameters = {task: self.gym.parameters[task] for task in tasks if task in self.gym.parameters}
        changes: dict[str, Any] = {
            "sets": {},
            "path": own.path,
            "commit": own.commit,
            "eval_path": "",
            "eval_split": None,
            "gym": replace(self.gym, parameters=parameters),
            "template_arguments": {**self.template_arguments, **own.template_arguments},
        }
        if not is_chat_template(own.template or self.template):
            # What is there for chat templates alone is not passed on to other ones.
            changes |= {"template_arguments": own.template_arguments, "system": None}
        if own.fields:
            changes["fields"] = own.fields
        for key in _OWN_KEYS:
            value = getattr(own, key)
            if value is not None:
                changes[key] = value
        return replace(self, **changes)

    def reward_of(self, source: str) -> Reward | None:
        """Return what rewards the responses to a set's rows; None: what rewards those of the whole run."""
        own = self.sets.get(source)
        return None if own is None else own.reward

    @property
    def uses_chat_templates(self) -> bool:
        """Whether some prompts are made by a chat template, the tokenizer's or that of a file."""
        templates = [self.template]
        for part in self.parts():
            templates.append(part.data.template)
        return any(is_chat_template(template) for template in templates)

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


_OWN_KEYS = ("split", "difficulty", "template", "system", "prefix", "suffix", "examples", "num_examples")
"""Keys of a set that replace those of `data` where they are given."""


def _check_difficulty(difficulty: tuple[float, float] | None) -> None:
    if difficulty is not None:
        least, most = difficulty
        require(
            least <= most,
            f"difficulty must be the least and the greatest, got {least} and {most}",
        )


def check_field_names(config: object, *settings: str) -> None:
    """Check that settings rename fields that rows have."""
    for setting in settings:
        names: Mapping[str, str] = getattr(config, setting)
        for ours in names:
            _check_row_field(setting, ours)


def _check_row_field(setting: str, name: str) -> None:
    """Check that `setting` renames a field that rows have."""
    if name in ROW_FIELDS:
        return
    hint = did_you_mean(name, ROW_FIELDS)
    known = ", ".join(ROW_FIELDS)
    raise ValueError(f"{setting}: unknown name {name!r}; expected some of {known}{hint}")

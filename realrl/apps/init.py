"""Writes a commented YAML file of a recipe: `realrl init NAME [--recipe RECIPE] [--model M] [--data D]`.

The file has the recipe's defaults: first what a run must be told, then what is often set, each key under its
docstring. Exit codes: 0 done, 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.configure import ConfigKey, build_config, config_keys, describe, plain, shown
from realrl.api.documents import dump
from realrl.api.recipe import Recipe
from realrl.apps.command_line import BAD_INPUT, OK, Parser, complain, run_command
from realrl.apps.manual import field_docs, summary
from realrl.base.terminal import show
from realrl.recipes import RECIPES

DEFAULT_RECIPE = "grpo"
MODEL_KEYS = ("actor.model.path", "model.path")
"""What the key of the trained model is called; a recipe has one of them."""
DATA_KEY = "data.path"
FIRST = (*MODEL_KEYS, DATA_KEY, "data.eval_path", "data.fields", "data.template", "reward")
"""Keys that a run depends on most; recipes have some of them."""
OFTEN = (
    "actor.optimizer.lr",
    "optimizer.lr",
    "num_steps",
    "batch_size",
    "max_tokens_per_microbatch",
    "num_samples",
    "greedy",
    "generation.max_new_tokens",
    "generation.temperature",
    "data.max_prompt_tokens",
    "ppo.group_size",
    "ppo.kl_coef",
    "beta",
    "device",
    "allocation",
    "eval_every",
    "save_every",
    "recover_every",
    "logger",
)
"""Keys that many runs set."""
_WIDTH = 100
_SUFFIXES = (".yaml", ".yml")


def main(argv: Sequence[str] | None = None) -> int:
    """Write a file for a run; return the exit code."""
    return run_command(_main, argv)


def make_parser() -> Parser:
    parser = Parser(prog="realrl init", description="Write a commented YAML file for a run")
    add = parser.add_argument
    add("name", metavar="NAME", help="the file, or its name without .yaml; it is the experiment's name, too")
    add("--recipe", choices=list(RECIPES), default=DEFAULT_RECIPE, help=f"left out, {DEFAULT_RECIPE}")
    add("--model", help="the model, as the file's comment on its key says")
    add("--data", help="the rows, as the file's comment on their key says")
    return parser


def _main(argv: Sequence[str]) -> int:
    try:
        options = make_parser().parse_args(list(argv))
        recipe, path = RECIPES[options.recipe], _path_of(options.name)
        config = _config_of(recipe, path, options)
        _create(path, render(recipe, config, path))
    except ValueError as error:
        return complain(str(error), BAD_INPUT)
    show(f"wrote {path}; {_next_step(config, path)}\n")
    return OK


def _path_of(name: str) -> Path:
    path = Path(name).expanduser()
    return path if path.suffix in _SUFFIXES else path.with_name(f"{path.name}.yaml")


def _config_of(recipe: Recipe, path: Path, options: argparse.Namespace) -> RunConfig:
    given = {
        "experiment": path.stem,
        _model_key(recipe.default_config): options.model,
        DATA_KEY: options.data,
    }
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
    return build_config(recipe.default_config, None, overrides, recipe=recipe.name)


def _model_key(config: RunConfig) -> str:
    known = {key.path for key in config_keys(type(config))}
    return next(key for key in MODEL_KEYS if key in known)


def _create(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"NAME: {path} exists and stays as it is; give another name, or remove it") from None
    except OSError as error:
        raise ValueError(f"NAME: cannot write {path} ({error.strerror}); give another path") from None


def _next_step(config: RunConfig, path: Path) -> str:
    keys = (_model_key(config), DATA_KEY)
    missing = [key for key in keys if not _value_of(config, key)]
    start = f"realrl --config {path}"
    return f"set {' and '.join(missing)} in it, then start: {start}" if missing else f"start: {start}"


def render(recipe: Recipe, config: RunConfig, path: Path) -> str:
    """The file: a config that differs from the recipe's defaults in the keys of the file alone."""
    keys = {key.path: key for key in config_keys(type(config))}
    trains = isinstance(config, TrainingConfig)
    first = [key for key in FIRST if key in keys and (trains or key != "data.eval_path")]
    chosen = [*first, *(key for key in OFTEN if key in keys)]
    sections = {key.partition(".")[0] for key in first}
    tree = _tree(chosen)
    parts = {
        "What to decide first": {name: inner for name, inner in tree.items() if name in sections},
        "What is often set": {name: inner for name, inner in tree.items() if name not in sections},
    }

    def entry_of(key: str, indent: str) -> Iterator[str]:
        return _entry(keys[key], config, recipe.default_config, indent)

    lines = [*_head(recipe, path), f"recipe: {recipe.name}", *entry_of("experiment", "")]
    for title, part in parts.items():
        lines += ["", f"# {title}", "", *_lines(part, entry_of)]
    return "\n".join(lines) + "\n"


def _head(recipe: Recipe, path: Path) -> Iterator[str]:
    yield from _comment(f"{recipe.name}: {summary(recipe.default_config)}", "")
    yield f"#   realrl --config {path} --dry-run   shows what would run"
    yield f"#   realrl --config {path}             starts it"
    yield f"#   realrl {recipe.name} --help   explains every key; those that are not here have their defaults"


def _tree(keys: Sequence[str]) -> dict[str, Any]:
    """Dotted keys as nested mappings; a leaf is None."""
    tree: dict[str, Any] = {}
    for key in keys:
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = None
    return tree


def _lines(
    tree: Mapping[str, Any], entry_of: Callable[[str, str], Iterable[str]], above: str = ""
) -> Iterator[str]:
    """A part of the file; `entry_of(key, indent)` has the lines of one key."""
    indent = "  " * above.count(".")
    for name, inner in tree.items():
        if inner is None:
            yield from entry_of(f"{above}{name}", indent)
        else:
            yield f"{indent}{name}:"
            yield from _lines(inner, entry_of, f"{above}{name}.")


def _entry(key: ConfigKey, config: RunConfig, defaults: RunConfig, indent: str) -> Iterator[str]:
    """A key with its value, under its docstring, what it takes, and its default."""
    doc = field_docs(key.owner).get(key.name, "")
    default = plain(_value_of(defaults, key.path))
    takes = f"{describe(key.hint)}; default {shown(default)}"
    yield from _comment(f"{doc} ({takes})" if doc else takes.capitalize(), indent)
    value = plain(_value_of(config, key.path))
    yield from textwrap.indent(dump({key.name: value}), indent).splitlines()


def _comment(text: str, indent: str) -> list[str]:
    lead = f"{indent}# "
    return textwrap.wrap(text, _WIDTH, initial_indent=lead, subsequent_indent=lead, break_on_hyphens=False)


def _value_of(config: RunConfig, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


if __name__ == "__main__":
    sys.exit(main())

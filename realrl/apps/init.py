"""Writes a commented YAML file of a recipe: `realrl init NAME [--recipe RECIPE] [--model M] [--data D]`.

The file has the recipe's defaults: first the keys that a run needs, then those that are often set, each under
its docstring. Exit codes: 0 done, 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.config_keys import ConfigKey, config_keys, describe, shown
from realrl.api.configure import build_config, plain
from realrl.api.documents import dump
from realrl.api.recipe import Recipe
from realrl.apps.command_line import BAD_INPUT, OK, Parser, complain, run_command
from realrl.apps.manual import field_docs, summary
from realrl.base.terminal import show
from realrl.recipes import RECIPES

DEFAULT_RECIPE = "grpo"
MODEL_KEYS = ("actor.model.path", "model.path")
"""Names of the key of the trained model; a recipe has one of them."""
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
    """Return the parser of the command's options."""
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
        recipe = RECIPES[options.recipe]
        path = _path_of(options.name)
        config = _config_of(recipe, path, options)
        _create(path, render(recipe, config, path))
    except ValueError as error:
        return complain(str(error), BAD_INPUT)
    show(f"wrote {path}; {_next_step(config, path)}\n")
    return OK


def _path_of(name: str) -> Path:
    """Return the file that NAME stands for."""
    path = Path(name).expanduser()
    if path.suffix in _SUFFIXES:
        return path
    return path.with_name(f"{path.name}.yaml")


def _config_of(recipe: Recipe, path: Path, options: argparse.Namespace) -> RunConfig:
    """Return the recipe's defaults with what the command line gives."""
    model_key = _model_key(recipe.default_config)
    overrides = [f"experiment={path.stem}"]
    if options.model is not None:
        overrides.append(f"{model_key}={options.model}")
    if options.data is not None:
        overrides.append(f"{DATA_KEY}={options.data}")
    return build_config(recipe.default_config, None, overrides, recipe=recipe.name)


def _model_key(config: RunConfig) -> str:
    """Return the key of the trained model."""
    known = {key.path for key in config_keys(type(config))}
    return next(key for key in MODEL_KEYS if key in known)


def _create(path: Path, text: str) -> None:
    """Write a new file.

    Raises:
        ValueError: the file exists, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"NAME: {path} exists and stays as it is; give another name, or remove it") from None
    except OSError as error:
        raise ValueError(f"NAME: cannot write {path} ({error.strerror}); give another path") from None


def _next_step(config: RunConfig, path: Path) -> str:
    """Return how the run is started, and the keys that must be set before."""
    keys = (_model_key(config), DATA_KEY)
    missing = [key for key in keys if not _value_of(config, key)]
    start = f"start: realrl --config {path}"
    if not missing:
        return start
    return f"set {' and '.join(missing)} in it, then {start}"


def render(recipe: Recipe, config: RunConfig, path: Path) -> str:
    """Return the text of the file; `config` differs from the recipe's defaults only in keys of the file."""
    keys = {key.path: key for key in config_keys(type(config))}
    first = [key for key in FIRST if key in keys]
    if not isinstance(config, TrainingConfig) and "data.eval_path" in first:
        first.remove("data.eval_path")
    often = [key for key in OFTEN if key in keys]

    def entry_of(key: str, indent: str) -> Iterator[str]:
        """Return the lines of one key."""
        return _entry(keys[key], config, recipe.default_config, indent)

    lines = [
        *_head(recipe, path),
        f"recipe: {recipe.name}",
        *entry_of("experiment", ""),
    ]
    for title, part in _parts(first, often).items():
        lines += ["", f"# {title}", ""]
        lines += _lines(part, entry_of)
    return "\n".join(lines) + "\n"


def _parts(first: Sequence[str], often: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the trees of keys under each title: sections of keys to decide first, and the others."""
    sections = {key.partition(".")[0] for key in first}
    to_decide = {}
    others = {}
    for name, inner in _tree([*first, *often]).items():
        if name in sections:
            to_decide[name] = inner
        else:
            others[name] = inner
    return {"What to decide first": to_decide, "What is often set": others}


def _head(recipe: Recipe, path: Path) -> Iterator[str]:
    """Yield the lines at the top of the file."""
    yield from _comment(f"{recipe.name}: {summary(recipe.default_config)}", "")
    yield f"#   realrl --config {path} --dry-run   shows what would run"
    yield f"#   realrl --config {path}             starts it"
    yield f"#   realrl {recipe.name} --help   explains every key; those that are not here have their defaults"


def _tree(keys: Sequence[str]) -> dict[str, Any]:
    """Return dotted keys as nested mappings; a key is None there."""
    tree: dict[str, Any] = {}
    for key in keys:
        *sections, name = key.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = None
    return tree


def _lines(
    tree: Mapping[str, Any], entry_of: Callable[[str, str], Iterable[str]], above: str = ""
) -> Iterator[str]:
    """Yield the lines of a part of the file.

    `entry_of(key, indent)` returns the lines of one key, `above` is the path of the part with a dot after it.
    """
    indent = "  " * above.count(".")
    for name, inner in tree.items():
        if inner is None:
            yield from entry_of(f"{above}{name}", indent)
        else:
            yield f"{indent}{name}:"
            yield from _lines(inner, entry_of, f"{above}{name}.")


def _entry(key: ConfigKey, config: RunConfig, defaults: RunConfig, indent: str) -> Iterator[str]:
    """Yield a key with its value, under its docstring, its type and its default."""
    doc = field_docs(key.owner).get(key.name, "")
    default = plain(_value_of(defaults, key.path))
    takes = f"{describe(key.hint)}; default {shown(default)}"
    about = f"{doc} ({takes})" if doc else takes.capitalize()
    yield from _comment(about, indent)
    value = plain(_value_of(config, key.path))
    document = dump({key.name: value})
    yield from textwrap.indent(document, indent).splitlines()


def _comment(text: str, indent: str) -> list[str]:
    """Return the lines of a comment."""
    lead = f"{indent}# "
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=lead,
        subsequent_indent=lead,
        break_on_hyphens=False,
    )


def _value_of(config: RunConfig, path: str) -> Any:
    """Return the value at a dotted path."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


if __name__ == "__main__":
    sys.exit(main())

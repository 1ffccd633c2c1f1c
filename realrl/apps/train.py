"""Runs a recipe: `realrl RECIPE [--config FILE.yaml] [key.path=value ...] [--dry-run]`.

A file that names its recipe needs no RECIPE. `realrl submit ...` is the same for runs on a cluster.

Exit codes: 0 done, 1 the run failed, 2 bad input, 130 stopped by Ctrl-C, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from realrl.api.config_keys import config_keys
from realrl.api.configure import build_config, recipe_of
from realrl.api.overrides import replaced_overrides
from realrl.api.suggestions import suggested_key
from realrl.apps.command_line import (
    BAD_INPUT,
    FAILED,
    OK,
    Parser,
    complain,
    mention,
    run_command,
)
from realrl.apps.verbs import SUBMIT
from realrl.base.terminal import show
from realrl.recipes import RECIPES
from realrl.recipes.registry import find_recipe

if TYPE_CHECKING:
    from realrl.apps.preparation import PreparedRun


def main(argv: Sequence[str] | None = None) -> int:
    """Run a recipe; return the exit code."""
    return run_command(_main, argv)


class _TrainParser(Parser):
    """A parser that suggests a key for an unknown option, because other trainers set keys by options."""

    def hint(self, option: str) -> str:
        """Return the end of a message about an unknown option: the option or key that was probably meant."""
        near = super().hint(option)
        if near:
            return near
        key = option.lstrip("-").replace("-", "_")
        known = _known_keys()
        meant = key if key in known else suggested_key(key, [], known)
        if meant is None:
            return ""
        return f"; keys have no dashes: did you mean {meant}=VALUE?"


def _known_keys() -> list[str]:
    """Return the keys of all recipes, each once."""
    known: dict[str, None] = {}
    for recipe in RECIPES.values():
        for key in config_keys(type(recipe.default_config)):
            known[key.path] = None
    return list(known)


def make_parser() -> Parser:
    """Return the parser of the command's options."""
    parser = _TrainParser(prog="realrl train", add_help=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--config", type=Path, help="a YAML file of keys that differ from the defaults")
    parser.add_argument("--dry-run", action="store_true", help="print what would run; start nothing")
    parser.add_argument("-h", "--help", action="store_true", help="print this; with a recipe, its keys")
    return parser


def _main(argv: Sequence[str]) -> int:
    try:
        arguments = _parse(argv)
        if arguments.help:
            return _print_manual(arguments)
        recipe = find_recipe(arguments.recipe)
        config = build_config(
            recipe.default_config,
            arguments.config,
            arguments.overrides,
            recipe=recipe.name,
        )
        if arguments.submits and config.uses_this_host:
            raise ValueError(
                "mode: submit is for a cluster; set mode=slurm or mode=ray, or leave `submit` out"
            )
        from realrl.apps.preparation import check_start, prepare

        prepared = prepare(recipe, config)
        for earlier, later in replaced_overrides(arguments.overrides):
            mention(f"{earlier} is replaced by {later}, which comes later on the command line")
        if arguments.dry_run:
            return _show(prepared)
        prepared = check_start(prepared)
    except ValueError as error:
        return complain(str(error), BAD_INPUT)
    return _start(prepared)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line.

    The result has `submits`, `recipe` and `overrides` in addition to the parser's options.
    """
    arguments = make_parser().parse_intermixed_args(list(argv))
    words = list(arguments.words)
    arguments.submits = words[:1] == [SUBMIT]
    if arguments.submits:
        words.pop(0)
    if words and "=" not in words[0]:
        arguments.recipe = words.pop(0)
    else:
        arguments.recipe = _named_in(arguments.config)
    arguments.overrides = words
    return arguments


def _named_in(file: Path | None) -> str | None:
    """Return the recipe that a file names; a pipe can be read only once, so it cannot name one."""
    if file is None or _is_pipe(file):
        return None
    return recipe_of(file)


def _is_pipe(file: Path) -> bool:
    """Return whether a path is that of a pipe."""
    try:
        return file.is_fifo()
    except OSError:
        # No file can have this name; reading it gives the message.
        return False


def _print_manual(arguments: argparse.Namespace) -> int:
    """Print the manual of all recipes, or of one, or of keys with certain words."""
    from realrl.apps.manual import manual

    recipes = list(RECIPES.values())
    if arguments.recipe is not None:
        recipes = [find_recipe(arguments.recipe)]
    words = [word.partition("=")[0] for word in arguments.overrides]
    sys.stdout.write(manual(recipes, words))
    return OK


def _show(prepared: PreparedRun) -> int:
    """Print what a run would do."""
    from realrl.apps.dry_run import render

    show(render(prepared))
    sys.stdout.flush()
    return OK


def _start(prepared: PreparedRun) -> int:
    """Start a run, here or in a cluster's queue, and wait for its end."""
    from realrl.launch.modes import goes_to_queue, open_launcher
    from realrl.launch.workers import imports_of
    from realrl.runtime.failure import RunFailed, RunRefused
    from realrl.runtime.run import run

    config = prepared.config
    plan = prepared.plan
    try:
        if goes_to_queue(config):
            return _run_in_queue(prepared)
        try:
            launcher = open_launcher(config, plan.num_workers, imports_of(plan))
        except ValueError as error:
            return complain(str(error), BAD_INPUT)
        run(prepared.recipe, config, plan, launcher, notes=prepared.notes)
    except RunRefused as error:
        return complain(str(error), BAD_INPUT)
    except RunFailed as error:
        return complain(str(error), FAILED)
    return OK


def _run_in_queue(prepared: PreparedRun) -> int:
    """Submit the same command as a job, and follow it to its end."""
    from realrl.launch.queue import follow, submit

    config = prepared.config
    job = submit(prepared.recipe.name, config, prepared.plan.num_workers)
    code, message = follow(job, config)
    return complain(message, code) if code else OK


if __name__ == "__main__":
    sys.exit(main())

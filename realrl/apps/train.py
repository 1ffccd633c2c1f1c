"""Runs a recipe: `realrl RECIPE [--config FILE.yaml] [key.path=value ...] [--dry-run]`.

A file that names its recipe needs no RECIPE. `realrl submit ...` is the same for what runs on a cluster.

Exit codes: 0 done, 1 the run failed, 2 bad input, 130 stopped by Ctrl-C,
143 stopped by SIGTERM.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from realrl.api.configure import build_config, config_keys, recipe_of, replaced_overrides
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
from realrl.base.spelling import did_you_mean
from realrl.base.terminal import show
from realrl.recipes import RECIPES
from realrl.recipes.registry import RecipeEntry

if TYPE_CHECKING:
    from realrl.apps.preparation import PreparedRun


def main(argv: Sequence[str] | None = None) -> int:
    """Run a recipe; return the exit code."""
    return run_command(_main, argv)


class _TrainParser(Parser):
    """A parser that knows that keys have no dashes."""

    def hint(self, option: str) -> str:
        if near := super().hint(option):
            return near
        key = option.lstrip("-").replace("-", "_")
        configs = [type(entry.default_config) for entry in RECIPES.entries.values()]
        known = dict.fromkeys(found.path for config in configs for found in config_keys(config))
        meant = key if key in known else suggested_key(key, [], known)
        return f"; keys have no dashes: did you mean {meant}=VALUE?" if meant else ""


def make_parser() -> Parser:
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
        entry = _chosen(arguments.recipe)
        config = build_config(entry.default_config, arguments.config, arguments.overrides, recipe=entry.name)
        if arguments.submits and config.mode == "local":
            raise ValueError(
                "mode: submit is for a cluster; set mode=slurm or mode=ray, or leave `submit` out"
            )
        from realrl.apps.preparation import check_start, prepare

        recipe = entry.load()
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
    arguments = make_parser().parse_intermixed_args(list(argv))
    arguments.submits = arguments.words[:1] == [SUBMIT]
    words = arguments.words[arguments.submits :]
    named = [word for word in words[:1] if "=" not in word]
    arguments.recipe = named[0] if named else _named_in(arguments.config)
    arguments.overrides = words[len(named) :]
    return arguments


def _named_in(file: Path | None) -> str | None:
    """The recipe that a file names; a pipe can be read but once, and is not for that."""
    return None if file is None or _is_pipe(file) else recipe_of(file)


def _is_pipe(file: Path) -> bool:
    try:
        return file.is_fifo()
    except OSError:  # a name that no file can have; who reads it says so
        return False


def _print_manual(arguments: argparse.Namespace) -> int:
    from realrl.apps.manual import manual

    entries = list(RECIPES.entries.values()) if arguments.recipe is None else [_chosen(arguments.recipe)]
    sys.stdout.write(manual(entries, [word.partition("=")[0] for word in arguments.overrides]))
    return OK


def _chosen(name: str | None) -> RecipeEntry:
    if name in RECIPES:
        return RECIPES.entries[name]
    got = "none" if name is None else repr(name)
    hint = did_you_mean(name or "", RECIPES)
    raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, got {got}{hint}")


def _show(prepared: PreparedRun) -> int:
    from realrl.apps.dry_run import render

    show(render(prepared))
    sys.stdout.flush()
    return OK


def _start(prepared: PreparedRun) -> int:
    from realrl.launch.modes import goes_to_queue, open_launcher
    from realrl.runtime.failure import RunFailed, RunRefused
    from realrl.runtime.run import run

    config, plan = prepared.config, prepared.plan
    try:
        if goes_to_queue(config):
            return _run_in_queue(prepared)
        try:
            launcher = open_launcher(config, plan)
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
    code, word = follow(submit(prepared.recipe.name, config, prepared.plan.num_workers), config)
    return complain(word, code) if code else OK


if __name__ == "__main__":
    sys.exit(main())

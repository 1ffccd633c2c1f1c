"""Completion in a shell: `realrl completion bash|zsh|fish` prints the script that the shell loads.

The script calls `realrl` for each TAB, which answers here, by argcomplete, from the parsers of the commands
and from the configs of the recipes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

import argcomplete
from argcomplete.completers import FilesCompleter
from argcomplete.lexers import split_line

from realrl.api.config import RunConfig
from realrl.api.config_keys import ConfigKey, config_keys, describe, shown
from realrl.api.configure import recipe_of
from realrl.apps.command_line import BAD_INPUT, OK, Parser, complain, run_command
from realrl.apps.manual import default_of, summary
from realrl.apps.verbs import SUBMIT, VERBS, commands
from realrl.recipes import RECIPES

Completer = Callable[..., Iterable[str]]
"""Returns the completions of a word; argcomplete calls it with keywords. The values of a mapping are shown
as descriptions."""

LOADED_BY = {
    "bash": """eval "$(realrl completion bash)" in ~/.bashrc""",
    "zsh": """eval "$(realrl completion zsh)" after compinit in ~/.zshrc""",
    "fish": """realrl completion fish | source in ~/.config/fish/config.fish""",
}
"""Shells, and how each loads its script."""
_FILES = ("path", "eval_path", "solutions_path", "runs_dir")
"""Last names of keys that take files or folders."""
_STATUS = "status.json"
_SUBMITS = "run a recipe on a cluster"


def main(argv: Sequence[str] | None = None) -> int:
    """Print a shell's completion script; return the exit code."""
    return run_command(_main, argv)


def make_parser() -> Parser:
    """Return the parser of the command's options."""
    ways = "; ".join(f"{shell}: {way}" for shell, way in LOADED_BY.items())
    parser = Parser(prog="realrl completion", description=f"Print a shell's completion script. {ways}")
    parser.add_argument("shell", choices=list(LOADED_BY))
    return parser


def _main(argv: Sequence[str]) -> int:
    try:
        shell = make_parser().parse_args(list(argv)).shell
    except ValueError as error:
        return complain(str(error), BAD_INPUT)
    sys.stdout.write(argcomplete.shellcode(["realrl"], True, shell))
    return OK


def complete() -> NoReturn:
    """Answer the shell, and end the process."""
    cursor = int(os.environ["COMP_POINT"])
    _, _, _, words, _ = split_line(os.environ["COMP_LINE"], cursor)
    parser, before = parser_of(words[1:])
    # argcomplete skips as many words, less one, as this variable says.
    os.environ["_ARGCOMPLETE"] = str(1 + before)
    _Finder()(parser, always_complete_options="long")
    raise AssertionError("argcomplete ends the process")


class _Finder(argcomplete.CompletionFinder):
    """A finder for parsers that take options between positional words, as `parse_intermixed_args` does."""

    def _get_completions(self, comp_words: list[str], *rest: Any) -> list[str]:
        program, *words = comp_words
        parser = self._parser
        assert parser is not None, "a finder is called with a parser"
        reordered = _options_first(parser, words)
        return super()._get_completions([program, *reordered], *rest)


def _options_first(parser: argparse.ArgumentParser, words: Iterable[str]) -> list[str]:
    """Return the same words with options and their values first.

    An option that does not have its value yet is the last word.
    """
    options: list[str] = []
    others: list[str] = []
    without_value: list[str] = []
    for word in words:
        action = parser._option_string_actions.get(word)
        if without_value:
            options += [*without_value, word]
            without_value = []
        elif action is not None and action.nargs is None:
            without_value = [word]
        elif word.startswith("-"):
            options.append(word)
        else:
            others.append(word)
    return [*options, *others, *without_value]


def parser_of(words: Sequence[str]) -> tuple[Parser, int]:
    """Return the parser for a command line, and how many of its words it does not parse.

    `words` are those after `realrl` and before the cursor.
    """
    if not words:
        return _first_word_parser(), 0
    if words[0] not in VERBS:
        return _train_parser(), 0
    if words[0] == "train":
        return _train_parser(), 1
    parser = VERBS[words[0]].load().make_parser()
    for action in parser._actions:
        if action.metavar == "RUN":
            _complete_by(action, _runs)
    return parser, 1


def _complete_by(action: argparse.Action, completer: Completer) -> None:
    """Let argcomplete complete an argument by `completer`: it looks for an attribute of that name."""
    vars(action)["completer"] = completer


def _first_word_parser() -> Parser:
    """Return the parser for a command line without any words."""
    parser = Parser(prog="realrl")
    parser.add_argument("--version", action="store_true", help="print the version")
    does = {name: verb.does for name, verb in VERBS.items()}
    does[SUBMIT] = _SUBMITS
    does.update(_recipes())
    first = parser.add_argument("command", choices=commands())
    _complete_by(first, lambda **_: does)
    return parser


def _train_parser() -> Parser:
    """Return the parser of a run."""
    parser = VERBS["train"].load().make_parser()
    for action in parser._actions:
        if action.dest == "config":
            _complete_by(action, FilesCompleter(("yaml", "yml")))
        if action.dest == "words":
            _complete_by(action, lambda prefix, parsed_args, **_: _words(prefix, parsed_args))
    return parser


def _recipes() -> dict[str, str]:
    """Return what each recipe does."""
    return {name: summary(recipe.default_config) for name, recipe in RECIPES.items()}


def _words(prefix: str, arguments: argparse.Namespace) -> Mapping[str, str]:
    """Return the words that may come next: recipes if none is named yet, else keys, or a key's values."""
    given = list(arguments.words or ())
    named = [word for word in given if word in RECIPES] or _named_in(arguments.config)
    if not named:
        words = _recipes()
        if not given:
            words[SUBMIT] = _SUBMITS
        return words
    default = RECIPES[named[0]].default_config
    keys = {key.path: key for key in config_keys(type(default))}
    path, sign, begun = prefix.partition("=")
    if not sign:
        return {f"{key}=": describe(keys[key].hint) for key in keys}
    if path not in keys:
        return {}
    values = _values(keys[path], default, begun)
    return {f"{path}={value}": "" for value in values}


def _named_in(file: Path | None) -> list[str]:
    """Return the recipe that a file names, if there is such a recipe."""
    # A pipe can be read only once, and is left for the command.
    if file is None or file.is_fifo():
        return []
    try:
        name = recipe_of(file)
    except ValueError:
        return []
    if name is None or name not in RECIPES:
        return []
    return [name]


def _values(key: ConfigKey, default: RunConfig, begun: str) -> Iterable[str]:
    """Return values of a key: its choices, files that begin with `begun`, or else its default."""
    choices = list(_choices(key.hint))
    if choices:
        return choices
    if key.name in _FILES:
        return FilesCompleter()(begun)
    value = default_of(default, key)
    if isinstance(value, str):
        return [value] if value else []
    return [shown(value)] if isinstance(value, (int, float)) else []


def _choices(hint: Any) -> Iterable[str]:
    """Yield the values of a type that has only some."""
    if hint is bool:
        yield from ("true", "false")
    elif get_origin(hint) is Literal:
        yield from map(str, get_args(hint))
    else:
        for part in get_args(hint):
            yield from _choices(part)


def _runs(prefix: str, **_: Any) -> list[str]:
    """Return the runs below `runs`, as EXPERIMENT/TRIAL, and folders."""
    found = []
    for path in Path("runs").glob(f"*/*/{_STATUS}"):
        run = path.parent.relative_to("runs")
        found.append(str(run))
    found += FilesCompleter()(prefix)
    return found


if __name__ == "__main__":
    sys.exit(main())

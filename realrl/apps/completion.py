"""Completion in a shell: `realrl completion bash|zsh|fish` prints the script that the shell loads.

The script calls `realrl` for each TAB, which answers here, by argcomplete, from the parsers of the commands
and from the configs of the recipes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

import argcomplete
from argcomplete.completers import FilesCompleter
from argcomplete.lexers import split_line

from realrl.api.configure import ConfigKey, config_keys, describe, recipe_of, shown
from realrl.apps.command_line import BAD_INPUT, OK, Parser, complain, run_command
from realrl.apps.manual import default_of, summary
from realrl.apps.verbs import SUBMIT, VERBS, commands
from realrl.recipes import RECIPES

LOADED_BY = {
    "bash": """eval "$(realrl completion bash)" in ~/.bashrc""",
    "zsh": """eval "$(realrl completion zsh)" after compinit in ~/.zshrc""",
    "fish": """realrl completion fish | source in ~/.config/fish/config.fish""",
}
"""Shells, and how each loads its script."""
_FILES = ("path", "eval_path", "solutions_path", "runs_dir")
"""Keys, by their last name, that take files or folders."""
_STATUS = "status.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Print a shell's completion script; return the exit code."""
    return run_command(_main, argv)


def make_parser() -> Parser:
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
    _, _, _, words, _ = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))
    parser, before = parser_of(words[1:])
    # argcomplete skips as many words, less one, as this variable says.
    os.environ["_ARGCOMPLETE"] = str(1 + before)
    _Finder()(parser, always_complete_options="long")
    raise AssertionError("argcomplete ends the process")


class _Finder(argcomplete.CompletionFinder):
    """A finder for parsers that take options between positional words, as `parse_intermixed_args` does."""

    def _get_completions(self, comp_words: list[str], *rest: Any) -> list[str]:
        program, *words = comp_words
        return super()._get_completions([program, *_options_first(self._parser, words)], *rest)


def _options_first(parser: argparse.ArgumentParser, words: Iterable[str]) -> list[str]:
    """The same words with options, and their values, before the others; but an option that has yet to get its
    value is the last.
    """
    options, others, waiting = [], [], []
    for word in words:
        action = parser._option_string_actions.get(word)
        if waiting:
            options += [*waiting, word]
            waiting = []
        elif action is not None and action.nargs is None:
            waiting = [word]
        else:
            (options if word.startswith("-") else others).append(word)
    return [*options, *others, *waiting]


def parser_of(words: Sequence[str]) -> tuple[Parser, int]:
    """The parser for a command line, of which `words` are those after `realrl` and before the cursor; and how
    many of them it does not parse.
    """
    if not words:
        return _first_word_parser(), 0
    if words[0] not in VERBS:
        return _train_parser(words), 0
    if words[0] == "train":
        return _train_parser(words[1:]), 1
    parser = VERBS[words[0]].load().make_parser()
    for action in parser._actions:
        if action.metavar == "RUN":
            action.completer = _runs
    return parser, 1


def _first_word_parser() -> Parser:
    parser = Parser(prog="realrl")
    parser.add_argument("--version", action="store_true", help="print the version")
    does = {name: verb.does for name, verb in VERBS.items()} | {SUBMIT: "run a recipe on a cluster"}
    does |= {name: summary(recipe.default_config) for name, recipe in RECIPES.items()}
    first = parser.add_argument("command", choices=commands())
    first.completer = lambda **_: does
    return parser


def _train_parser(words: Sequence[str]) -> Parser:
    """The parser of a run, of which `words` come before the cursor."""
    parser = VERBS["train"].load().make_parser()
    for action in parser._actions:
        if action.dest == "config":
            action.completer = FilesCompleter(("yaml", "yml"))
        if action.dest == "words":
            action.completer = lambda prefix, parsed_args, **_: _words(prefix, parsed_args)
    return parser


def _words(prefix: str, arguments: argparse.Namespace) -> Mapping[str, str]:
    """Recipes where none is named yet; else keys, or the values of one."""
    given = list(arguments.words or ())
    named = [word for word in given if word in RECIPES] or _named_in(arguments.config)
    if not named:
        words = {name: summary(recipe.default_config) for name, recipe in RECIPES.items()}
        return words if given else {**words, SUBMIT: "run a recipe on a cluster"}
    default = RECIPES[named[0]].default_config
    keys = {key.path: key for key in config_keys(type(default))}
    path, sign, value = prefix.partition("=")
    if not sign:
        return {f"{path}=": describe(key.hint) for path, key in keys.items()}
    if path not in keys:
        return {}
    return {f"{path}={v}": "" for v in _values(keys[path], default, value)}


def _named_in(file: Path | None) -> list[str]:
    """The recipe that a file names, if it is one that there is."""
    try:
        name = None if file is None or file.is_fifo() else recipe_of(file)
    except ValueError:
        return []
    return [name] if name in RECIPES else []


def _values(key: ConfigKey, default: Any, begun: str) -> Iterable[str]:
    """Values of a key: its choices, files, or else its default."""
    choices = list(_choices(key.hint))
    if choices:
        return choices
    if key.name in _FILES:
        return FilesCompleter()(begun)
    value = default_of(default, key)
    is_plain = isinstance(value, (str, int, float)) and value != ""
    return [value if isinstance(value, str) else shown(value)] if is_plain else []


def _choices(hint: Any) -> Iterable[str]:
    if hint is bool:
        yield from ("true", "false")
    elif get_origin(hint) is Literal:
        yield from map(str, get_args(hint))
    else:
        for part in get_args(hint):
            yield from _choices(part)


def _runs(prefix: str, **_: Any) -> list[str]:
    """Runs below `runs`, as EXPERIMENT/TRIAL, and folders."""
    found = Path("runs").glob(f"*/*/{_STATUS}")
    return [str(path.parent.relative_to("runs")) for path in found] + list(FilesCompleter()(prefix))


if __name__ == "__main__":
    sys.exit(main())

"""The command `realrl`: runs the command or the recipe that its first word names.

Heavy packages are imported only when they are needed: help, completion and the commands that only read files
start in a few hundredths of a second, training in seconds.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence

from realrl import __version__
from realrl.apps.command_line import BAD_INPUT, FAILED, OK, complain, run_command
from realrl.apps.verbs import GENERATING, GROUPS, SUBMIT, VERBS, commands
from realrl.base.spelling import did_you_mean
from realrl.recipes import RECIPES
from realrl.recipes.registry import is_recipe

COMPLETING = "_ARGCOMPLETE"
"""The variable that a shell's completion script sets."""
USAGE = f"""\
realrl {__version__}: reinforcement learning for language models

usage: realrl COMMAND [options]
       realrl [{SUBMIT}] RECIPE [--config FILE.yaml] [key.path=value ...] [--dry-run]
"""
HINTS = """\
`realrl COMMAND --help` shows its options, `realrl RECIPE --help` every key, `--help WORD` those with WORD.
Exit codes: 0 done, 1 failed, 2 bad input, 130 stopped by Ctrl-C, 143 stopped by SIGTERM.
"""
_LINE = "  {:<11} {}\n"
_WIDTH = 110


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the first word names; return the exit code."""
    if COMPLETING in os.environ:
        from realrl.apps.completion import complete

        complete()
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    words = list(argv)
    if words[:1] in ([], ["-h"], ["--help"], ["help"]):
        sys.stdout.write(overview())
        return OK
    if _is_unknown(words[0]):
        return complain(_unknown(words[0]), BAD_INPUT)
    name, rest = _verb_of(words)
    try:
        command = VERBS[name].load()
    except ValueError as error:
        return complain(str(error), FAILED)
    return command.main(rest)


def _verb_of(words: list[str]) -> tuple[str, list[str]]:
    """Return a command and its own words; words that name no command are for `train`."""
    first, *rest = words
    if first in ("-V", "--version"):
        return "version", rest
    if first in VERBS:
        return first, rest
    return "train", words


def overview() -> str:
    """Return the help, which fits on one screen."""
    does = {name: verb.does for name, verb in VERBS.items()}
    does[GENERATING] = "answer prompts with a model, graded where there are solutions"
    text = USAGE
    for title, names in GROUPS.items():
        text += f"\n{title}\n"
        for name in names:
            text += _LINE.format(name, does[name])
    recipes = textwrap.fill(
        ", ".join(RECIPES),
        width=_WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
        break_on_hyphens=False,
    )
    return f"{text}\nrecipes\n{recipes}\n\n{HINTS}"


def _is_unknown(word: str) -> bool:
    """Return whether a first word is neither a command, nor a recipe, an option or a key with its value."""
    is_option = word.startswith("-")
    is_override = "=" in word
    is_known = word in commands() or is_recipe(word)
    return not is_option and not is_override and not is_known


def _unknown(word: str) -> str:
    """Return the message about an unknown first word."""
    if word.endswith((".yaml", ".yml")):
        return f"{word!r}: expected a command or a recipe; a file is given as --config {word}"
    hint = did_you_mean(word, commands()) or "; `realrl --help` lists both"
    return f"{word!r}: expected a command or a recipe{hint}"


if __name__ == "__main__":
    sys.exit(main())

"""The command line as a person would use it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from realrl.apps import train


def command(recipe: str, overrides: Mapping[str, object]) -> list[str]:
    """That runs a recipe, with keys set."""
    return [sys.executable, "-m", "realrl.apps.quickstart", *words(recipe, overrides)]


def run_recipe(recipe: str, overrides: Mapping[str, object]) -> str:
    """Run a recipe until it has ended well; returns what it said.

    Its master is this process, so that what it needs is imported once; workers are processes, as ever. It has
    no logger, which would be a process too.
    """
    code, said = call(train.main, words(recipe, {"logger": "[]", **overrides}))
    assert code == 0, said
    return said


def call(main: Callable[[Sequence[str]], int], words: Sequence[str]) -> tuple[int, str]:
    """The exit code of a command that this process carries out, and what it said."""
    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = main(words)
    return code, said.getvalue()


def words(recipe: str, overrides: Mapping[str, object]) -> list[str]:
    """The arguments of the command line that run a recipe, with keys set."""
    return [recipe, *(f"{key}={value}" for key, value in overrides.items())]

"""The commands of `realrl`; the module of each is imported when it is used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from realrl.recipes import RECIPES


class Verb(NamedTuple):
    """A command."""

    module: str
    """The module with `main(argv) -> exit code` and `make_parser()`."""
    does: str
    """What it does, for the help."""

    def load(self) -> ModuleType:
        """Import the command.

        Raises:
            ValueError: a package that it needs is not installed.
        """
        try:
            return import_module(self.module)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            # A missing module of realrl's own is a defect.
            if package == __name__.partition(".")[0]:
                raise
            raise ValueError(
                f"{package}: this package is not installed; install realrl again, with what it needs"
            ) from error


VERBS = {
    "init": Verb("realrl.apps.init", "write a commented YAML file for a run of your own"),
    "doctor": Verb("realrl.apps.doctor", "check this machine: torch, memory, network, GPU, packages"),
    "train": Verb("realrl.apps.train", "train with a recipe; `realrl RECIPE` is the same"),
    "eval": Verb("realrl.apps.evaluate", "evaluate a model on benchmarks or on problems of your own"),
    "grade": Verb("realrl.apps.grade", "compare answers in a file with their solutions"),
    "status": Verb("realrl.apps.status", "show what a run's workers do and what they wait for"),
    "stacks": Verb("realrl.apps.stacks", "print the Python stacks of a run's workers"),
    "replay": Verb("realrl.apps.replay", "follow a run's scheduler through its event log"),
    "report": Verb("realrl.apps.report", "write a report of runs that opens in any browser"),
    "completion": Verb("realrl.apps.completion", "print the completion script of bash, zsh or fish"),
    "version": Verb("realrl.apps.version", "print the version"),
}
"""In the order of the help."""
SUBMIT = "submit"
"""The word before a recipe that goes to a cluster."""
GENERATING = "gen"
"""The recipe that the help shows as a command."""
GROUPS = {
    "begin": ("init", "doctor"),
    "run": ("train", GENERATING, "eval", "grade"),
    "look at a run": ("status", "stacks", "replay", "report"),
    "other": ("completion", "version"),
}


def commands() -> list[str]:
    """Return every word that may come first."""
    return [*VERBS, SUBMIT, *RECIPES]

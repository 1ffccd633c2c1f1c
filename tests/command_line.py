"""The command line as a person would use it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

_DEADLINE_S = 180


def command(recipe: str, overrides: Mapping[str, object]) -> list[str]:
    """That runs a recipe, with keys set."""
    given = [f"{key}={value}" for key, value in overrides.items()]
    return [sys.executable, "-m", "realrl.apps.quickstart", recipe, *given]


def run_recipe(recipe: str, overrides: Mapping[str, object]) -> None:
    """Until it has ended well."""
    done = subprocess.run(command(recipe, overrides), capture_output=True, text=True, timeout=_DEADLINE_S)
    assert done.returncode == 0, done.stdout + done.stderr

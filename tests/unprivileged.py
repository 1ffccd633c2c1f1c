"""Commands as an ordinary user gives them, also in tests that root runs."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534
_STARTS_ITSELF = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'import yaml']))"


def prefix() -> list[str]:
    """What to put before a command, so that it has no privilege: nothing where this process has none.

    Where an ordinary user cannot read the interpreter (root's own, in root's home), that alone is allowed.
    """
    if os.getuid() != 0:
        return []
    return list(_prefix_of_root())


@functools.cache
def _prefix_of_root() -> tuple[str, ...]:
    for allowed in ("", ",+dac_read_search"):
        found = tuple(_setpriv(allowed))
        command = [*found, sys.executable, "-c", _STARTS_ITSELF]
        if shutil.which("setpriv") and not subprocess.call(command, stderr=subprocess.DEVNULL):
            return found
    pytest.skip("an ordinary user cannot start this interpreter here")


def _setpriv(allowed: str) -> Iterator[str]:
    yield from ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs")
    for kind in ("inh", "ambient", "bounding"):
        yield f"--{kind}-{'set' if kind == 'bounding' else 'caps'}=-all{allowed}"


def give_to_user(folder: Path) -> None:
    """Let the user of such commands do with a folder, and what is in it, as with its own."""
    if os.getuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)

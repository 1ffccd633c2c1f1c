"""Which operators and functions of PyTorch there are in the releases that are supported, as data.

`torch_names.txt` has the names that the package uses, `torch-*.json` what each release says of them. After
a new name:

    python -m tests.rehearsal.used >> tests/rehearsal/torch_names.txt
    python scripts/torch_signatures.py tests/rehearsal/torch_names.txt > tests/rehearsal/torch-2.13.json

and the latter with an interpreter of every other release, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent


@cache
def releases() -> list[dict]:
    """What each release has; see `scripts/torch_signatures.py`."""
    return [json.loads(path.read_text()) for path in sorted(FOLDER.glob("torch-*.json"))]


@cache
def names() -> frozenset[str]:
    return frozenset((FOLDER / "torch_names.txt").read_text().split())


def check(name: str, keywords: Iterable[str]) -> None:
    """Raise AssertionError unless every release has an operator or function with these keyword arguments."""
    faults = list(_faults(name, frozenset(keywords)))
    assert not faults, f"{name}: {'; '.join(faults)}"


@cache
def _faults(name: str, keywords: frozenset[str]) -> tuple[str, ...]:
    if name not in names():
        return ("not in torch_names.txt, see tests/rehearsal/signatures.py",)
    found = []
    for release in releases():
        known = release["functions" if name.startswith("torch") else "operators"]
        if name not in known:
            found.append(f"torch {release['torch']} has none")
        elif known[name] is not None and (unknown := sorted(keywords - set(known[name]))):
            found.append(f"torch {release['torch']} takes no {', '.join(unknown)}")
    return tuple(found)

"""What a release of PyTorch calls by which names, as data for tests/rehearsal/test_signatures.py.

    python scripts/torch_signatures.py NAMES > tests/rehearsal/torch-2.13.json

NAMES is a file with a line for each operator (`aten.mm.default`) and each function (`torch.empty`), see
tests/rehearsal/signatures.py; the interpreter that runs this has the release.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch


def operators(names: Iterable[str]) -> dict[str, list[str]]:
    """Each operator that the release has, and its arguments."""
    found = {}
    for schema in torch._C._jit_get_all_schemas():
        name = schema.name.replace("::", ".") + "." + (schema.overload_name or "default")
        found[name] = [argument.name for argument in schema.arguments]
    return {name: found[name] for name in names if name in found}


def functions(names: Iterable[str]) -> dict[str, list[str] | None]:
    """Each function that the release has, and its parameters; None where it takes any, or does not say."""
    found = {}
    for name in names:
        try:
            found[name] = _parameters(_named(name))
        except AttributeError:
            continue
    return found


def _named(name: str) -> Any:
    """What has a dotted name: an attribute of the innermost module that can be imported."""
    parts = name.split(".")
    for number in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:number]))
        except ModuleNotFoundError:
            continue
        for part in parts[number:]:
            found = getattr(found, part)
        return found
    raise AttributeError(name)


def _parameters(function: Any) -> list[str] | None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    return None if takes_any else [p.name for p in parameters]


def main() -> None:
    names = Path(sys.argv[1]).read_text().split()
    said = {
        "torch": torch.__version__.partition("+")[0],
        "operators": operators(sorted(n for n in names if not n.startswith("torch"))),
        "functions": functions(sorted(n for n in names if n.startswith("torch"))),
    }
    print(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()

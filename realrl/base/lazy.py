"""Submodules of a package that are imported when they are first used (PEP 562).

A recipe's file has its config and the bodies of its calls. Help and completion read the config alone; what
only bodies need, and with it torch, must not be imported for them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType


def lazy_submodules(package: str, *names: str) -> Callable[[str], ModuleType]:
    """Return a `__getattr__` for `package` that imports the submodule of one of these names.

    Raises (the returned function):
        AttributeError: a name that is none of them.
    """

    def load(name: str) -> ModuleType:
        """Import the submodule of this name."""
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return import_module(f"{package}.{name}")

    return load

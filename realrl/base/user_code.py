"""What a user's Python file defines, named as `path/to/file.py:NAME`."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def is_reference(text: str) -> bool:
    """Whether a text has the form `path/to/file.py:NAME`."""
    path, _, name = text.rpartition(":")
    return path.endswith(".py") and name.isidentifier()


def load_user_object(key: str, reference: str, what: str) -> Any:
    """Return what a Python file defines under a name; the file is run for that, once in a process.

    `key` is the config's key that gives the reference; errors begin with it. `what` is what is looked for, in
    words.

    Raises:
        ValueError: it names no file, the file cannot be run, or it defines no such name.
    """
    path, _, name = reference.rpartition(":")
    try:
        module = _module(path)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    if name not in vars(module):
        raise ValueError(f"{key}: {path} has no {what} {name!r}; it has {_names(module)}")
    return vars(module)[name]


def load_user_function(key: str, reference: str, num_arguments: int, form: str) -> Callable[..., Any]:
    """Return a function of a Python file; `form` says in words how it is called.

    Raises:
        ValueError: as `load_user_object`; or it is no plain function with so many arguments.
    """
    function = load_user_object(key, reference, "function")
    if not callable(function):
        raise ValueError(f"{key}: {reference} is no function; expected one that is called as {form}")
    _check_call(key, reference, function, num_arguments, form)
    return function


def _check_call(
    key: str, reference: str, function: Callable[..., Any], num_arguments: int, form: str
) -> None:
    """Check that a function can be called with so many arguments, and gives its result at once.

    Raises:
        ValueError: it cannot.
    """
    if inspect.iscoroutinefunction(function):
        raise ValueError(
            f"{key}: {reference} is an async function; give a plain one, which returns the {key}"
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions of C modules have none that can be looked at
        return
    try:
        signature.bind(*("" for _ in range(num_arguments)))
    except TypeError:
        raise ValueError(
            f"{key}: {reference} takes {signature}, expected a function that can be called as {form}; change"
            " its parameters"
        ) from None


@functools.cache
def _module(path: str) -> ModuleType:
    file = Path(os.path.expanduser(path))
    if not file.is_file():
        raise ValueError(f"{path} is no file; give the path of a Python file, from here or absolute")
    # Files of one name in several folders are several modules.
    number = zlib.crc32(str(file.resolve()).encode())
    spec = importlib.util.spec_from_file_location(f"realrl_user_{file.stem}_{number:08x}", file)
    assert spec is not None and spec.loader is not None, f"{path} ends with .py"
    module = importlib.util.module_from_spec(spec)
    # A file's dataclasses look up their own module by name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a user's file raises, SystemExit of a script included
        raise ValueError(f"{path} cannot be loaded ({named(error)}); {_advice(error)}") from error
    return module


def named(error: BaseException) -> str:
    """Return an error's type and what it says."""
    return f"{type(error).__name__}: {error}"


def _advice(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return 'it ends the process when it is imported; guard that part by `if __name__ == "__main__"`'
    return "mend it"


def _names(module: ModuleType) -> str:
    """Return what a file defines itself: functions, classes and constants that are not private."""
    names = []
    for name, value in vars(module).items():
        is_own = getattr(value, "__module__", None) == module.__name__
        if not name.startswith("_") and (name.isupper() or (callable(value) and is_own)):
            names.append(name)
    return ", ".join(names) or "none"

"""Objects of a user's own Python files, named as `path/to/file.py:NAME`."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def is_file_reference(text: str) -> bool:
    """Return whether a setting names an object of a Python file."""
    path, _, name = text.rpartition(":")
    return path.endswith(".py") and name.isidentifier()


def load_from_file(
    reference: str, *, setting: str, what: str, fits: Callable[[object], bool], instead: str = ""
) -> object:
    """Return the object that a user's file has under a name. The file is run once in a process.

    Args:
        reference: `path/to/file.py:NAME`; a relative path starts at the working directory.
        setting: The dotted path of the setting, for messages.
        what: A word for what the name must stand for, as `function`.
        fits: Whether an object is such a thing.
        instead: Other values of the setting, for messages; it ends with "or ".

    Raises:
        ValueError: `reference` names no file, the file cannot be run, or it has no such object.
    """
    if not is_file_reference(reference):
        raise ValueError(f"{setting}: expected {instead}a path/to/file.py:{what}, got {reference!r}")
    path, _, name = reference.rpartition(":")
    file = Path(os.path.expanduser(path))
    if not file.is_file():
        raise ValueError(
            f"{setting}: {path} is no file; give the path of a Python file, from here or absolute"
        )
    try:
        module = _run(file.resolve())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a user's file raises, SystemExit of a script included
        raise ValueError(
            f"{setting}: {path} cannot be loaded ({describe_error(error)}); {_advice(error)}"
        ) from error
    found = getattr(module, name, None)
    if not fits(found):
        raise ValueError(f"{setting}: {path} has no {what} {name!r}; it has {_public_names(module, fits)}")
    return found


def load_function_from_file(
    reference: str, *, setting: str, num_arguments: int, form: str, instead: str = ""
) -> Callable[..., Any]:
    """Return a function of a user's file that can be called with so many arguments.

    Args:
        reference: `path/to/file.py:NAME`.
        setting: The dotted path of the setting, for messages.
        num_arguments: The number of positional arguments that it is called with.
        form: How it is called, in words, for messages.
        instead: Other values of the setting, for messages; it ends with "or ".

    Raises:
        ValueError: as `load_from_file`; or the function is async, or takes other arguments.
    """
    function = load_from_file(reference, setting=setting, what="function", fits=callable, instead=instead)
    assert callable(function), "load_from_file returns what fits"
    if inspect.iscoroutinefunction(function):
        raise ValueError(
            f"{setting}: {reference} is an async function; give a plain one, which returns the {setting}"
        )
    check_callable(function, reference, setting=setting, num_arguments=num_arguments, form=form)
    return function


def check_callable(
    function: Callable[..., Any], reference: str, *, setting: str, num_arguments: int, form: str
) -> None:
    """Check that a user's function can be called with so many positional arguments.

    Raises:
        ValueError: it takes others; the arguments are those of `load_function_from_file`.
    """
    signature = signature_of(function)
    if signature is None:
        return
    try:
        signature.bind(*([""] * num_arguments))
    except TypeError:
        raise ValueError(
            f"{setting}: {reference} takes {signature}, expected a function that can be called as {form};"
            " change its parameters"
        ) from None


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return a function's parameters; None for some functions of C modules, which say nothing of them."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def describe_error(error: BaseException) -> str:
    """Return an exception's type and message."""
    return f"{type(error).__name__}: {error}"


@functools.cache
def _run(file: Path) -> ModuleType:
    """Return the module that a file makes.

    It is registered under a name of its own: dataclasses and msgspec look their annotations up there.
    """
    digest = hashlib.sha256(os.fsencode(file)).hexdigest()[:8]
    name = f"realrl_user_{file.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None, f"{file} ends with .py, so it has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _advice(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return 'it ends the process when it is imported; guard that part by `if __name__ == "__main__"`'
    return "mend it"


def _public_names(module: ModuleType, fits: Callable[[object], bool]) -> str:
    """Return the names of a file's objects that fit."""
    names = [name for name, value in vars(module).items() if fits(value) and not name.startswith("_")]
    return ", ".join(names) or "none"

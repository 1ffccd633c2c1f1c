"""Launchers of a user's own, named as `path/to/file.py:NAME`."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from realrl.api.config import RunConfig
from realrl.api.launcher import Launcher
from realrl.base.user_files import describe_error, load_from_file

MakeLauncher = Callable[[RunConfig, int], Launcher]
"""Takes the config and the number of workers; a class is one."""

_METHODS = ("start", "poll", "explain", "log_path", "dump_stacks", "states", "wait", "stop", "close")
_ATTRIBUTES = ("host", "shares_proc")


def load_launcher(reference: str) -> MakeLauncher:
    """Return what makes the launcher that `path/to/file.py:NAME` names.

    Raises:
        ValueError: the file cannot be run, or what it has under the name cannot be such a function or class.
    """
    make = load_from_file(reference, setting="launcher", what="launcher", fits=callable)
    assert callable(make), "load_from_file returns what fits"
    try:
        inspect.signature(make).bind(None, 1)
    except TypeError:
        raise ValueError(
            f"launcher: {reference} takes {inspect.signature(make)}, expected a class or a function that can"
            " be called with the config and the number of workers; change its parameters"
        ) from None
    if inspect.isclass(make):
        # Attributes may be set by `__init__`, methods may not.
        _check_has(reference, make, _METHODS)
    return make


def open_own_launcher(reference: str, config: RunConfig, num_workers: int) -> Launcher:
    """Return a user's launcher, ready to start workers.

    Raises:
        ValueError: it cannot be made, or lacks a part of `realrl.api.launcher.Launcher`.
    """
    make = load_launcher(reference)
    try:
        launcher = make(config, num_workers)
    except Exception as error:  # whatever a user's file raises
        raise ValueError(f"launcher: {reference} raised {describe_error(error)}") from error
    _check_has(reference, launcher, (*_ATTRIBUTES, *_METHODS))
    return launcher


def _check_has(reference: str, launcher: object, names: tuple[str, ...]) -> None:
    missing = [name for name in names if not hasattr(launcher, name)]
    if missing:
        raise ValueError(
            f"launcher: {reference} has no {', '.join(missing)}; realrl.api.launcher.Launcher says what a"
            " launcher has"
        )

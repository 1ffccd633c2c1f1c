"""Marks of waits, which a process's Python stack shows to whoever looks for what holds up a run.

    wait_for_ranks(dist.all_reduce, tensor)      stack:  all_reduce
                                                         wait_for_ranks      <- it waits for other ranks
                                                         …

A process that hangs cannot say what it is doing, but its stack is seen from outside, even while C++ holds the
interpreter's lock. So a wait is called through one of these functions, and their names stand in the stack
from the first moment of the wait to its last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")


def wait_for_ranks(wait: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Call `wait`, which may return only after other ranks have done their part; return what it returns."""
    return wait(*args, **kwargs)


def wait_for_device(wait: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Call `wait`, which returns once a device has done its work, of which collectives may be part."""
    return wait(*args, **kwargs)


def wait_for_instruction(wait: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Call `wait`, which returns once the master has sent something; return what it returns."""
    return wait(*args, **kwargs)

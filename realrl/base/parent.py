"""Parents and children: a child that does not outlive its parent, and one that is given to another parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

PARENT_VARIABLE = "REALRL_PARENT"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_ADOPTED_EVERY_S = 0.001


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when `parent`, which started it, ends.

    Source: Linux, prctl(2), PR_SET_PDEATHSIG.
    """
    if not sys.platform.startswith("linux"):
        return
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have ended before the call.
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans(adopts: bool) -> None:
    """Have this process become the parent of descendants whose parent ends, or no longer.

    Source: Linux, prctl(2), PR_SET_CHILD_SUBREAPER.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, int(adopts))


def wait_for_adoption(old_parent: int) -> None:
    """Wait until `old_parent`, this process's parent, has ended and another process has taken its place."""
    while os.getppid() == old_parent:
        time.sleep(_ADOPTED_EVERY_S)


def _prctl(option: int, value: int) -> None:
    # The kernel takes longs: the upper half of a register that holds an int may be anything.
    arguments = map(ctypes.c_ulong, (value, 0, 0, 0))
    ctypes.CDLL(None).prctl(option, *arguments)

"""The entry point of a worker process, which launchers start.

Heavy imports come after the process is bound to its parent, so that no process is orphaned while it loads.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys

from realrl.base.parent import PARENT_VARIABLE, die_with_parent


def main() -> int:
    """Connect to the master, set up what it asks for, and serve it."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent:
        die_with_parent(int(parent))
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)

    from realrl.api.launcher import LOCAL_RANK_VARIABLE, RANK_VARIABLE
    from realrl.base.logging import logging_to
    from realrl.recipes.registry import find_recipe
    from realrl.runtime.control.worker_channel import WorkerChannel
    from realrl.runtime.worker.worker_setup import serve

    rank = int(os.environ[RANK_VARIABLE])
    local_rank = int(os.environ[LOCAL_RANK_VARIABLE])
    with logging_to(None, str(rank)):
        channel = WorkerChannel.from_environment(rank, os.environ)
        serve(channel, find_recipe, rank=rank, local_rank=local_rank)
    return 0


if __name__ == "__main__":
    sys.exit(main())

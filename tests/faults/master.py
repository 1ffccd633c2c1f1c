"""The command line, with a master and workers in which faults come about."""

from __future__ import annotations

import sys
from functools import partial

from realrl.apps.quickstart import main
from realrl.launch import modes
from realrl.launch.local import LocalLauncher
from tests.faults.places import watch_master

if __name__ == "__main__":
    modes.LocalLauncher = partial(LocalLauncher, module="tests.faults.worker")
    watch_master()
    sys.exit(main())

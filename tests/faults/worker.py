"""A worker in which faults come about."""

from __future__ import annotations

import os
import sys

from realrl.api.launcher import RANK_VARIABLE
from realrl.apps.worker import main
from realrl.base.parent import PARENT_VARIABLE, die_with_parent
from tests.faults.places import watch_worker

if __name__ == "__main__":
    die_with_parent(int(os.environ[PARENT_VARIABLE]))
    watch_worker(int(os.environ[RANK_VARIABLE]))
    sys.exit(main())

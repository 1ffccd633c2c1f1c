"""A worker in which faults come about."""

from __future__ import annotations

import os

from realrl.api.launcher import RANK_VARIABLE
from realrl.apps import worker
from realrl.base.parent import PARENT_VARIABLE, die_with_parent
from tests.faults.places import watch_worker


def main() -> int:
    """A worker's life, once what brings the faults about is in place."""
    die_with_parent(int(os.environ[PARENT_VARIABLE]))
    watch_worker(int(os.environ[RANK_VARIABLE]))
    return worker.main()

"""Runs a child process that judges answers. `rewards/child_process.py` starts it; a person does not.

    python -m realrl.rewards.child_entry PARENT MODULE MEMORY_BYTES

Heavy imports come after the process is bound to its parent, so that none is orphaned while it loads.
"""

from __future__ import annotations

import importlib
import sys

from realrl.base.parent import die_with_parent


def main() -> None:
    """Run the module's `run`."""
    parent, name, memory_bytes = sys.argv[1:]
    die_with_parent(int(parent))
    importlib.import_module(name).run(int(memory_bytes))


if __name__ == "__main__":
    main()

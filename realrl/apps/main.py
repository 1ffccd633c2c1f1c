"""The command `realrl`: `realrl status RUN`, `realrl stacks RUN`; else what `realrl.apps.quickstart` does."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the first word says; returns the exit code.

    What shows a run starts without what recipes need, which takes seconds to load.
    """
    first, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    match first:
        case "status":
            from realrl.apps.status import main as show

            return show(rest)
        case "stacks":
            from realrl.apps.stacks import main as show

            return show(rest)
    from realrl.apps.quickstart import main as run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())

"""The command line of a run: `python -m realrl.apps.quickstart RECIPE [key.path=value ...]`.

It is `realrl train` under the name that scripts know.
"""

from __future__ import annotations

import sys

from realrl.apps.train import main

if __name__ == "__main__":
    sys.exit(main())

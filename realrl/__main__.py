"""`python -m realrl`: the command `realrl`."""

import sys

from realrl.apps.main import main

if __name__ == "__main__":
    sys.exit(main())

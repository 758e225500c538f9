"""`python -m katipo`: see `katipo.cli`."""

import sys

from katipo.cli import main

if __name__ == "__main__":
    sys.exit(main())

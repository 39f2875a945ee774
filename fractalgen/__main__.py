"""``python -m fractalgen``: the same as the command ``fractalgen``."""

import sys

from fractalgen.cli import main

if __name__ == "__main__":
    sys.exit(main())

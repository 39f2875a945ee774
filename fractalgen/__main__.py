"""The command ``fractalgen``, also as ``python -m fractalgen``."""

import atexit
import gc
import sys
from collections.abc import Sequence

from fractalgen.errors import silent_interrupts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, see :func:`fractalgen.cli.main`."""
    # At its end an interpreter looks through all objects for garbage: a second with PyTorch, two with Lightning.
    atexit.register(gc.freeze)
    with silent_interrupts():
        from fractalgen import cli
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())

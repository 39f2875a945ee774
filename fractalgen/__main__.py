"""The command ``fractalgen``, also as ``python -m fractalgen``."""

import os
import signal
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, see :func:`fractalgen.cli.main`; Ctrl-C while the modules load ends the process silently."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from fractalgen import cli

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())

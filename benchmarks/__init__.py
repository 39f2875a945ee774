"""Side-by-side measurements: what FractalGen is compared with.  Not part of the installed package."""

from __future__ import annotations

import sys
from collections.abc import Callable

from fractalgen.errors import UserError


def exit_status(name: str, command: Callable[[], None]) -> int:
    """Run a benchmark's command: 0, or 2 after a user's mistake, told in one line."""
    try:
        command()
    except UserError as error:
        print(f"{name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0

"""Side-by-side measurements: what FractalGen is compared with.  Not part of the installed package."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path

from fractalgen.errors import UserError


def exit_status(name: str, command: Callable[[], None]) -> int:
    """Run a benchmark's command: 0, or 2 after a user's mistake, told in one line."""
    try:
        command()
    except UserError as error:
        print(f"{name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def peak_megabytes() -> float:
    """The most memory that this process has held so far, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux the peak that getrusage tells begins with that of the process that started this one
        facts = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(facts["VmHWM"].split()[0]) / 2**10
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 2**10

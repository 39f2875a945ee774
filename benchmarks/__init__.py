"""Side-by-side measurements: what FractalGen is compared with.  Not part of the installed package."""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fractalgen.cli import Parser
from fractalgen.errors import UserError
from fractalgen.files import write_json


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells the defaults that are values, and that are not told in words."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.default in (None, "", []) or action.default is False or "(default" in (action.help or "")
        return action.help if told else super()._get_help_string(action)


def parser(name: str, description: str) -> Parser:
    """The command line of ``python -m NAME``, so far with ``--json`` alone."""
    top = Parser(prog=f"python -m {name}", description=description, formatter_class=Help)
    top.add_argument("--json", help="file for all figures")
    return top


def measure(
    top: argparse.ArgumentParser, run: Callable[[argparse.Namespace], Any], arguments: Sequence[str] | None
) -> int:
    """Run a benchmark and write the figures that it returns: 0, or 2 after a user's mistake, told in one line."""
    try:
        args = top.parse_args(arguments)
        figures = run(args)
        if args.json:
            write_json(args.json, figures)
    except UserError as error:
        print(f"{top.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def natural(text: str) -> int:
    """A number from 0 on, as the value of a flag."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 0")
    return number


def process_megabytes(name: str) -> float:
    """A figure about the memory of this process, as ``/proc/self/status`` of Linux names it, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 2**10 for line in status.splitlines() if line.startswith(f"{name}:"))


def peak_megabytes() -> float:
    """The most memory that this process has held so far, in MiB."""
    if sys.platform == "linux":  # where the peak that getrusage tells begins with that of the process that started this
        return process_megabytes("VmHWM")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 2**10

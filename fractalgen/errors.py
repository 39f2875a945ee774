"""The exceptions that the command line turns into one line: a user's mistake, and a run that was asked to stop."""

from __future__ import annotations

import signal


class UserError(ValueError):
    """A user's mistake, told in one line; the command line prints it without a traceback and exits with status 2."""


class Stopped(Exception):
    """A signal ended the work in good order; the message says what is kept and how to go on."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(f"{signal.Signals(signum).name}: {message}")
        self.status = 128 + signum

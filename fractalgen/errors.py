"""The one exception for mistakes that a user can make."""

from __future__ import annotations


class UserError(ValueError):
    """A user's mistake, told in one line; the command line prints it without a traceback and exits with status 2."""

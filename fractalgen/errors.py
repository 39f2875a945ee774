"""The exceptions that the command line turns into one line (a user's mistake, a run that was asked to stop), how what
is quoted in one is shortened, and interruptions before a command begins.
"""

from __future__ import annotations

import os
import re
import reprlib
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any, NoReturn


@contextmanager
def silent_interrupts() -> Iterator[None]:
    """Ctrl-C ends the process at once and silently, with status 130: for the time in which modules are loaded.

    Where Ctrl-C is ignored or handled otherwise, as in the background jobs of a script, that stays.
    """
    with _handled(signal.SIGINT, signal.default_int_handler, lambda *_: os._exit(130)):
        yield


class Terminated(KeyboardInterrupt):
    """SIGTERM, of a job scheduler or of ``docker stop``."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that nothing is left half-written, unless it is handled otherwise.

    Raises:
        Terminated: SIGTERM came.
    """

    def stop(*_: object) -> NoReturn:
        raise Terminated

    with _handled(signal.SIGTERM, signal.SIG_DFL, stop):
        yield


@contextmanager
def _handled(number: signal.Signals, usual: Any, handler: Callable[..., Any]) -> Iterator[None]:
    """Another handler of a signal in the block, in the main thread and where the handler is the ``usual`` one."""
    if signal.getsignal(number) is not usual or current_thread() is not main_thread():
        yield
        return
    signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, usual)


class UserError(ValueError):
    """A user's mistake in one line; the command line prints it without a traceback and exits with status 2."""


def shown(value: object, most: int = 60) -> str:
    """A value out of a file as it stands in a message: on one line, of at most so many characters, all printable."""
    text = " ".join((value[: 2 * most] if isinstance(value, str) else reprlib.repr(value)).split())
    text = "".join(sign if sign.isprintable() else "?" for sign in text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def quoted(value: object) -> str:
    """As :func:`shown`, a text in quotation marks."""
    return shown(repr(value[:200]) if isinstance(value, str) else value)


def one_line(text: object) -> str:
    """A message, or that of an exception, without line breaks."""
    return " ".join(str(text).split())


def reason(error: BaseException) -> str:
    """The message of a library's exception on one short line, or its type if there is no message."""
    return shown(str(error), 200) or type(error).__name__


@contextmanager
def python_terms() -> Iterator[None]:
    """Errors name arguments (``density``), not flags (``--density``)."""
    try:
        yield
    except UserError as error:
        raise type(error)(re.sub(r"--(?=[a-z])", "", str(error))) from error


def missing(asked: str, package: str, extra: str) -> UserError:
    """What ``asked`` for a package that is not installed is told: the command that installs the extra it is in."""
    return UserError(f"{asked} needs {package}: pip install 'fractalgen-piano[{extra}]'")


class Stopped(Exception):
    """A signal ended the work in good order; the message says what is kept and how to continue."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(f"{signal.Signals(signum).name}: {message}")
        self.status = 128 + signum

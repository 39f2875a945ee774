"""Progressions: chords as a user writes them, and the plan that they make."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError
from fractalgen.music.bars import BarLayout, units_of
from fractalgen.music.chords import PLAIN_SIGNS, UNTOLD, parse_chord

Bar = tuple[int, ...]
"""Codes of the chords of a bar, which share it equally; UNTOLD leaves a share open."""

Word = tuple[str, str]
"""A word, and where it stands, for messages."""

REPEAT, HOLD_ON, OPEN = "%", ".", "?"


def parse_progression(text: str, flag: str = "--chords") -> list[Bar]:
    """The bars of a progression such as ``C G/B Am F | C G F C``.

    Chords between two bar lines share the bar equally; without any bar line each chord takes a bar.  ``%`` repeats the
    bar before, ``.`` holds the chord before, ``?`` leaves a chord to the model.  Where there are bar lines, a new line
    is one too.  Commas may stand between chords.  Lines that begin with ``#`` are comments.

    Raises:
        UserError: a chord that cannot be read; the message names it and its position.
    """
    text = re.sub(r"(\([^()\s]*\))|,", lambda found: found[1] or " ", text.translate(PLAIN_SIGNS))  # not in brackets
    lines = text.splitlines()
    bars: list[Bar] = []
    for number, line in enumerate(lines, start=1):
        if not line.lstrip().startswith("#"):
            where = f"{flag}: line {number}, position" if len(lines) > 1 else f"{flag}: position"
            for words in _bar_words(line, "|" in text, where):
                bars.append(_bar(words, bars))
    if not bars:
        raise UserError(f"{flag}: no chord in it (write C G/B Am F, or C G/B | Am F)")
    return bars


def _bar_words(line: str, lined: bool, where: str) -> list[list[Word]]:
    """The words of each bar of a line.

    Raises:
        UserError: an empty bar between two others.
    """

    def words(text: str, start: int = 0) -> list[Word]:
        return [(found[0], f"{where} {start + found.start() + 1}") for found in re.finditer(r"\S+", text)]

    if not lined:
        return [[word] for word in words(line)]
    bars = [words(part[0], part.start()) for part in re.finditer(r"[^|]+", line.replace("||", "| "))]
    full = [number for number, bar in enumerate(bars) if bar]
    for number in range(full[0], full[-1]) if full and "||" not in line else ():
        if not bars[number + 1]:
            raise UserError(f"{bars[number][-1][1]}: an empty bar follows (write %, N.C. or ?)")
    return [bar for bar in bars if bar]


def _bar(words: list[Word], before: Sequence[Bar]) -> Bar:
    """The chords of a bar after those ``before``."""
    if len(words) == 1 and words[0][0] == REPEAT:
        if not before:
            raise UserError(f"{words[0][1]}: {REPEAT!r}: there is no bar before it")
        return before[-1]
    bar: list[int] = []
    for word, place in words:
        if word == REPEAT:
            raise UserError(f"{place}: {REPEAT!r} must be alone in its bar")
        if word == OPEN:
            bar.append(UNTOLD)
        elif word == HOLD_ON:
            if not (bar or before):
                raise UserError(f"{place}: {HOLD_ON!r}: there is no chord before it")
            bar.append((bar or before[-1])[-1])
        else:
            try:
                bar.append(parse_chord(word))
            except UserError as error:
                hint = "; write repeats out" if ":" in word else ""
                raise UserError(f"{place}: {error}{hint}") from error
    return tuple(bar)


def progression_chords(
    bars: Sequence[Bar], layout: BarLayout, composed: npt.NDArray[np.bool_] | None = None, flag: str = "--chords"
) -> npt.NDArray[np.int64]:
    """The chords of the units of a layout; a progression begins in the first bar that is composed and repeats.

    ``composed``: units in which something is composed (default: all); other bars have no chord of the progression.

    Raises:
        UserError: more bars of chords than there are to compose, or more chords in a bar than it has beats.
    """
    units = units_of(layout.patch)
    bar_of_unit = np.repeat(layout.bars, units)
    exists = layout.unit_steps >= 0
    chords = np.full(len(exists), UNTOLD)
    wanted_bars = np.unique(bar_of_unit[exists if composed is None else exists & composed])
    if not len(wanted_bars):
        return chords
    first, count = int(wanted_bars[0]), int(wanted_bars[-1] - wanted_bars[0]) + 1
    if len(bars) > count:
        raise UserError(f"{flag}: {len(bars)} bars of chords, the piece has {count} bars to compose")
    for bar in wanted_bars.tolist():
        here = np.flatnonzero((bar_of_unit == bar) & exists)
        wanted = bars[(bar - first) % len(bars)]
        if len(wanted) > len(here):
            raise UserError(
                f"{flag}: {len(wanted)} chords in bar {bar + 1} of the piece, which has room for {len(here)}"
            )
        chords[here] = np.array(wanted)[np.arange(len(here)) * len(wanted) // len(here)]
    return chords

"""Progressions: chords as a user writes them, and the plan that they make."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError
from fractalgen.music.bars import BarLayout, units_of
from fractalgen.music.chords import UNTOLD, parse_chord

Bar = tuple[int, ...]
"""Codes of the chords of a bar, which share it equally; UNTOLD leaves a share open."""

REPEAT, HOLD_ON, OPEN = "%", ".", "?"


def parse_progression(text: str, flag: str = "--chords") -> list[Bar]:
    """The bars of a progression such as ``C G/B Am F | C G F C``.

    Chords between two bar lines share the bar equally; without any bar line each chord takes a bar.  ``%`` repeats the
    bar before, ``.`` holds the chord before, ``?`` leaves a chord to the model.  New lines count as bar lines.

    Raises:
        UserError: a chord that cannot be read; the message names it and its position.
    """
    text = re.sub(r"\s*\n\s*", " | ", text.strip())
    tokens = [(found[0], found.start()) for found in re.finditer(r"\||[^\s|]+", text)]
    lined = any(token == "|" for token, _ in tokens)
    bars: list[Bar] = []
    bar: list[int] = []
    latest = UNTOLD
    for number, (token, position) in enumerate(tokens):
        if token == "|":
            if bar:
                bars.append(tuple(bar))
            bar = []
            continue
        if token == REPEAT:
            if not bars or bar:
                where = "there is no bar before it" if not bars else "it must be alone in its bar"
                raise UserError(f"{flag}: {token!r} at position {position + 1}: {where}")
            bars.append(bars[-1])
            latest = bars[-1][-1]
            if lined and number + 1 < len(tokens) and tokens[number + 1][0] not in ("|", REPEAT):
                raise UserError(f"{flag}: {token!r} at position {position + 1}: it must be alone in its bar")
            continue
        if token == HOLD_ON:
            if latest == UNTOLD and not (bar or bars):
                raise UserError(f"{flag}: {token!r} at position {position + 1}: there is no chord before it")
        elif token == OPEN:
            latest = UNTOLD
        else:
            try:
                latest = parse_chord(token)
            except UserError as error:
                raise UserError(f"{flag}: position {position + 1}: {error}") from error
        bar.append(latest)
        if not lined:
            bars.append(tuple(bar))
            bar = []
    if bar:
        bars.append(tuple(bar))
    if not bars:
        raise UserError(f"{flag}: no chord in it (write C G/B Am F, or C G/B | Am F)")
    return bars


def progression_chords(
    bars: Sequence[Bar], layout: BarLayout, first: int = 0, flag: str = "--chords"
) -> npt.NDArray[np.int64]:
    """The chords of the units of a layout; the progression begins in bar ``first`` and repeats to the end.

    Raises:
        UserError: more bars of chords than the piece has, or more chords in a bar than it has beats.
    """
    units = units_of(layout.patch)
    count = len(np.unique(layout.bars[layout.lengths > 0]))
    if len(bars) > count - first:
        raise UserError(f"{flag}: {len(bars)} bars of chords, the piece has {count - first} bars to compose")
    bar_of_unit = np.repeat(layout.bars, units)
    exists = layout.unit_steps >= 0
    chords = np.full(len(exists), UNTOLD)
    for bar in range(first, count):
        here = np.flatnonzero((bar_of_unit == bar) & exists)
        wanted = bars[(bar - first) % len(bars)]
        if len(wanted) > len(here):
            raise UserError(
                f"{flag}: {len(wanted)} chords in bar {(bar - first) % len(bars) + 1} of the progression; there is room"
                f" for {len(here)}"
            )
        chords[here] = np.array(wanted)[np.arange(len(here)) * len(wanted) // len(here)]
    return chords

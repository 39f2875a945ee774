"""Form: which earlier bar each bar comes back to, found in music or asked for."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError, quoted
from fractalgen.music.chords import PLAIN_SIGNS
from fractalgen.music.measures import by_pitch_class
from fractalgen.music.tokens import ONSET, SILENCE

NOT_SAID, NEW = -2, -1
"""Of a column: nothing is said of what it comes back to; it comes back to nothing."""

ALIKE, GOES_ON = 0.45, 0.35  # the least likeness of a return, and of one that goes on with the return before it
PHRASE = {4: 0.06, 8: 0.09, 16: 0.09}  # what distances of whole phrases are preferred by: multiples of so many bars
RUN = 0.12  # what going on is preferred by
NEAREST = 4  # a bar like those right before it goes on with a texture; it does not come back
MOST_BARS = 999
FORM = re.compile(r"\s*([A-Z][a-z]+|[A-Za-z])('*)\s*(\d*)\s*")


def bar_features(columns: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """What is compared of columns (n, 128, steps) of tokens, as unit vectors (n, features).

    Onsets at their pitches, onsets at their pitch classes, and the pitch classes that sound in each quarter.
    """
    count, _, steps = columns.shape
    struck = (columns >= ONSET).astype(np.float32)
    classes, sounding = by_pitch_class(struck), by_pitch_class((columns != SILENCE).astype(np.float32))
    quarters = 4 if steps % 4 == 0 else 1
    heard = sounding.reshape(count, 12, quarters, -1).sum(3)
    parts = []
    for part, weight in ((struck, 0.6), (classes, 0.25), (heard, 0.15)):
        flat = part.reshape(count, -1)
        norm = np.linalg.norm(flat, axis=1, keepdims=True)
        parts.append(np.sqrt(weight) * np.divide(flat, norm, out=np.zeros_like(flat), where=norm > 0))
    return np.concatenate(parts, 1)


def find_returns(columns: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The earlier column that each of these (n, 128, steps) comes back to, or NEW.

    That is the one most like it (see :func:`bar_features`: 1 is equal).  Distances of whole phrases and going on with
    the return of the column before count a little more.  Silent columns come back to nothing.
    """
    count = len(columns)
    found = np.full(count, NEW, np.int64)
    if count <= NEAREST:
        return found
    features = bar_features(columns)
    likeness = features @ features.T
    back = np.arange(count)[:, None] - np.arange(count)
    likeness[back < NEAREST] = -1.0
    preferred = likeness.copy()
    for bars, bonus in PHRASE.items():
        preferred += np.where((back > 0) & (back % bars == 0), bonus, 0.0)
    for column in range(NEAREST, count):
        options = preferred[column].copy()
        going_on = found[column - 1] + 1
        if found[column - 1] >= 0 and column - going_on >= NEAREST:
            options[going_on] += RUN
        best = int(options.argmax())
        enough = GOES_ON if found[column - 1] >= 0 and best == going_on else ALIKE
        if likeness[column, best] >= enough:
            found[column] = best
    return found


def parse_form(text: str) -> list[tuple[str, int]]:
    """Sections with their lengths in bars, of a form written ``A8 A8 B8 A8`` or ``Verse8 Chorus8 Verse8``.

    A name that comes again comes back; ``A'`` is another section than ``A``.  A section without a number is 8 bars.
    A name is a letter, or a capital letter with small ones behind it.

    Raises:
        UserError: it cannot be read.
    """
    sections = []
    position = 0
    plain = text.translate(PLAIN_SIGNS).replace(",", " ").rstrip()
    while position < len(plain):
        found = FORM.match(plain, position)
        if found is None:
            wrong = quoted(plain[position:].split()[0])
            raise UserError(f"--form: {wrong} at position {position + 1} is no section (write A8 A8 B8 A8)")
        bars = int(found[3] or 8)
        if not 1 <= bars <= MOST_BARS:
            raise UserError(f"--form: section {found[0].strip()} has {bars} bars (1 to {MOST_BARS})")
        sections.append((found[1][0].upper() + found[1][1:] + found[2], bars))
        position = found.end()
    if not sections:
        raise UserError("--form: no section in it (write A8 A8 B8 A8)")
    return sections


def returns_of(sections: list[tuple[str, int]]) -> npt.NDArray[np.int64]:
    """The earlier bar that each bar of a form comes back to: the same bar of the section's last appearance, or NEW.

    A section that is longer than before goes on with bars that come back to nothing.
    """
    before: dict[str, tuple[int, int]] = {}
    found: list[int] = []
    for name, bars in sections:
        start, length = before.get(name, (0, 0))
        first = len(found)
        found += [start + bar if bar < length else NEW for bar in range(bars)]
        before[name] = (first, bars)
    return np.array(found, np.int64)


def sections_of(returns: npt.NDArray[np.integer], least: int = 4) -> list[tuple[int, str]]:
    """Sections (first bar, letter) of a piece by what its bars come back to.

    A run of at least ``least`` bars that come back to successive bars takes the letter of where those bars began;
    everything between such runs is a section of its own.
    """
    count = len(returns)
    runs: list[tuple[int, int, int]] = []  # first bar, end, the bar that it comes back to
    bar = 0
    while bar < count:
        stop = bar + 1
        if returns[bar] >= 0:
            while stop < count and returns[stop] == returns[stop - 1] + 1:
                stop += 1
            if stop - bar >= least:
                runs.append((bar, stop, int(returns[bar])))
        bar = stop
    borders = {0}
    for start, stop, source in runs:
        borders |= {start, stop, source, min(source + stop - start, start)}
    lines = sorted(border for border in borders if border < count)
    letters: dict[int, str] = {}
    sections: list[tuple[int, str]] = []
    for line in lines:
        came = next((source + line - start for start, stop, source in runs if start <= line < stop), None)
        while came is not None and came not in letters:
            came = max((start for start in letters if start <= came), default=None)
        if came is None:
            number = len(set(letters.values()))
            letter = chr(ord("A") + number % 26) + "'" * (number // 26)
        else:
            letter = letters[came]
        letters[line] = letter
        sections.append((line, letter))
    return sections

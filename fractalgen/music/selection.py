"""How users name parts of a piece: pitches, scales, bars, rectangles.

Ranges are half-open and counted from 0, as Python's slices are: ``0:4`` are the first four, ``64:`` reaches to the end;
``pitch=C4:C5`` is the octave from C4 (60, the middle C) up to B4.  Bars as on a score are counted from 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from fractalgen.errors import UserError
from fractalgen.music.labels import semitones
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tasks import Plane
from fractalgen.music.tokens import PITCHES

SCALES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "melodic minor": (0, 2, 3, 5, 7, 9, 11),
    "ionian": (0, 2, 4, 5, 7, 9, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "aeolian": (0, 2, 3, 5, 7, 8, 10),
    "locrian": (0, 1, 3, 5, 6, 8, 10),
    "major pentatonic": (0, 2, 4, 7, 9),
    "minor pentatonic": (0, 3, 5, 7, 10),
    "blues": (0, 3, 5, 6, 7, 10),
    "whole tone": (0, 2, 4, 6, 8, 10),
    "chromatic": tuple(range(12)),
}


def parse_pitch(text: str) -> int:
    """MIDI pitch of ``60`` or a note name such as ``C4`` (60), ``F#3`` or ``Bb-1``; 128, the end of ranges, is allowed.

    Raises ``UserError``, without the flag's name, when it is neither or does not lie in 0 to 128.
    """
    compact = "".join(text.split())
    name = re.fullmatch(r"([A-Ga-g])(#*|b*)(-?[0-9]+)", compact)
    if name:
        pitch = 12 * (int(name[3]) + 1) + semitones(name[1] + name[2])
    elif re.fullmatch(r"-?[0-9]+", compact):
        pitch = int(compact)
    else:
        raise UserError(f"{text.strip()!r} is neither a pitch from 0 to 128 nor a note name such as C4, F#3 or Bb2")
    if not 0 <= pitch <= PITCHES:
        raise UserError(f"{text.strip()} is pitch {pitch}, which does not lie in 0 to 128")
    return pitch


def parse_pitch_range(text: str, flag: str = "--pitch_range") -> tuple[int, int]:
    """Half-open range of pitches from ``A:B``, ``A:``, ``:B``; A and B as :func:`parse_pitch` takes them."""
    return _pitch_range(text, f"{flag} {text.strip()}")


def parse_pitch_classes(text: str, flag: str = "--scale") -> frozenset[int]:
    """Pitch classes (C is 0) of a scale, ``A minor``, ``F# dorian``, or of a list of note names, ``C D E G A``.

    Raises:
        UserError: neither; the scales that exist are listed.
    """
    words = re.sub(r"[,_\-\s]+", " ", text).strip().lower().split(" ")
    named = [re.fullmatch(r"[a-g](#*|b*)", word) is not None for word in words]
    if all(named):
        return frozenset(semitones(word) % 12 for word in words)
    intervals = SCALES.get(" ".join(words[1:]))
    if not named[0] or intervals is None:
        raise UserError(
            f"{flag} {text.strip()!r}: neither note names (C D Eb F#) nor a root and one of {', '.join(SCALES)}"
        )
    return frozenset((semitones(words[0]) + interval) % 12 for interval in intervals)


def parse_rectangle(text: str, roll: PianoRoll, flag: str = "--mask") -> Plane:
    """Cells (128, T) of a rectangle such as ``time=64:192,pitch=C4:C6`` or ``bars=4:8``.

    Axes: ``time`` in steps or ``bars`` of the roll's own meters, and ``pitch``; an axis left out means all of it.

    Raises:
        UserError: an axis that is unknown or given twice, no number, an empty range, or one outside the piece.
    """
    where = f"{flag} {text.strip()}"
    ranges: dict[str, str] = {}
    for part in text.split(","):
        axis, equals, span = (piece.strip() for piece in part.partition("="))
        if axis not in ("time", "bars", "pitch") or not equals:
            raise UserError(f"{where}: {part.strip()!r} is none of time=A:B, bars=A:B, pitch=A:B")
        if axis in ranges:
            raise UserError(f"{where}: {axis} is given twice, {ranges[axis]} and {span}")
        ranges[axis] = span
    if "time" in ranges and "bars" in ranges:
        raise UserError(f"{where}: time={ranges['time']} and bars={ranges['bars']} exclude each other")
    plane = np.zeros(roll.tokens.shape, np.bool_)
    low, high = _pitch_range(ranges["pitch"], where) if "pitch" in ranges else (0, PITCHES)
    start, stop = 0, roll.width
    if "time" in ranges:
        start, stop = _numbers(ranges["time"], where, "time", roll.width, "steps")
    elif "bars" in ranges:
        lines = np.r_[roll.downbeats(), roll.width]
        first, last = _numbers(ranges["bars"], where, "bars", len(lines) - 1, "bars")
        start, stop = int(lines[first]), int(lines[last])
    plane[low:high, start:stop] = True
    return plane


def score_bars(texts: Sequence[str], roll: PianoRoll, flag: str = "--compose_bars") -> Plane:
    """Cells (128, T) of bars as on a score, ``5-8`` or ``12``: counted from 1, the last one included.

    Raises:
        UserError: no bars, or bars that the piece does not have.
    """
    lines = np.r_[roll.downbeats(), roll.width]
    plane = np.zeros(roll.tokens.shape, np.bool_)
    for text in texts:
        found = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", text.strip())
        if not found:
            raise UserError(f"{flag} {text}: bars are written as 5-8 or 12")
        first, last = int(found[1]), int(found[2] or found[1])
        if not 1 <= first <= last < len(lines):
            raise UserError(f"{flag} {text}: the piece has the bars 1-{len(lines) - 1}")
        plane[:, lines[first - 1] : lines[last]] = True
    return plane


def time_span(roll: PianoRoll, start: int, stop: int) -> Plane:
    """Cells (128, T) of the steps ``start`` to ``stop`` (``--mask_start``, ``--mask_end``), as a rectangle."""
    flags = f"--mask_start {start} --mask_end {stop}"
    _check_range(start, stop, flags, f"{start}:{stop}", roll.width, "steps")
    plane = np.zeros(roll.tokens.shape, np.bool_)
    plane[:, start:stop] = True
    return plane


def bars_to_steps(roll: PianoRoll, bars: int, flag: str = "--condition_bars") -> int:
    """Steps that the first ``bars`` bars of the roll last; raises ``UserError`` when it has fewer."""
    lines = np.r_[roll.downbeats(), roll.width]
    if not 1 <= bars < len(lines):
        raise UserError(f"{flag} {bars}: the piece has {len(lines) - 1} bars")
    return int(lines[bars])


def _ends(text: str, where: str) -> tuple[str, str]:
    start, colon, stop = (piece.strip() for piece in text.partition(":"))
    if not colon:
        raise UserError(f"{where}: {text.strip()!r} is no range A:B")
    return start, stop


def _pitch_range(text: str, where: str) -> tuple[int, int]:
    start, stop = _ends(text, where)
    try:
        low, high = parse_pitch(start or "0"), parse_pitch(stop or str(PITCHES))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    _check_range(low, high, where, text.strip(), PITCHES, "pitches")
    return low, high


def _numbers(text: str, where: str, axis: str, size: int, unit: str) -> tuple[int, int]:
    start, stop = _ends(text, where)
    if not all(re.fullmatch(r"-?[0-9]+", number) for number in (start or "0", stop or "0")):
        raise UserError(f"{where}: {axis}={text.strip()} is no range of whole numbers")
    first, last = int(start or 0), int(stop or size)
    _check_range(first, last, where, text.strip(), size, unit)
    return first, last


def _check_range(start: int, stop: int, where: str, text: str, size: int, unit: str) -> None:
    if start < 0 or max(start, stop) > size or start == size:
        raise UserError(f"{where}: {text} does not lie in the {size} {unit} (0:{size}) that there are")
    if start >= stop:
        raise UserError(f"{where}: {text} is an empty range")

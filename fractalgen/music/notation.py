"""How a pianist writes music down: voices of a staff, note values and ties, names of pitches, clefs, dynamics.

Times are fractions of a quarter note.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from fractalgen.music.labels import KEYS, SPELLED, semitones

LETTERS = "FCGDAEB"  # in fifths, F is -1
INTERVALS = (0, -5, 2, -3, 4, -1, -6, 1, -4, 3, -2, 5)
"""Fifths from the root of a chord up to the note that lies so many semitones above it."""
DYNAMICS = {"pp": 33, "p": 49, "mp": 64, "mf": 80, "f": 96, "ff": 112}
"""Dynamics and their MIDI velocities, as notation programs play them."""
SLACK = Fraction(1, 4)
CLEAR = 11  # how far a bar's velocity lies from the dynamic that holds before another one is written
MOST_STATES = 64  # of the search for voices
# What a pianist does not like to read: notes of one voice that overlap (they are cut and tied), less so if they begin
# together; the lower voice above the upper one, a tie that changes its voice, the lower voice where one would do.
OVERLAP, TOGETHER, CROSSING, CHANGE, LOWER = 6.0, 4.0, 3.0, 2.0, 0.5


class Placed(NamedTuple):
    """A note: begin and end on paper, MIDI pitch and velocity, and how much later it ends when it is played."""

    start: Fraction
    stop: Fraction
    pitch: int
    velocity: int
    release: Fraction = Fraction(0)


class Slice(NamedTuple):
    """What a voice does from ``start`` to ``stop``: these notes, or a rest."""

    start: Fraction
    stop: Fraction
    notes: tuple[Placed, ...]


def tidied(notes: Sequence[Placed], lines: Sequence[Fraction]) -> list[Placed]:
    """Notes of a hand as they are written: ends that lie a sixteenth or less beside an eighth are moved to it.

    A note is lengthened into a rest, up to the next note of the hand or bar line, and it is shortened where it sounds
    into the next note.  ``lines``: where bars begin, and the end.
    """
    starts = sorted({note.start for note in notes})
    found = []
    for note in notes:
        stop = note.stop
        before, behind = Fraction(2 * stop // 1, 2), Fraction(-(-2 * stop // 1), 2)
        following = starts[bisect_left(starts, stop) :][:1] + list(lines[bisect_left(lines, stop) :][:1])
        later = min([behind, *following])
        if stop == later:
            pass
        elif before in starts and note.start < before < stop <= before + SLACK and 2 * before >= note.start + stop:
            stop = before
        elif later <= stop + SLACK:
            stop = later
        found.append(note._replace(stop=stop, release=note.stop - stop))
    return found


class _Sounding(NamedTuple):
    """When a voice struck a note last, when all of its notes have ended, and which is nearest to the other voice."""

    start: Fraction = Fraction(-1)
    stop: Fraction = Fraction(-1)
    pitch: int = 0


def two_voices(notes: Sequence[Placed], before: Mapping[Placed, int]) -> dict[Placed, int]:
    """The voice, 0 (upper) or 1, of each note of a bar on a staff; all have 0 where one voice is enough.

    The voices are found by a search through the bar, in order of time, for what is least unpleasant to read.
    ``before``: the voices of the notes of the bar before, some of which may go on.
    """
    ordered = sorted(notes, key=lambda note: (note.start, -note.pitch))
    if all(one.stop <= other.start or one[:2] == other[:2] for one, other in pairwise(ordered)):
        return dict.fromkeys(notes, 0)
    # A state is what sounds in each voice; of each state the best way to it is kept.
    states: dict[tuple[_Sounding, _Sounding], tuple[float, tuple[int, ...]]]
    states = {(_Sounding(), _Sounding()): (0.0, ())}
    for note in ordered:
        following: dict[tuple[_Sounding, _Sounding], tuple[float, tuple[int, ...]]] = {}
        for state, (cost, path) in states.items():
            for voice in (0, 1):
                mine, other = state[voice], state[1 - voice]
                price = cost + LOWER * voice + CHANGE * (before.get(note, voice) != voice)
                if mine.stop > note.start and mine[:2] != note[:2]:
                    price += TOGETHER if mine.start == note.start else OVERLAP
                below = note.pitch < other.pitch if voice == 0 else note.pitch > other.pitch
                price += CROSSING * (other.stop > note.start and below)
                pitches = (note.pitch, mine.pitch if mine.stop > note.start else note.pitch)
                mine = _Sounding(note.start, max(note.stop, mine.stop), (min, max)[voice](pitches))
                then = (mine, other) if voice == 0 else (other, mine)
                if then not in following or price < following[then][0]:
                    following[then] = (price, (*path, voice))
        best = sorted(following, key=lambda state: following[state][0])[:MOST_STATES]
        states = {state: following[state] for state in best}
    _, path = min(states.values())
    return dict(zip(ordered, path, strict=True))


def slices(notes: Sequence[Placed], start: Fraction, stop: Fraction) -> list[Slice]:
    """A voice from ``start`` to ``stop``, cut wherever a note of it begins or ends."""
    cuts = {start, stop, *(time for note in notes for time in note[:2] if start < time < stop)}
    return [
        Slice(begin, end, tuple(note for note in notes if note.start < end and note.stop > begin))
        for begin, end in pairwise(sorted(cuts))
    ]


@cache
def periods(beats: int, unit: int) -> tuple[Fraction, ...]:
    """The bar and its parts, from the coarsest to the finest: half bars of four beats, beats, halves of those."""
    part = Fraction(4, unit)
    compound = unit >= 8 and beats % 3 == 0 and beats > 3
    beat, count = (3 * part, beats // 3) if compound else (part, beats)
    found = [count * beat, 2 * beat, beat] if count == 4 else [count * beat, beat]
    if compound:
        found.append(part)
    while found[-1] > Fraction(1, 16):
        found.append(found[-1] / 2)
    return tuple(found)


def _dyadic(*times: Fraction) -> bool:
    return all(time.denominator & (time.denominator - 1) == 0 for time in times)


@cache
def is_value(length: Fraction) -> bool:
    """Whether one note head, with one dot at most, lasts so long; also in a tuplet."""
    top = length.numerator
    return top // (top & -top) in (1, 3) and length <= (6 if _dyadic(length) else 4)


def pieces(
    start: Fraction, stop: Fraction, division: tuple[Fraction, ...], rest: bool = False
) -> list[tuple[Fraction, Fraction]]:
    """The note values of a note in a bar, which are tied; times count from the beginning of the bar.

    A note may cross a border of the bar's parts if it begins or ends on one of that kind, or if it is a syncopation in
    the middle of the next larger part; a rest only if it begins on one.  Tuplets never cross a beat.
    """
    length, dyadic = stop - start, _dyadic(start, stop)
    if not dyadic:
        beat = next((period for period in division if period <= Fraction(3, 2)), division[-1])
        division = (*(period for period in division if period >= beat), *_tuplet(start, stop, beat))
    outer = None
    for period in division:
        first = (start // period + 1) * period
        if first < stop:
            fits = start % period == 0 or (not rest and stop % period == 0)
            if not rest and outer == 2 * length and length.numerator & (length.numerator - 1) == 0:
                fits |= start % (length / 2) == 0
            fits &= dyadic or period < 1
            if not fits or not is_value(length):
                cut = first if start % period else (-(-stop // period) - 1) * period
                return pieces(start, cut, division, rest) + pieces(cut, stop, division, rest)
        outer = period
    return [(start, stop)]


def _tuplet(start: Fraction, stop: Fraction, beat: Fraction) -> list[Fraction]:
    """How a beat is divided in which a note begins or ends at such times: in odd parts, and halves of these."""
    whole = max(start.denominator, stop.denominator)
    odd = whole // (whole & -whole)
    found = [beat / odd]
    while found[-1] * whole > 1 and len(found) < 6:
        found.append(found[-1] / 2)
    return found


def signature(key: str | None) -> tuple[int, bool]:
    """Sharps, or flats below 0, of a key of :data:`~.labels.KEYS`, as musicians write it, and whether it is minor."""
    if key is None:
        return 0, False
    minor = KEYS.index(key) >= 12
    tonic = SPELLED.get(key, key).split()[0]
    return fifths(tonic) - 3 * minor, minor


def fifths(name: str) -> int:
    """A note name such as ``F#`` or ``Bb`` as fifths from C."""
    return LETTERS.index(name[0]) - 1 + 7 * (name.count("#") - name.count("b"))


def spelled_pitch(pitch: int, sharps: int, minor: bool, root: str | None, tones: Sequence[int]) -> tuple[str, int, int]:
    """Letter, alteration and octave of a MIDI pitch in a key, over a chord with that root and those semitones.

    Notes of the chord are named by it; others so that they lie near the key on the line of fifths.
    """
    if root is not None and (above := (pitch - 7 * fifths(root)) % 12) in tones:
        place = fifths(root) + (INTERVALS[above] if above != 8 or 4 not in tones else 8)
    else:
        low = sharps - 3 + minor
        place = low + (7 * pitch - low) % 12
    letter = LETTERS[(place + 1) % 7]
    alter = (place + 1) // 7
    return letter, alter, (pitch - alter - semitones(letter)) // 12 - 1


def dynamics(levels: Sequence[float | None]) -> list[str | None]:
    """The dynamic to write at each bar, None where the one before goes on, of the bars' velocities (None: silent)."""
    found: list[str | None] = []
    holds: int | None = None
    for level in levels:
        name = None
        if level is not None and (holds is None or abs(level - holds) > CLEAR):
            nearest = min(DYNAMICS, key=lambda dynamic: abs(DYNAMICS[dynamic] - level))
            if DYNAMICS[nearest] != holds:
                name, holds = nearest, DYNAMICS[nearest]
        found.append(name)
    return found


def clefs(bars: Sequence[Sequence[int]], treble: bool) -> list[bool]:
    """Whether each bar, of these pitches, stands in the treble clef; a staff leaves its own clef only if it must."""
    found = []
    now = treble
    for pitches in bars:
        if pitches:
            mean, low, high = sum(pitches) / len(pitches), min(pitches), max(pitches)
            if treble:
                now = high >= 64 if not now else not (mean < 55 and high < 62)
            else:
                now = low >= 57 if now else mean > 65 and low > 58
        found.append(now)
    return found

"""Chords: a small vocabulary, written as musicians write it, and the codes by which a model knows them.

A code is a small integer.  0 is "not told", 1 is "no chord"; every other code is a root, a quality and a bass, the bass
as semitones above the root.  Qualities beyond the vocabulary (ninths, elevenths, ...) count as the nearest one in it.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError, quoted
from fractalgen.music.labels import TONICS, semitones, writes_flats

QUALITIES: dict[str, tuple[int, ...]] = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "dim": (0, 3, 6),
    "aug": (0, 4, 8),
    "sus2": (0, 2, 7),
    "sus4": (0, 5, 7),
    "6": (0, 4, 7, 9),
    "m6": (0, 3, 7, 9),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "m7": (0, 3, 7, 10),
    "mM7": (0, 3, 7, 11),
    "m7b5": (0, 3, 6, 10),
    "dim7": (0, 3, 6, 9),
    "7sus4": (0, 5, 7, 10),
}
"""Qualities by how they are written behind the root, with the semitones of their notes above it."""

UNTOLD, NO_CHORD, FIRST = 0, 1, 2
CODES = FIRST + 12 * len(QUALITIES) * 12
Chords = tuple[tuple[int, int], ...]
"""Changes of chord: (step, code), each holding until the next."""

SEVENTHS = frozenset((10, 11))
LONGEST = 40  # signs of a chord's name; the longest in use has about 20
PLAIN_SIGNS = str.maketrans("♯♭，、｜", "#b,,|")
ROOT = "[A-G](?:##|bb(?!5)|[#b])?"  # Bbb5 is a Bb whose fifth is flat
SYMBOL = re.compile(rf"({ROOT})((?:6/9|[^/])*)(?:/({ROOT}))?")
SPELLINGS = (  # as musicians write qualities, and as the library knows them; one after the other
    (r"(?<=.[(,])(?=\d)", "add"),
    (r"\(([^()]+)\)", r"\1"),
    (",", ""),
    (r"^(?:[Mm][Ii][Nn]?|-)", "m"),
    (r"^(m?)(?:[Mm][Aa][Jj]?(?=\d|$)|[\^△Δj](?=\d))", r"\1maj"),
    (r"^(m?)[\^△Δ]", r"\1maj7"),
    (r"^M$|^maj(?=6)", ""),
    (r"(?<=.)M(?=\d)", "maj"),
    (r"^mmaj(?:9|11|13)", "mmaj7"),
    (r"omit", "no"),
    (r"^m13", "m11"),
    (r"^maj11", "maj9"),
    (r"^[øØh]7?", "m7b5"),
    (r"^7?alt", "7#5"),
    (r"^(?:(?:\+|aug)7|maj7#5)", "7#5"),
    (r"(?<=\d)\+(?=\d)", "#"),
    (r"(?<=\d)-(?=\d)", "b"),
    (r"(?<=\d)\+", "#5"),
    (r"^\+", "aug"),
    (r"^[o°º]", "dim"),
    (r"(?<=\d)sus(?!\d)", "sus4"),
    (r"6(?:/|add)9", "69"),
)
CHANGE = re.compile(r"(.*?)(add|no|sus(?=[24]$)|maj|(?=[#b]))([#b]?)(\d+)")
"""A change behind a chord that the library does not know with it: ``13`` and ``sus4``, ``m9`` and ``b5``."""
REPLACED = {"5": (7,), "no3": (3, 4), "no5": (6, 7, 8), "sus2": (3, 4), "sus4": (3, 4), "maj7": (9, 10)}
"""Semitones that go with a change."""
BRACKETED = ("(b5)", "m(no5)", "m(omit5)")  # the library knows these with their brackets only
SHARPS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
# C. Harte, "Towards Automatic Extraction of Harmony Information from Music Signals" (2010): shorthands of the notation
# in which POP909 and other corpora annotate chords.
HARTE = {name: name for name in ("", "dim", "aug", "sus2", "sus4", "7", "maj7", "dim7")} | {
    "maj": "",
    "min": "m",
    "maj6": "6",
    "min6": "m6",
    "min7": "m7",
    "minmaj7": "mM7",
    "hdim7": "m7b5",
    "9": "7",
    "maj9": "maj7",
    "min9": "m7",
    "11": "7sus4",
    "min11": "m7",
    "13": "7",
    "maj13": "maj7",
    "min13": "m7",
    "5": "",
}
SCALE_DEGREES = {"1": 0, "2": 2, "3": 4, "4": 5, "5": 7, "6": 9, "7": 11, "9": 14, "11": 17, "13": 21}


class Chord(NamedTuple):
    """A chord: root as a pitch class, quality as its place in :data:`QUALITIES`, bass in semitones above the root."""

    root: int
    quality: int
    bass: int = 0

    @property
    def code(self) -> int:
        """Its code."""
        return FIRST + (self.root * len(QUALITIES) + self.quality) * 12 + self.bass

    @classmethod
    def of(cls, code: int) -> Chord | None:
        """The chord of a code; None for the two codes that are none."""
        if code < FIRST:
            return None
        rest, bass = divmod(code - FIRST, 12)
        return cls(*divmod(rest, len(QUALITIES)), bass)


def transposed_chords(codes: npt.NDArray[np.integer], semitones: int) -> npt.NDArray[np.integer]:
    """Codes of the same chords so many semitones higher."""
    size = 12 * len(QUALITIES)
    return np.where(codes < FIRST, codes, FIRST + (codes - FIRST + semitones % 12 * size) % (12 * size))


@cache
def spelled(code: int, flats: bool = True) -> str:
    """A chord as musicians write it; ``flats``: black keys are flats, else sharps.

    Roots are spelled by their own custom (a chord on the black key below G is F#m or Gb); the bass as the root is.
    """
    chord = Chord.of(code)
    if chord is None:
        return "N.C." if code == NO_CHORD else ""
    names = TONICS if flats else SHARPS
    bass = f"/{names[(chord.root + chord.bass) % 12]}" if chord.bass else ""
    return names[chord.root] + list(QUALITIES)[chord.quality] + bass


def flats_in(key: str | None) -> bool:
    """Whether chords in a key of :data:`~fractalgen.music.labels.KEYS` are written with flats (without a key: yes)."""
    return key is None or writes_flats(key)


@cache
def nearest_quality(semitones: frozenset[int]) -> int:
    """The quality of the vocabulary whose notes are nearest to these, in semitones above the root.

    Of two that are equally near it is the one with the seventh.
    """
    templates = [frozenset(notes) for notes in QUALITIES.values()]
    shares = [
        (len(notes & semitones) / len(notes | semitones), bool(notes & semitones & SEVENTHS)) for notes in templates
    ]
    return max(range(len(templates)), key=shares.__getitem__)


def split_chord(text: str) -> tuple[str, str, str]:
    """Root, quality and bass of a chord as they are written; no bass is an empty one.  ValueError: it is no chord."""
    text = text.strip().translate(PLAIN_SIGNS)
    found = SYMBOL.fullmatch(text)
    if found is None or len(text) > LONGEST:
        raise ValueError(text)
    return found[1], found[2], found[3] or ""


@lru_cache(8192)
def parse_chord(text: str) -> int:
    """The code of a chord such as ``C``, ``F#m7``, ``Bb/D``, ``Gsus4`` or ``N.C.``.

    Raises:
        UserError: it cannot be read.
    """
    if re.fullmatch(r"n\.?\s?c?\.?", text.strip(), re.IGNORECASE):
        return NO_CHORD
    try:
        tonic, name, low = split_chord(text)
        for pattern, known in SPELLINGS if name not in BRACKETED else ():
            name = re.sub(pattern, known, name)
        notes = _notes_of(name)
        root = semitones(tonic) % 12
        bass = (semitones(low) - root) % 12 if low else 0
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(f"{quoted(text.strip())} is no chord (write C, F#m7, Bb/D, Gsus4, N.C. ...)") from error
    return Chord(root, nearest_quality(notes - {3} if 4 in notes else notes), bass).code  # beside a third 3 is a #9


def _notes_of(quality: str) -> frozenset[int]:
    """The semitones above the root of a quality as the library spells it, and changes behind it; ValueError if none."""
    from pychord import QualityManager

    try:
        return frozenset(step % 12 for step in QualityManager().get_quality(quality).components)
    except ValueError:
        found = CHANGE.fullmatch(quality)
        if found is None:
            raise
    base, kind, sign, degree = found.groups()
    notes = _notes_of(base) - {*REPLACED.get(kind + degree, ())}
    return notes if kind == "no" else notes | {_degree(sign + degree)}


def parse_harte(text: str) -> int:
    """The code of a chord in the notation of Harte: ``B:maj``, ``G:min7/b7``, ``D:sus4(b7)``, ``N``.

    Raises:
        UserError: it cannot be read.
    """
    if text in ("N", "X"):
        return NO_CHORD
    found = re.fullmatch(r"([A-G])([#b]*)(?::?([^/()]*)(?:\(([^()]*)\))?)(?:/([#b]*\d+))?", text)
    try:
        if found is None:
            raise ValueError(text)
        root = semitones(found[1] + found[2]) % 12
        notes = {0} if found[4] and not found[3] else set(QUALITIES[HARTE[found[3]]])
        for degree in found[4].split(",") if found[4] else ():
            change = notes.discard if degree.strip().startswith("*") else notes.add
            change(_degree(degree.strip().removeprefix("*")))
        bass = _degree(found[5] or "1")
    except (ValueError, KeyError) as error:
        raise UserError(f"{quoted(text)} is no chord in Harte's notation") from error
    return Chord(root, nearest_quality(frozenset(notes)), bass).code


def _degree(text: str) -> int:
    """Semitones above the root of a degree such as ``b7``, within an octave; KeyError if it is none."""
    number = text.lstrip("#b")
    return (SCALE_DEGREES[number] + text.count("#") - text.count("b")) % 12

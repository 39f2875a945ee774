"""The piece as the page edits it: plain data, checked when it comes in."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fractalgen.errors import UserError, quoted, shown
from fractalgen.music import MAX_STEPS
from fractalgen.music.bars import BarLayout
from fractalgen.music.chords import Chords, flats_in, parse_chord, spelled
from fractalgen.music.labels import SPELLED, spell_key
from fractalgen.music.plan import chord_changes
from fractalgen.music.progression import parse_progression, progression_chords
from fractalgen.music.tokens import NOTE, Meters, grid_steps
from fractalgen.music.voices import BRIDGE, LEFT, MELODY, RIGHT, UNNAMED, hands

TICKS = 480  # of a quarter note
STEP = TICKS // 4  # of a time step of models that have four in a quarter
LONGEST = MAX_STEPS * STEP
MOST_NOTES, MOST_CHANGES, MOST_TEXT = 50_000, 8_192, 60
TEMPOS = (3.6, 60e6)  # quarter notes a minute that MIDI can say
UNDECIDED = -1
LEAST = (0, 0, 0, 1, 1, -1, 0)  # of the numbers of a note
HANDS = {RIGHT: 0, LEFT: 1, MELODY: 0, BRIDGE: 0}


class Note(NamedTuple):
    """A note: a number of its own, pitch, ticks, velocity from 1 to 127, hand (0 right, 1 left, -1), and its lock."""

    id: int
    pitch: int
    start: int
    duration: int
    velocity: int
    hand: int = UNDECIDED
    locked: int = 0

    @property
    def end(self) -> int:
        """The tick behind its last one."""
        return self.start + self.duration


Texts = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Document:
    """A piece.

    ``length`` and all places are ticks, 480 a quarter note.  ``tempos``: (tick, quarter notes a minute); ``meters``:
    (tick, beats, unit); both begin at tick 0.  ``key``: as :func:`as_written` spells it.  ``notes``: by start, then
    pitch.  ``chords``, ``sections``: (tick, name).
    """

    length: int
    tempos: tuple[tuple[int, float], ...] = ((0, 120.0),)
    meters: Meters = ((0, 4, 4),)
    key: str | None = None
    notes: tuple[Note, ...] = ()
    chords: Texts = ()
    sections: Texts = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            name: [list(row) for row in value] if isinstance(value, tuple) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, data: Any) -> Document:
        """From plain data of any origin.

        Raises:
            UserError: what is wrong, and where.
        """
        known = {item.name for item in fields(cls)}
        if not isinstance(data, dict) or not known - {"key", "chords", "sections"} <= data.keys() <= known:
            raise UserError(f"document: an object with {', '.join(sorted(known))}, not {shown(data)}")
        length = _whole("length", data["length"], 0, LONGEST)
        tempos = _changes("tempos", data["tempos"], 2, lambda row: (_tempo(row[1]),))
        meters = _changes(
            "meters", data["meters"], 3, lambda row: (_whole("meters: beats", row[1], 1, 32), _unit(row[2]))
        )
        key = data.get("key")
        if key is not None:
            if not isinstance(key, str) or (named := spell_key(key)) is None:
                raise UserError(f"document: key {quoted(key)}: write it as D minor or F# major")
            key = as_written(named)
        chords = _changes("chords", data.get("chords", []), 2, lambda row: (_chord(row[1]),))
        sections = _changes("sections", data.get("sections", []), 2, lambda row: (_text(row[1]),))
        if not isinstance(data["notes"], list) or len(data["notes"]) > MOST_NOTES:
            raise UserError(f"document: notes: a list of at most {MOST_NOTES:,}")
        notes = sorted((_note(row, length) for row in data["notes"]), key=itemgetter(2, 1))
        if len({note.id for note in notes}) < len(notes):
            raise UserError("document: notes: two have the same number")
        tempos = tempos if tempos and tempos[0][0] == 0 else ((0, 120.0), *tempos)
        meters = meters if meters and meters[0][0] == 0 else ((0, 4, 4), *meters)
        return cls(length, tempos, meters, key, tuple(notes), chords, sections)

    @property
    def named_key(self) -> str | None:
        """The key as one of :data:`~fractalgen.music.labels.KEYS`."""
        return spell_key(self.key) if self.key else None

    @property
    def bars(self) -> int:
        """Number of bars."""
        return len(self.bar_lines()) - 1

    def bar_lines(self) -> list[int]:
        """Ticks at which bars begin, and the end of the piece."""
        return [*grid_steps(self.meters, self.length, TICKS).tolist(), self.length]

    def part(self, bars: str) -> Document:
        """Some of its bars, written as on a score: ``5-8`` or ``5``; notes that reach in or out are cut.

        Raises:
            UserError: not bars, or bars that it does not have.
        """
        lines = self.bar_lines()
        found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", bars.strip())
        if not found:
            raise UserError(f"bars {quoted(bars)}: written as 5-8 or 12")
        first, last = int(found[1]), int(found[2] or found[1])
        if not 1 <= first <= last < len(lines):
            raise UserError(f"bars {bars}: the piece has the bars 1-{len(lines) - 1}")
        start, stop = lines[first - 1], lines[last]

        def moved(rows: Sequence[Any]) -> Any:
            before = [row for row in rows if row[0] <= start][-1:]
            inside = [(row[0] - start, *row[1:]) for row in rows if start < row[0] < stop]
            return (*[(0, *row[1:]) for row in before], *inside)

        notes = [
            note._replace(start=max(note.start, start) - start, duration=min(note.end, stop) - max(note.start, start))
            for note in self.notes
            if note.start < stop and note.end > start
        ]
        parts = {name: moved(getattr(self, name)) for name in ("tempos", "meters", "chords", "sections")}
        return replace(self, length=stop - start, notes=tuple(notes), **parts)

    def changes(self, ticks: int) -> Chords:
        """The chord lane as codes, with places in units of so many ticks."""
        return tuple({tick // ticks: parse_chord(name) for tick, name in self.chords}.items())


def as_written(key: str | None) -> str | None:
    """One of :data:`~fractalgen.music.labels.KEYS` as musicians spell it."""
    return None if key is None else SPELLED.get(key, key)


@dataclass(frozen=True)
class Result:
    """A composed piece, and where its trace lies."""

    document: Document
    trace: Path | None = None


def with_chords(document: Document, text: str, name: str) -> Document:
    """The same with the chords of a text file, written as for ``--chords``, from its first bar on.

    A piece that is too short becomes longer; chords of later bars stay.

    Raises:
        UserError: the text cannot be read.
    """
    bars = parse_progression(text, name)
    missing = len(bars) - document.bars
    if missing > 0:
        _, beats, unit = document.meters[-1]
        document = replace(document, length=document.length + round(missing * beats * 4 * TICKS / unit))
        if document.length > LONGEST:
            raise UserError(f"{name}: {len(bars):,} bars of chords are too many")
    lines = document.bar_lines()
    layout = BarLayout.of(_steps(document.meters), lines[len(bars)] // STEP, TICKS // STEP, 4 * TICKS // STEP)
    codes = progression_chords(bars, layout, flag=name)
    flats = flats_in(document.named_key)
    written = tuple((step * STEP, spelled(code, flats)) for step, code in chord_changes(layout, codes))
    kept = tuple(chord for chord in document.chords if chord[0] >= lines[len(bars)])
    return replace(document, chords=written + kept)


def taken_over(result: Document, source: Document, hand: int | None) -> Document:
    """A result of composing, in which the notes that were given are those of ``source``: number, hand and lock.

    New notes are played by ``hand``; without one, :func:`fractalgen.music.voices.hands` decides.
    """
    given: dict[tuple[int, int, int], list[Note]] = {}
    for note in reversed(source.notes):
        given.setdefault((note.pitch, note.start, note.velocity), []).append(note)
    fresh = count(max((note.id for note in source.notes), default=-1) + 1)
    notes = []
    for note in result.notes:
        same = given.get((note.pitch, note.start, note.velocity))
        if same:
            kept = same.pop()
            notes.append(note._replace(id=kept.id, hand=kept.hand, locked=kept.locked))
        else:
            notes.append(note._replace(id=next(fresh), hand=UNDECIDED if hand is None else hand))
    return replace(result, notes=tuple(with_hands(notes)))


def with_hands(notes: Sequence[Note]) -> list[Note]:
    """The same notes, in order of time, those of no hand given to one."""
    codes = {0: RIGHT, 1: LEFT, UNDECIDED: UNNAMED}
    columns = np.zeros(len(notes), NOTE)
    for name in ("pitch", "start", "duration"):
        columns[name] = [getattr(note, name) for note in notes]
    found = hands(columns, np.array([codes[note.hand] for note in notes], np.uint8))
    return [note._replace(hand=HANDS[int(code)]) for note, code in zip(notes, found, strict=True)]


def _steps(meters: Iterable[tuple[int, int, int]]) -> Meters:
    return tuple((tick // STEP, beats, unit) for tick, beats, unit in meters)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise UserError(f"document: {name}: a whole number from {low:,} to {high:,}, not {shown(value)}")
    return value


def _tempo(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not TEMPOS[0] <= value <= TEMPOS[1]:
        raise UserError(f"document: tempos: 3.6 to 60,000,000 quarter notes a minute, not {shown(value)}")
    return float(value)


def _unit(value: Any) -> int:
    if value not in (1, 2, 4, 8, 16, 32) or type(value) is not int:
        raise UserError(f"document: meters: a beat is 1, 2, 4, 8, 16 or 32, not {shown(value)}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MOST_TEXT or not value.isprintable():
        raise UserError(f"document: a name of 1 to {MOST_TEXT} characters, not {shown(value)}")
    return value


def _chord(value: Any) -> str:
    name = _text(value)
    try:
        parse_chord(name)
    except UserError as error:
        raise UserError(f"document: chords: {error}") from error
    return name


def _changes(name: str, rows: Any, size: int, rest: Callable[[Any], tuple[Any, ...]]) -> Any:
    """Rows (tick, ...) in order of time, one at each tick."""
    if not isinstance(rows, list) or len(rows) > MOST_CHANGES:
        raise UserError(f"document: {name}: a list of at most {MOST_CHANGES:,}")
    found = []
    for row in rows:
        if not isinstance(row, list) or len(row) != size:
            raise UserError(f"document: {name}: lists of {size}, not {shown(row)}")
        found.append((_whole(f"{name}: tick", row[0], 0, LONGEST), *rest(row)))
    found.sort(key=itemgetter(0))
    if twice := [before[0] for before, after in pairwise(found) if before[0] == after[0]]:
        raise UserError(f"document: {name}: two at tick {twice[0]}")
    return tuple(found)


def _note(row: Any, length: int) -> Note:
    if not isinstance(row, list) or len(row) != len(Note._fields):
        raise UserError(f"document: notes: lists of {len(Note._fields)}, not {shown(row)}")
    most = (2**53, 127, length, length, 127, 1, 1)
    for name, value, low, high in zip(Note._fields, row, LEAST, most, strict=True):
        if type(value) is not int or not low <= value <= high:  # its name is put together only if it is wrong
            _whole(f"notes: {name}", value, low, high)
    note = Note(*row)
    if note.end > length:
        raise UserError(f"document: notes: number {note.id} ends at tick {note.end:,}, behind the piece ({length:,})")
    return note

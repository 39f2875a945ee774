"""MIDI files of pieces: written with hands, chords, sections, tempi, meters and key, and read with all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError
from fractalgen.files import replacing
from fractalgen.music.chords import flats_in, parse_chord, spelled
from fractalgen.music.labels import signature_key
from fractalgen.music.lead_sheet import chord_names
from fractalgen.music.midi import END_MARKER, end_mark, read_midi
from fractalgen.music.midi_events import MidiFile, TickGrid, read_file
from fractalgen.music.midi_parser import DRUMS, END_OF_TRACK, Event, decode
from fractalgen.music.midi_writer import (
    key_event,
    meter_event,
    microseconds,
    midi_bytes,
    note_events,
    tempo_event,
    text_event,
)
from fractalgen.music.tokens import whole_bars
from fractalgen.music.voices import voices_of_tracks
from fractalgen.studio.document import (
    HANDS,
    MOST_CHANGES,
    MOST_NOTES,
    MOST_TEXT,
    STEP,
    TICKS,
    UNDECIDED,
    Document,
    Note,
    as_written,
)

TRACKS = {0: "Right hand", 1: "Left hand", UNDECIDED: "Piano"}


def write_document(document: Document, path: Path) -> None:
    """Write :func:`midi_file`; the file appears whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(midi_file(document))


def midi_file(document: Document) -> bytes:
    """A MIDI file of type 1: tempi, meters, key and markers, and a track for each hand that plays.

    A key that is struck again while it sounds is ended there.  A marker at the end keeps the length.
    """
    rows = [(tick, tempo_event(tempo)) for tick, tempo in document.tempos]
    rows += [(tick, meter_event(beats, unit)) for tick, beats, unit in document.meters]
    if named := document.named_key:
        minor = named.endswith("minor")
        sharps = min((n for n in range(-6, 7) if signature_key((n, minor)) == named), key=abs)
        rows.append((0, key_event(sharps, minor)))
    rows += [(tick, text_event(0x06, f"[{name}]")) for tick, name in document.sections]
    rows += [(tick, text_event(0x06, name)) for tick, name in document.chords]
    conductor = [Event(tick, data) for tick, data in sorted(rows, key=itemgetter(0)) if tick <= document.length]
    tracks = [[*conductor, Event(document.length, END_OF_TRACK)]]
    for hand in [hand for hand in TRACKS if any(note.hand == hand for note in document.notes)] or [UNDECIDED]:
        opening = [Event(0, text_event(0x03, TRACKS[hand])), Event(0, b"\xc0\x00")]
        mine = apart(note for note in document.notes if note.hand == hand)
        played = note_events([(note.start, note.end, note.pitch, note.velocity) for note in mine], 0)
        tracks.append([*opening, *played, Event(document.length, END_OF_TRACK)])
    tracks[-1].insert(-1, Event(document.length, text_event(0x06, END_MARKER)))
    return midi_bytes(tracks, TICKS)


@contextmanager
def short_names(folder: Path) -> Iterator[None]:
    """Mistakes name files of the folder without it."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(f"{folder}/", "")) from error


def apart(notes: Iterable[Note]) -> list[Note]:
    """Notes as MIDI says them: of those struck together on a key the loudest and longest, cut where struck again."""
    keys: dict[int, list[Note]] = {}
    for note in notes:
        keys.setdefault(note.pitch, []).append(note)
    found = []
    for row in keys.values():
        struck: dict[int, Note] = {}
        for note in row:
            other = struck.get(note.start, note)
            longest, loudest = max(note.duration, other.duration), max(note.velocity, other.velocity)
            struck[note.start] = note._replace(duration=longest, velocity=loudest)
        ordered = list(struck.values())
        found += [note._replace(duration=min(note.end, after.start) - note.start) for note, after in pairwise(ordered)]
        found += ordered[-1:]
    return found


def read_document(path: Path) -> tuple[Document, list[str]]:
    """The piece in a MIDI file, and what of it is left out or changed, in lines.

    Notes sound as long as the pedal holds them; the names of tracks say which hand plays.  Drums are left out.

    Raises:
        UserError: the file cannot be read, or is too long.
    """
    file = read_file(path)
    events = read_midi(path)
    remarks = list(events.remarks)

    ticks = TickGrid(file.ticks_per_quarter, TICKS).step
    rows, _ = file.notes()
    drums = rows[:, 1] == DRUMS
    if drums.any():
        remarks.append(f"drums are left out ({drums.sum()} notes)")
    if len(rows) - drums.sum() > MOST_NOTES:
        raise UserError(f"{path}: {len(rows) - drums.sum():,} notes; the studio takes {MOST_NOTES:,}")
    if events.pedalled:
        remarks.append(f"the pedal lengthens {events.pedalled} notes")
    notes = _notes(file, rows[~drums], ticks)
    mark = end_mark(file)
    length = events.width * STEP if mark is None else ticks(mark[0])
    length = max([length, *(note.end for note in notes)])
    length = length if mark else whole_bars(tuple((m[0] * STEP, *m[1:]) for m in events.meters), length, TICKS)
    tempos = {ticks(tick): _quarters(quarter) for tick, quarter in events.changes}
    meters = {ticks(tick): (beats, unit) for tick, beats, unit in file.meters if beats <= 32 and unit <= 32}
    default = events.key == (0, False) and mark is None  # other programs write C major where there is no key
    key = None if events.key is None or default else signature_key(events.key)
    try:
        chords = [(tick, written(code, text, key)) for tick, code, text in chord_names(path, TICKS)]
    except UserError:
        chords = []
    texts = ((ticks(tick), decode(text)) for tick, text in file.meta(0x06))
    sections = {tick: found[1][:MOST_TEXT] for tick, text in texts if (found := re.fullmatch(r"\[(.+)\]", text))}
    document = Document(
        length,
        tuple(sorted({0: 120.0, **tempos}.items()))[:MOST_CHANGES],
        tuple((tick, *meter) for tick, meter in sorted({0: (4, 4), **meters}.items()))[:MOST_CHANGES],
        as_written(key),
        notes,
        tuple(chords)[:MOST_CHANGES],
        tuple(sections.items())[:MOST_CHANGES],
    )
    return document, remarks


def _notes(file: MidiFile, rows: npt.NDArray[np.int64], ticks: Callable[[int], int]) -> tuple[Note, ...]:
    """Notes of a file, by start, then pitch; ``rows``: as :meth:`.MidiFile.notes` has them."""
    voices = voices_of_tracks(rows[:, 0], file.name)
    pedals = file.pedals()
    notes = []
    for number, (row, voice) in enumerate(zip(rows.tolist(), voices.tolist(), strict=True)):
        track, channel, pitch, velocity, start, end, _, off = row
        stop = ticks(pedals.heard(channel, end, track, off))
        hand = HANDS.get(voice, UNDECIDED)
        notes.append(Note(number, pitch, ticks(start), max(1, stop - ticks(start)), velocity, hand))
    return tuple(sorted(notes, key=itemgetter(2, 1)))


def written(code: int, text: str, key: str | None) -> str:
    """A chord as a composer wrote it, if the chord lane can read that; else as it is written in a key."""
    with suppress(UserError):
        parse_chord(text)
        return text.strip()
    return spelled(code, flats_in(key))


def _quarters(wanted: int) -> float:
    """The tempo that is so many microseconds a quarter, with as few decimals as say that."""
    exact = 60e6 / wanted
    rounded = (round(exact, digits) for digits in range(7))
    return next((tempo for tempo in rounded if microseconds(tempo) == wanted), exact)

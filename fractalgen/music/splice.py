"""Composed cells are inserted into a copy of the source MIDI file; all other events are kept.

A source is edited on the level of its events: whatever is not a note that goes away is written as it was read.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fractalgen.files import replacing
from fractalgen.music.midi import END_MARKER
from fractalgen.music.midi_events import PEDAL, Key, MidiFile, NoteEvents, Part, Pedals, TickGrid, read_file
from fractalgen.music.midi_parser import DRUMS, END_OF_TRACK, NEVER, Event
from fractalgen.music.midi_writer import midi_bytes, note_events, text_event
from fractalgen.music.pianoroll import Markers, PianoRoll
from fractalgen.music.tokens import HOLD, ONSET, midi_velocity, velocity_bin
from fractalgen.music.voices import LEFT
from fractalgen.music.voices import hands as hands_of

TRACK_NAME = "FractalGen"
_OLD_END_MARKER = re.compile(rb"\xff\x06[\x80-\xff]*[\x00-\x7f]" + END_MARKER.encode())
_Added = tuple[int, int, int, int]  # a note of the new track: pitch, ticks of its start and end, velocity


@dataclass
class _Note(NoteEvents):
    """A note of the source, and the time steps that it is heard."""

    step: int = field(default=0, init=False)
    stop: int = field(default=0, init=False)
    moved: bool = field(default=False, init=False)  # its end is not where it was


def splice_midi(
    source: Path,
    roll: PianoRoll,
    composed: npt.NDArray[np.bool_],
    path: Path,
    *,
    cut: int | None = None,
    tracks: Collection[Part] | None = None,
    within: npt.NDArray[np.bool_] | None = None,
    pedal: bool = True,
    note: str = "",
    markers: Markers = (),
    hands: bool = False,
) -> None:
    """Write ``roll`` as a copy of ``source`` in which only the composed cells were touched.

    ``composed``: Bool (128, T), the cells of the roll that did not come from the source.  ``tracks``: the given voice
    is these tracks (of ``find_tracks``); notes of others go away, but not those struck at steps outside of ``within``,
    bool (T,).  Drums stay.  ``pedal``: as in ``read_midi``.
    ``note``: a text for the new track; ``markers``: (step, text) in it.  ``hands``: two new tracks, one for each hand.
    ``path`` appears whole or not at all, and ``PianoRoll.from_midi(path)`` has the
    tokens of ``roll``.

    - Notes of the source whose cells are all kept stay exactly as they were, in their track and channel.  If a note
      is kept but its tail was composed, or composed holds lengthen it, its start and velocity stay, and its end is on
      the grid, unless the roll holds it to the same step as before.  Where a pedal would hold it on from there, it
      moves to the new track.  (Of overlapping notes on one key of one channel, the earlier ends with the later at the
      latest, because MIDI cannot tell their ends apart.)
    - Notes of the source that the roll does not have go away.  Notes of the roll that the source does not have stand
      on the grid in a new track, ``FractalGen`` (program 0, a channel that the source leaves free if there is one).
    - Everything else stays: tempi, meters, keys, texts, controllers, programs, names.  Only lone ends of notes, which
      no reader counts as notes, go away.  What hangs is ended where it was read to end: notes that are never ended, and
      a pedal that is down at the end.
    - From the step ``cut`` on (a piece that continues after its beginning) nothing of the source stays, drums included:
      tempo, meter and controllers continue unchanged, but a pedal that is down is released.
    - If a time step is not a whole number of the source's ticks, all ticks are multiplied; the tempo counts quarter
      notes, so seconds are the same.  Where a quarter note would get more than 32,767 ticks, composed notes stand on
      the nearest tick instead.

    Raises:
        UserError: the source cannot be read or edited, or the path cannot be written.
        ValueError: ``composed`` is not as large as the roll.
    """
    if composed.shape != roll.tokens.shape:
        raise ValueError(f"composed cells {composed.shape}, but a roll of {roll.tokens.shape}")
    file = read_file(source).multiplied(source, roll.steps_per_quarter)
    grid = TickGrid(file.ticks_per_quarter, roll.steps_per_quarter)
    rows, lone = file.notes()
    moved = file.pedals() if cut is None else file.pedals(grid.first(cut), grid.tick(cut))
    pedals = moved if pedal else Pedals({}, [])
    notes = _source_notes(rows.tolist(), grid, pedals, cut)
    kept, added = _match(roll, composed, _voice(notes, tracks, within), grid, pedals)
    kept += [note for note in notes if note.channel == DRUMS]
    goes_on = any(step == cut for step, _, _ in roll.time_signatures)  # the meter that begins where the source is cut
    edited = _edit(file, notes, kept, lone, grid, cut, moved, goes_on)
    parts = _by_hand(roll, added, grid) if hands else {TRACK_NAME: added}
    edited += _new_tracks(roll, parts, grid, *_new_channel(file.tracks, pedals), note, markers)
    with replacing(path) as temporary:
        temporary.write_bytes(midi_bytes(edited, grid.ticks_per_quarter))


def _source_notes(rows: list[list[int]], grid: TickGrid, pedals: Pedals, cut: int | None) -> list[_Note]:
    """The notes of the source, and how long each is heard; what is never ended ends at step ``cut``."""
    notes = []
    for row in rows:
        note = _Note(*row)
        note.step = grid.step(note.start)
        if note.off == NEVER and cut is not None:
            note.end = min(note.end, grid.tick(cut))
        heard = pedals.heard(note.channel, note.end, note.track, note.off)
        note.stop = max(grid.step(heard), note.step + 1)
        notes.append(note)
    return notes


def _voice(notes: list[_Note], tracks: Collection[Part] | None, within: npt.NDArray[np.bool_] | None) -> list[_Note]:
    """The notes that are given: no drums, and of other tracks only what is struck outside of ``within``."""

    def given(note: _Note) -> bool:
        outside = within is not None and not within[min(note.step, len(within) - 1)]
        return tracks is None or (note.track, note.channel) in tracks or outside

    return [note for note in notes if note.channel != DRUMS and given(note)]


def _match(
    roll: PianoRoll, composed: npt.NDArray[np.bool_], given: list[_Note], grid: TickGrid, pedals: Pedals
) -> tuple[list[_Note], list[_Added]]:
    """Notes of the source that the roll keeps (their ends moved where it ends them elsewhere), and the new ones."""
    struck: dict[tuple[int, int], list[_Note]] = defaultdict(list)
    for note in given:
        struck[note.pitch, note.step].append(note)
    kept: list[_Note] = []
    added: list[_Added] = []
    for pitch, start, duration, loudness in roll.notes().tolist():
        stop = start + duration
        end = grid.tick(stop)
        together = struck[pitch, start]  # doubled notes are one note of the roll: the loudest velocity, the latest end
        before = roll.tokens[pitch, start] == HOLD  # began before the roll, so its velocity is not known
        loudest = velocity_bin(max((note.velocity for note in together), default=0), roll.velocity_bins)
        if composed[pitch, start] or not together or (loudest != loudness and not before):
            added.append((pitch, grid.tick(start), end, int(midi_velocity(loudness, roll.velocity_bins))))
            continue
        struck_again = stop < roll.width and roll.tokens[pitch, stop] >= ONSET
        latest = max(note.stop for note in together)
        for note in together:
            if not ((note.stop > stop and not struck_again) or note.stop == latest < stop):
                kept.append(note)
            elif pedals.heard(note.channel, end, note.track) > end:
                added.append((pitch, note.start, end, note.velocity))
            else:
                note.end, note.moved = end, True
                kept.append(note)
    _untangle(kept)
    return kept, added


def _untangle(kept: list[_Note]) -> None:
    """Make ends increase with starts on each key of each channel: an end belongs to the note that began first."""
    keys: dict[tuple[int, int, int], list[_Note]] = defaultdict(list)
    for note in sorted(kept, key=lambda note: note.on):
        keys[note.track, note.channel, note.pitch].append(note)
    for chain in keys.values():
        for later, note in pairwise(reversed(chain)):
            if note.moved and note.step < later.step:
                note.end = min(note.end, later.start)  # rounds to the same step: the roll ends it at the next onset
            if note.end > later.end:
                note.end, note.moved = later.end, True


def _edit(
    file: MidiFile,
    notes: list[_Note],
    kept: list[_Note],
    lone: set[Key],
    grid: TickGrid,
    cut: int | None,
    pedals: Pedals,
    goes_on: bool,
) -> list[list[Event]]:
    """The source's tracks without the notes that go away, and without what comes at or after step ``cut``.

    ``goes_on``: but for a meter at that very step.
    """

    def stays(tick: int, data: bytes) -> bool:
        if cut is None or data[:2] == b"\xff\x51":  # a tempo holds between steps too
            return cut is None or tick * grid.steps_per_quarter < cut * grid.ticks_per_quarter
        return grid.step(tick) < cut + (goes_on and data[:2] == b"\xff\x58")

    stay = [note for note in kept if cut is None or note.step < cut]
    ends = {(note.track, note.off): note for note in stay}
    going = lone | {key for note in notes for key in ((note.track, note.on), (note.track, note.off))}
    going -= {(note.track, note.on) for note in stay} | set(ends)
    struck = Counter((note.track, note.channel, note.pitch, note.start) for note in stay)
    hanging: dict[int, list[_Note]] = defaultdict(list)
    for note in stay:
        if note.off == NEVER:
            hanging[note.track].append(note)
    edited = []
    for track, events in enumerate(file.tracks):
        rows: list[tuple[int, int, int, bytes]] = []  # at one tick: moved ends, then all as it was, then the pedals
        for place, (tick, data) in enumerate(events):
            ended = ends.get((track, place))
            if (track, place) in going or data[:2] == END_OF_TRACK[:2] or _OLD_END_MARKER.match(data):
                continue
            if ended is not None and ended.moved:
                rows.append((ended.end, 0, place, data))
            elif ended is not None or stays(tick, data):
                rows.append((tick, 1, place, data))
        end = file.columns[track].end if cut is None else min(file.columns[track].end, grid.tick(cut))
        length = max([end, *(tick for tick, *_ in rows), *(note.end for note in hanging[track])])
        for note in hanging[track]:  # never ended: it is where nothing else ends it as before
            again = struck[track, note.channel, note.pitch, note.end] > (note.end == note.start)
            if note.moved or not (again or note.end == length):
                rows.append((max(note.end, note.start + 1), 0, note.on, bytes([0x80 | note.channel, note.pitch, 0])))
        length = max([length, *(tick for tick, *_ in rows)])
        if cut is not None or length > end:  # where the track ended, so did what a pedal held
            down = [channel for channel, mover in pedals.held.items() if mover == track]
            release = grid.tick(cut) if cut is not None else end
            rows += [(release, 2, channel, bytes([0xB0 | channel, PEDAL, 0])) for channel in down]
            length = max(length, release if down else 0)
        rows.sort()
        edited.append([*(Event(tick, data) for tick, _, _, data in rows), Event(length, END_OF_TRACK)])
    return edited


def _by_hand(roll: PianoRoll, added: list[_Added], grid: TickGrid) -> dict[str, list[_Added]]:
    """The composed notes of each hand, by the name of its track."""
    notes = roll.notes()
    lower = {(pitch, grid.tick(step)) for pitch, step, *_ in notes[hands_of(notes) == LEFT].tolist()}
    return {
        f"{TRACK_NAME} right hand": [row for row in added if row[:2] not in lower],
        f"{TRACK_NAME} left hand": [row for row in added if row[:2] in lower],
    }


def _new_channel(tracks: list[list[Event]], pedals: Pedals) -> tuple[int, list[Event]]:
    """The channel that the source uses least, and a piano for it if the source does not use it at all."""
    used = Counter(data[0] & 0xF for events in tracks for _, data in events if data[0] < 0xF0)
    free = (channel for channel in range(16) if channel != DRUMS)
    channel = min(free, key=lambda channel: (channel in pedals.channels, used[channel], channel))
    return channel, [] if used[channel] else [Event(0, bytes([0xC0 | channel, 0]))]


def _new_tracks(
    roll: PianoRoll,
    parts: dict[str, list[_Added]],
    grid: TickGrid,
    channel: int,
    program: list[Event],
    note: str,
    markers: Markers,
) -> list[list[Event]]:
    """The composed notes, a track for each name.

    On the first one are the texts, and the marker that keeps the width of the roll and what is held at its beginning.
    """
    end = grid.tick(roll.width)
    about = [Event(0, text_event(0x01, note))] if note else []
    marks = sorted(Event(grid.tick(step), text_event(0x06, text)) for step, text in markers)
    width = [Event(end, roll.end_marker())]
    tracks = []
    for name, added in parts.items():
        notes = note_events([(start, stop, pitch, velocity) for pitch, start, stop, velocity in added], channel)
        timed = sorted([*notes, *marks], key=lambda event: event.tick)
        tracks.append([Event(0, text_event(0x03, name)), *about, *program, *timed, *width, Event(end, END_OF_TRACK)])
        about = marks = width = []
    return tracks

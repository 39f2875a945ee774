"""MIDI files that keep what was there: the composed cells go into a copy of the source, event by event.

A source is edited on the level of its events: whatever is not a note that goes away is written as it was read.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError
from fractalgen.files import replacing
from fractalgen.midi import END_MARKER, parse_midi
from fractalgen.midi_events import (
    DRUMS,
    END_OF_TRACK,
    Event,
    Grid,
    Key,
    MidiNote,
    midi_bytes,
    pair_notes,
    read_events,
    text_event,
)
from fractalgen.pianoroll import HOLD, ONSET, PianoRoll, midi_velocity, velocity_bin

TRACK_NAME = "FractalGen"
_PEDAL = 64  # the controller of the sustaining pedal
_OLD_END_MARKER = re.compile(rb"\xff\x06[\x80-\xff]*[\x00-\x7f]" + END_MARKER.encode())
_Added = tuple[int, int, int, int]  # a composed note: pitch, start and stop in steps, velocity bin


def splice_midi(
    source: Path,
    roll: PianoRoll,
    composed: npt.NDArray[np.bool_],
    path: Path,
    *,
    cut: int | None = None,
    tracks: Collection[int] | None = None,
) -> None:
    """Write ``roll`` as a copy of ``source`` in which only the composed cells were touched.

    ``composed``: Bool (128, T), the cells of the roll that did not come from the source.  ``tracks``: the given voice
    is these tracks (numbers from ``find_tracks``); notes of others go away.  Drums stay.  ``path`` appears whole or
    not at all, and ``PianoRoll.from_midi(path)`` has the tokens of ``roll``.

    - Notes of the source whose cells are all kept stay exactly as they were, in their track and channel.  If a note
      is kept but its tail was composed, or composed holds lengthen it, its start and velocity stay, and its end is on
      the grid, unless the roll holds it to the same step as before.  (Of overlapping notes on one key of one
      channel, the earlier ends with the later at the latest, because MIDI cannot tell their ends apart.)
    - Notes of the source that the roll does not have go away.  Notes of the roll that the source does not have stand
      on the grid in a new track, ``FractalGen`` (program 0, a channel that the source leaves free if there is one).
    - Everything else stays: tempi, meters, keys, texts, controllers, programs, names.  Only lone halves of notes,
      which no reader counts as notes, go away.
    - From the step ``cut`` on (a piece that goes on after its beginning) nothing of the source stays, drums included:
      tempo, meter and controllers go on as they stand there, but a pedal that is down is released.
    - If a time step is not a whole number of the source's ticks, all ticks are multiplied; the tempo counts quarter
      notes, so seconds are the same.  Where a quarter note would get more than 32,767 ticks, composed notes stand on
      the nearest tick instead.

    Raises:
        UserError: the source cannot be read or edited, or the path cannot be written.
        ValueError: ``composed`` is not as large as the roll.
    """
    if composed.shape != roll.tokens.shape:
        raise ValueError(f"composed cells {composed.shape}, but a roll of {roll.tokens.shape}")
    score = parse_midi(source)
    grid, factor, parts = read_events(source, roll.steps_per_quarter)
    notes, lone = pair_notes(parts, grid)
    voices = [Counter(_heard(track, factor)) for track in score.tracks if not track.is_drum]
    melodic = [note for note in notes if note.channel != DRUMS]
    if sum(voices, Counter()) != Counter(note.heard for note in melodic):
        raise UserError(f"{source}: its events contradict each other, so it cannot be edited in place")
    given = melodic if tracks is None else _given([score.tracks[track] for track in tracks], melodic, factor)
    kept, added = _match(roll, composed, given, grid)
    kept += [note for note in notes if note.channel == DRUMS]
    edited = _edit(parts, notes, kept, lone, grid, cut)
    edited.append(_new_track(roll, added, grid, parts))
    with replacing(path) as temporary:
        temporary.write_bytes(midi_bytes(edited, grid.ticks_per_quarter))


def _match(
    roll: PianoRoll, composed: npt.NDArray[np.bool_], given: list[MidiNote], grid: Grid
) -> tuple[list[MidiNote], list[_Added]]:
    """Notes of the source that the roll keeps (their ends moved where it ends them elsewhere), and the new ones."""
    struck: dict[tuple[int, int], list[MidiNote]] = defaultdict(list)
    for note in given:
        struck[note.pitch, note.step].append(note)
    kept: list[MidiNote] = []
    added: list[_Added] = []
    for pitch, start, duration, loudness in roll.notes().tolist():
        stop = start + duration
        together = struck[pitch, start]  # doubled notes are one note of the roll: the loudest velocity, the latest end
        before = roll.tokens[pitch, start] == HOLD  # began before the roll, so its velocity is not known
        loudest = velocity_bin(max((note.velocity for note in together), default=0), roll.velocity_bins)
        if composed[pitch, start] or not together or (loudest != loudness and not before):
            added.append((pitch, start, stop, loudness))
            continue
        struck_again = stop < roll.width and roll.tokens[pitch, stop] >= ONSET
        latest = max(note.stop for note in together)
        for note in together:
            if (note.stop > stop and not struck_again) or note.stop == latest < stop:
                note.end, note.moved = grid.tick(stop), True
        kept += together
    _untangle(kept)
    return kept, added


def _untangle(kept: list[MidiNote]) -> None:
    """Make ends increase with starts on each key of each channel: an end belongs to the note that began first."""
    keys: dict[tuple[int, int, int], list[MidiNote]] = defaultdict(list)
    for note in sorted(kept, key=lambda note: note.on):
        keys[note.track, note.channel, note.pitch].append(note)
    for chain in keys.values():
        for later, note in pairwise(reversed(chain)):
            if note.moved and note.step < later.step:
                note.end = min(note.end, later.start)  # rounds to the same step: the roll ends it at the next onset
            if note.end > later.end:
                note.end, note.moved = later.end, True


def _edit(
    parts: list[list[Event]], notes: list[MidiNote], kept: list[MidiNote], lone: set[Key], grid: Grid, cut: int | None
) -> list[list[Event]]:
    """The source's tracks without the notes that go away, and without what comes at or after step ``cut``."""

    def stays(tick: int) -> bool:
        return cut is None or grid.step(tick) < cut

    stay = [note for note in kept if stays(note.start)]
    ends = {(note.track, note.off): note for note in stay}
    going = lone | {key for note in notes for key in ((note.track, note.on), (note.track, note.off))}
    going -= {(note.track, note.on) for note in stay} | set(ends)
    edited = []
    for track, events in enumerate(parts):
        rows: list[tuple[int, int, int, bytes]] = []  # at one tick: moved ends, then all as it was, then the pedals
        pedals: dict[int, int] = {}
        for place, (tick, data) in enumerate(events):
            note = ends.get((track, place))
            if (track, place) in going or data[:2] == END_OF_TRACK[:2] or _OLD_END_MARKER.match(data):
                continue
            if note is not None and note.moved:
                rows.append((note.end, 0, place, data))
            elif note is not None or stays(tick):
                rows.append((tick, 1, place, data))
                if data[0] >> 4 == 0xB and data[1] == _PEDAL:
                    pedals[data[0] & 0xF] = data[2]
        length = events[-1].tick if events else 0
        if cut is not None:
            length = min(length, grid.tick(cut))
            down = [channel for channel, value in pedals.items() if value >= 64]
            rows += [(grid.tick(cut), 2, channel, bytes([0xB0 | channel, _PEDAL, 0])) for channel in down]
        rows.sort()
        length = max(length, rows[-1][0] if rows else 0)
        edited.append([*(Event(tick, data) for tick, _, _, data in rows), Event(length, END_OF_TRACK)])
    return edited


def _new_track(roll: PianoRoll, added: list[_Added], grid: Grid, parts: list[list[Event]]) -> list[Event]:
    """The composed notes, and the marker that keeps the width of the roll and what is held at its beginning."""
    used = Counter(event.data[0] & 0xF for events in parts for event in events if event.data[0] < 0xF0)
    channel = min((channel for channel in range(16) if channel != DRUMS), key=lambda channel: (used[channel], channel))
    events = [Event(0, text_event(0x03, TRACK_NAME))]
    if not used[channel]:  # else no channel is free, and the program of a part that stays is not to change
        events.append(Event(0, bytes([0xC0 | channel, 0])))
    rows = []
    for pitch, start, stop, loudness in added:
        velocity = int(midi_velocity(loudness, roll.velocity_bins))
        rows.append((grid.tick(start), 1, bytes([0x90 | channel, pitch, velocity])))
        rows.append((grid.tick(stop), 0, bytes([0x80 | channel, pitch, 0])))
    events += [Event(tick, data) for tick, _, data in sorted(rows)]
    held = np.flatnonzero(roll.tokens[:, :1] == HOLD)
    end = grid.tick(roll.width)
    return [*events, Event(end, text_event(0x06, " ".join([END_MARKER, *map(str, held)]))), Event(end, END_OF_TRACK)]


def _heard(track: Any, factor: int) -> Iterator[tuple[int, int, int, int]]:
    return ((note.time * factor, note.end * factor, note.pitch, note.velocity) for note in track.notes)


def _given(tracks: Iterable[Any], melodic: list[MidiNote], factor: int) -> list[MidiNote]:
    """The notes of symusic's ``tracks``, each of which lies in one channel of one track of the file."""
    channels: dict[tuple[int, int], list[MidiNote]] = defaultdict(list)
    for note in melodic:
        channels[note.track, note.channel].append(note)
    given: list[MidiNote] = []
    for track in tracks:
        wanted = Counter(_heard(track, factor))
        home = next(notes for notes in channels.values() if wanted <= Counter(note.heard for note in notes))
        for note in tuple(home):
            if wanted[note.heard]:
                wanted[note.heard] -= 1
                given.append(note)
                home.remove(note)  # two tracks that sound the same are two
    return given

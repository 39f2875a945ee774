"""Lossless reading of MIDI files, event by event.

All files that other programs read can be read, and faults are listed in ``MidiFile.faults``: truncated files, a wrong
number of tracks, running status after system exclusive messages, packets of those, RIFF containers, gzip.

mido (1.3.3) drops the time before a meta event that it does not know (0x08, the program name, is one), so that the rest
of the track comes early; symusic (0.6.0) reads wrong times after packets (0xF7), and knows neither channels nor texts
nor how a file was divided into tracks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from fractalgen.errors import UserError
from fractalgen.music.midi_parser import (
    DRUMS,
    NEVER,
    Columns,
    Event,
    Track,
    decode,
    is_score,
    meta_content,
    parse_file,
    unpacked,
)

MOST_TICKS = 0x7FFF  # a quarter note may have in a MIDI header
LONGEST = 0x0FFFFFFF  # ticks between two events: four bytes of seven bits
PEDAL = 64  # the controller of the sustaining pedal: values of 64 and above are down
_RESET, _SILENCE = 121, (120, 123, 124, 125, 126, 127)  # controllers: the pedal is let go; all notes are ended
Part: TypeAlias = tuple[int, int]  # what a voice is: a track, and a channel in it
Key: TypeAlias = tuple[int, int]  # of an event: its track, and its place in that track


@dataclass
class NoteEvents:
    """A note, in ticks, and the places of its two events in its track (``off`` is NEVER if it is never ended)."""

    track: int
    channel: int
    pitch: int
    velocity: int
    start: int
    end: int
    on: int
    off: int


class TickGrid(NamedTuple):
    """Ticks and time steps; rounding is that of :func:`fractalgen.music.midi.nearest_steps`: halves go up."""

    ticks_per_quarter: int
    steps_per_quarter: int

    def step(self, tick: int) -> int:
        """The step nearest to a tick."""
        return (2 * tick * self.steps_per_quarter + self.ticks_per_quarter) // (2 * self.ticks_per_quarter)

    def tick(self, step: int) -> int:
        """The tick nearest to a step."""
        return (2 * step * self.ticks_per_quarter + self.steps_per_quarter) // (2 * self.steps_per_quarter)

    def first(self, step: int) -> int:
        """The first tick that is rounded to a step."""
        return -(-(2 * step - 1) * self.ticks_per_quarter // (2 * self.steps_per_quarter))


class Pedals:
    """When the sustaining pedals are down: of each channel ``moves`` (tick, track, place, whether it goes down).

    A pedal that never comes up does so at the end of the track that moved it (``ends``); ``held`` are those tracks.
    """

    def __init__(self, moves: dict[int, list[tuple[int, int, int, bool]]], ends: list[int]) -> None:
        self.channels: dict[int, tuple[list[tuple[int, int, int]], list[int]]] = {}
        self.held = {channel: found[-1][1] for channel, found in moves.items() if found and found[-1][3]}
        for channel, found in moves.items():
            releases, release = [], ends[self.held.get(channel, 0)]
            for tick, _, _, down in reversed(found):
                release = release if down else tick
                releases.append(release)
            self.channels[channel] = [move[:3] for move in found], releases[::-1]

    def heard(self, channel: int, tick: int, track: int, place: int = -1) -> int:
        """The tick until which a note sounds whose key comes up at ``tick``, at a place in the track (-1: first)."""
        moves, releases = self.channels.get(channel, ([], []))
        last = bisect_right(moves, (tick, track, place)) - 1
        return max(tick, releases[last]) if last >= 0 else tick


@dataclass(frozen=True)
class MidiFile:
    """A file: its ticks a quarter note, the events of each track, and what is wrong with it."""

    ticks_per_quarter: int
    columns: list[Track]
    faults: tuple[str, ...] = ()

    @cached_property
    def tracks(self) -> list[list[Event]]:
        """The events of each track."""
        return [list(track.events(np.arange(len(track.tick)))) for track in self.columns]

    @property
    def end(self) -> int:
        """The tick at which the last track ends."""
        return max(track.end for track in self.columns)

    @cached_property
    def _metas(self) -> list[list[Event]]:
        return [list(track.events(track.status == 0xFF)) for track in self.columns]

    def meta(self, kind: int) -> list[tuple[int, bytes]]:
        """Tick and content of all meta events of a kind, in order of time."""
        found = [(tick, meta_content(data)) for events in self._metas for tick, data in events if data[1] == kind]
        return sorted(found, key=lambda event: event[0])

    def name(self, track: int) -> str:
        """The name of a track; empty where it has none."""
        names = (meta_content(data) for _, data in self._metas[track] if data[1] == 0x03)
        return " ".join(decode(next(names, b"")).split())

    @property
    def tempos(self) -> tuple[tuple[int, int], ...]:
        """Changes of tempo: (tick, microseconds a quarter)."""
        found = [(tick, data) for tick, data in self.meta(0x51) if len(data) >= 3 and any(data[:3])]
        return tuple((tick, int.from_bytes(data[:3], "big")) for tick, data in found)

    @property
    def meters(self) -> tuple[tuple[int, int, int], ...]:
        """Changes of meter: (tick, beats, unit)."""
        found = [(tick, data) for tick, data in self.meta(0x58) if len(data) >= 2 and data[0] and data[1] <= 6]
        return tuple((tick, data[0], 1 << data[1]) for tick, data in found)

    @property
    def key(self) -> tuple[int, bool] | None:
        """The first key signature: sharps (flats below 0), and whether it is minor."""
        keys = [(data[0] - 256 * (data[0] > 127), bool(data[1])) for _, data in self.meta(0x59) if len(data) == 2]
        return next((key for key in keys if abs(key[0]) <= 7), None)

    def multiplied(self, path: Path, steps_per_quarter: int) -> MidiFile:
        """The same in ticks of which whole numbers make a time step.

        Where a quarter note would get more ticks than a header can say, nothing is multiplied.

        Raises:
            UserError: a tick is longer than a step, or the file lasts longer than MIDI can say.
        """
        ticks = self.ticks_per_quarter
        factor = steps_per_quarter // gcd(ticks, steps_per_quarter)
        if ticks * factor > MOST_TICKS:
            factor = 1
            if ticks <= steps_per_quarter:
                raise UserError(f"{path}: {ticks} ticks a quarter note are too few for {steps_per_quarter} time steps")
        if self.end * factor > LONGEST:
            raise UserError(f"{path}: too long to be edited ({self.end * factor:,} ticks of {ticks * factor})")
        return MidiFile(
            ticks * factor, [replace(track, tick=track.tick * factor) for track in self.columns], self.faults
        )

    def notes(self) -> tuple[Columns, set[Key]]:
        """Notes, a row for each with the columns of :class:`NoteEvents`, and the lone ends of notes.

        On each key of a channel of a track the note struck first is ended first.  A note that is never ended lasts
        until its key is struck again or all notes of its channel are silenced, else to the end of its track.  Drums are
        among the notes, but only ended ones, and no lone ends of them: a player needs no end of a drum.
        """
        found = [np.zeros((0, 8), np.int64)]
        lone: set[Key] = set()
        for number, track in enumerate(self.columns):
            place = np.flatnonzero(track.status < 0xA0)
            status, begin = track.status[place], track.begin[place]
            data = np.frombuffer(track.content, np.uint8).astype(np.int64)
            pitch, velocity = data[begin], data[begin + 1]
            velocity[status < 0x90] = 0
            key = (status & 0xF) << 7 | pitch
            order = np.argsort(key, kind="stable")
            place, key, velocity = place[order], key[order], velocity[order]
            first = np.flatnonzero(np.r_[True, np.diff(key) != 0]) if len(key) else np.zeros(0, np.int64)
            length = np.diff(np.r_[first, len(key)])
            odd = (np.arange(len(key)) - np.repeat(first, length)) % 2
            # Keys on which each strike is followed by its end, which is nearly all of them, take no loop.
            plain = np.add.reduceat((velocity > 0) == (odd == 0), first) == length if len(first) else odd > 0
            plain &= length % 2 == 0
            on = np.flatnonzero(np.repeat(plain, length) & (odd == 0))
            columns = [key[on] >> 7, key[on] & 0x7F, velocity[on], track.tick[place[on]], track.tick[place[on + 1]]]
            found.append(np.stack([np.full(len(on), number), *columns, place[on], place[on + 1]], axis=1))
            rows: list[tuple[int, ...]] = []
            for start, count in zip(first[~plain].tolist(), length[~plain].tolist(), strict=True):
                group = slice(start, start + count)
                moves = zip(
                    place[group].tolist(), track.tick[place[group]].tolist(), velocity[group].tolist(), strict=True
                )
                channel, own = int(key[start]) >> 7, int(key[start]) & 0x7F
                rows += self._paired(number, channel, own, list(moves), lone)
            found.append(np.array(rows, np.int64).reshape(-1, 8))
        return np.concatenate(found), lone

    def _paired(
        self, track: int, channel: int, pitch: int, moves: list[tuple[int, int, int]], lone: set[Key]
    ) -> Iterator[tuple[int, ...]]:
        """Notes of one key, some overlap or are never ended; ``moves`` are (place, tick, velocity, 0 for an end)."""
        struck: list[tuple[int, int, int]] = []  # since all notes had an end
        ended: list[tuple[int, int]] = []
        for place, tick, velocity in moves:
            if velocity:
                struck.append((place, tick, velocity))
            elif struck:
                ended.append((place, tick))
                if len(struck) == len(ended):
                    for (on, start, loud), (off, end) in zip(struck, ended, strict=True):
                        yield track, channel, pitch, loud, start, end, on, off
                    struck, ended = [], []
            elif channel != DRUMS:
                lone.add((track, place))
        if channel == DRUMS:
            return
        # Some are never ended: an end belongs to the note struck last before it.
        last, later = (len(self.columns[track].tick), self.columns[track].end, 0), 0
        silences = self._silences[channel]
        lone |= {(track, off) for off, _ in ended}
        for (on, start, velocity), (following, latest, _) in zip(struck, [*struck[1:], last], strict=False):
            while later < len(ended) and ended[later][0] < on:
                later += 1
            off, end = ended[later] if later < len(ended) else (following, latest)
            if off >= following:
                quiet = bisect_right(silences, start)
                off, end = NEVER, min([latest, *silences[quiet : quiet + 1]])
            lone.discard((track, off))
            yield track, channel, pitch, velocity, start, end, on, off

    @cached_property
    def _controllers(self) -> dict[int, list[tuple[int, int, int, int, int]]]:
        """Of each channel those that hold or end notes: (tick, track, place, controller, value), in order of time."""
        found = defaultdict(list)
        for number, track in enumerate(self.columns):
            places = np.flatnonzero(track.status >> 4 == 0xB)
            for place, (tick, data) in zip(places.tolist(), track.events(places), strict=True):
                if data[1] == PEDAL or data[1] >= _SILENCE[0]:
                    found[data[0] & 0xF].append((tick, number, place, data[1], data[2]))
        for events in found.values():
            events.sort()
        return found

    @cached_property
    def _silences(self) -> dict[int, list[int]]:
        """Ticks at which all notes of a channel are ended."""
        found = defaultdict(list)
        for channel, events in self._controllers.items():
            found[channel] = [tick for tick, _, _, controller, _ in events if controller in _SILENCE]
        return found

    def pedals(self, before: int | None = None, end: int | None = None) -> Pedals:
        """The pedals of all channels; with ``before`` moved only before that tick, and let go at ``end``."""
        moves = {
            channel: [
                (tick, track, place, controller == PEDAL and value >= 64)
                for tick, track, place, controller, value in events
                if controller in (PEDAL, _RESET) and (before is None or tick < before)
            ]
            for channel, events in self._controllers.items()
        }
        return Pedals(moves, [track.end if end is None else end for track in self.columns])


def read_file(path: Path) -> MidiFile:
    """Read a MIDI file of type 0 or 1, also in a RIFF container (.rmi) or compressed by gzip; or a score in MusicXML.

    Raises:
        UserError: it cannot be read, is no MIDI file, has no tracks, or ticks that are not musical time.
    """
    if is_score(path):
        from fractalgen.music.musicxml_reader import read_musicxml  # which builds on this module

        content = read_musicxml(path)
    else:
        content = unpacked(path)
    return MidiFile(*parse_file(path, content))

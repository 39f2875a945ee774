"""MIDI files event by event, without any loss.

symusic, which reads and writes the files of this package, knows neither channels nor system exclusive events, texts,
aftertouch or how a file was divided into tracks.  Whoever edits a file in place needs all of that.

mido (1.3.3) would make this module a quarter shorter, but it drops the time before a meta event that it does not know
(0x08, the program name, is one), so that the rest of the track comes early; and it cannot read or write files with
unusual keys, meta events shorter than they should be, clocks, or chunks that are not tracks.
"""

from __future__ import annotations

import struct
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from pathlib import Path
from typing import NamedTuple

from fractalgen.errors import UserError

DRUMS = 9  # the channel that General MIDI gives to percussion
END_OF_TRACK = b"\xff\x2f\x00"
_MOST_TICKS = 0x7FFF  # a quarter note may have in a MIDI header
_SYSTEM = {0xF1: 1, 0xF2: 2, 0xF3: 1}  # data bytes of messages out of place in a file; the other ones have none
_LONGEST = 0x0FFFFFFF  # ticks between two events: four bytes of seven bits
Key = tuple[int, int]  # of an event: its track, and its place in that track


class Event(NamedTuple):
    """One event of a track: its tick, and its bytes with the status byte always written out."""

    tick: int
    data: bytes


@dataclass
class MidiNote:
    """A note of a file (ticks): where its two events are in the track, and the time steps it is rounded to."""

    track: int
    channel: int
    pitch: int
    velocity: int
    start: int
    end: int
    on: int
    off: int
    step: int
    stop: int
    moved: bool = False  # its end is no longer that of the file

    @property
    def heard(self) -> tuple[int, int, int, int]:
        """What can be heard of it, whatever track it is in."""
        return self.start, self.end, self.pitch, self.velocity


class Grid(NamedTuple):
    """Ticks and time steps; rounding is that of ``MidiEvents.roll``: halves go up."""

    ticks_per_quarter: int
    steps_per_quarter: int

    def step(self, tick: int) -> int:
        """The step nearest to a tick."""
        return (2 * tick * self.steps_per_quarter + self.ticks_per_quarter) // (2 * self.ticks_per_quarter)

    def tick(self, step: int) -> int:
        """The tick nearest to a step."""
        return (2 * step * self.ticks_per_quarter + self.steps_per_quarter) // (2 * self.steps_per_quarter)


def read_events(path: Path, steps_per_quarter: int) -> tuple[Grid, int, list[list[Event]]]:
    """The grid, the factor by which ticks were multiplied so that steps are whole ticks, and the events of each track.

    ``path`` has been read by ``parse_midi`` before.  Where a quarter note would get more ticks than a header can say,
    nothing is multiplied.  Raises ``UserError`` when the events are damaged, or a tick is longer than a step.
    """
    content = path.read_bytes()
    ticks = int.from_bytes(content[12:14], "big")
    factor = steps_per_quarter // gcd(ticks, steps_per_quarter)
    if ticks * factor > _MOST_TICKS:
        factor = 1
        if ticks <= steps_per_quarter:
            raise UserError(f"{path}: {ticks} ticks a quarter note are too few for {steps_per_quarter} time steps")
    parts = []
    place = 8 + int.from_bytes(content[4:8], "big")
    while place < len(content):
        start, stop = place + 8, place + 8 + int.from_bytes(content[place + 4 : place + 8], "big")
        if content[place : place + 4] == b"MTrk":
            try:
                parts.append([Event(tick * factor, data) for tick, data in _events(content[start:stop])])
            except (IndexError, ValueError) as error:
                raise UserError(f"{path}: damaged, so it cannot be edited in place ({error})") from error
            if parts[-1] and parts[-1][-1].tick > _LONGEST:
                raise UserError(f"{path}: too long to be edited ({parts[-1][-1].tick:,} ticks of {ticks * factor})")
        place = stop
    return Grid(ticks * factor, steps_per_quarter), factor, parts


def pair_notes(parts: list[list[Event]], grid: Grid) -> tuple[list[MidiNote], set[Key]]:
    """Notes, on each key the one struck first ended first, and the lone halves of notes (but for those of drums)."""
    notes: list[MidiNote] = []
    lone: set[Key] = set()
    for track, events in enumerate(parts):
        waiting: dict[tuple[int, int], deque[int]] = defaultdict(deque)
        for place, (tick, data) in enumerate(events):
            kind, channel = data[0] >> 4, data[0] & 0xF
            if kind not in (8, 9):
                continue
            pitch, velocity = data[1], data[2]
            began = waiting[channel, pitch]
            if kind == 9 and velocity:
                began.append(place)
            elif began:
                on = began.popleft()
                start, struck = events[on]
                step = grid.step(start)
                stop = max(grid.step(tick), step + 1)
                notes.append(MidiNote(track, channel, pitch, struck[2], start, tick, on, place, step, stop))
            elif channel != DRUMS:  # a player sounds a drum without an end
                lone.add((track, place))
        lone |= {(track, on) for (channel, _), began in waiting.items() if channel != DRUMS for on in began}
    return notes, lone


def midi_bytes(tracks: list[list[Event]], ticks_per_quarter: int) -> bytes:
    """A type 1 file of tracks, whose events are in order of time; each track says its own end."""
    content = [b"MThd", struct.pack(">IHHH", 6, 1, len(tracks), ticks_per_quarter)]
    for events in tracks:
        waits = (later - tick for tick, later in pairwise([0, *(event.tick for event in events)]))
        body = b"".join(_variable(wait) + event.data for wait, event in zip(waits, events, strict=True))
        content += [b"MTrk", len(body).to_bytes(4, "big"), body]
    return b"".join(content)


def text_event(kind: int, text: str) -> bytes:
    """A meta event that holds an ASCII text: ``kind`` 1 text, 3 track name, 6 marker."""
    content = text.encode("ascii")
    return bytes([0xFF, kind]) + _variable(len(content)) + content


def _events(track: bytes) -> Iterator[Event]:
    """The events of a track up to its end; an event without a status byte has that of the channel event before."""
    place = tick = running = 0
    while place < len(track):
        wait, place = _number(track, place)
        tick += wait
        status = running
        if track[place] >= 0x80:
            status = track[place]
            place += 1
        start = place
        if status in (0xF0, 0xF7, 0xFF):
            size, begin = _number(track, place + (status == 0xFF))
            place = begin + size
        elif 0x80 <= status < 0xF0:
            place += 1 if status >> 4 in (0xC, 0xD) else 2
            running = status
        elif status:
            place += _SYSTEM.get(status, 0)
        else:
            raise ValueError(f"data without a status at tick {tick}")
        if place > len(track):
            raise ValueError(f"an event at tick {tick} is cut off")
        event = Event(tick, bytes([status]) + track[start:place])
        yield event
        if event.data[:2] == END_OF_TRACK[:2]:
            return


def _number(content: bytes, place: int) -> tuple[int, int]:
    """A number of variable length, and the place after it."""
    value = 0
    while True:
        value = value << 7 | content[place] & 0x7F
        place += 1
        if content[place - 1] < 0x80:
            return value, place


def _variable(value: int) -> bytes:
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))

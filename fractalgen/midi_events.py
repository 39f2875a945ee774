"""MIDI files event by event, without any loss: the one reader and writer of them.

What other programs read is read: files with a wrong number of tracks or cut short, running status after system
exclusive messages, packets of those, RIFF containers, gzip.  What is missing is told in ``MidiFile.faults``.

No library does that.  mido (1.3.3) drops the time before a meta event that it does not know (0x08, the program name, is
one), so that the rest of the track comes early; symusic (0.6.0) reads wrong times after packets (F7), and knows neither
channels nor texts nor how a file was divided into tracks.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
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
_MOST_BYTES = 1 << 24  # hours of dense music take less
PEDAL, _RESET = 64, 121  # controllers: the sustaining pedal, and all of them back at rest
NEVER = -1  # the place of an end that is not there
Key = tuple[int, int]  # of an event: its track, and its place in that track


class Event(NamedTuple):
    """One event of a track: its tick, and its bytes with the status byte always written out."""

    tick: int
    data: bytes


@dataclass
class MidiNote:
    """A note of a file, in ticks, and where its two events are in its track (``off`` is NEVER if it is never ended).

    ``sounds``: when it stops sounding, later than its ``end`` where a pedal is down.
    """

    track: int
    channel: int
    pitch: int
    velocity: int
    start: int
    end: int
    on: int
    off: int
    sounds: int = 0
    moved: bool = False  # its end is no longer that of the file


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


@dataclass(frozen=True)
class MidiFile:
    """A file: its ticks a quarter note, the events of each track, the tick at which each ends, and what is wrong."""

    ticks_per_quarter: int
    tracks: list[list[Event]]
    ends: list[int]
    faults: tuple[str, ...] = ()

    @property
    def end(self) -> int:
        """The tick at which the last track ends."""
        return max(self.ends)

    @cached_property
    def metas(self) -> list[tuple[int, int, bytes]]:
        """Tick, track and bytes of all meta events, in order of time."""
        found = [
            (tick, track, data) for track, events in enumerate(self.tracks) for tick, data in events if data[0] == 0xFF
        ]
        return sorted(found, key=lambda event: event[0])

    def name(self, track: int) -> str:
        """The name of a track; empty where it has none."""
        names = (text(data) for _, number, data in self.metas if number == track and data[1] == 0x03)
        return decode(next(names, b"")).strip()

    def meta(self, kind: int) -> list[tuple[int, bytes]]:
        """Tick and content of all meta events of a kind, in order of time."""
        return [(tick, text(data)) for tick, _, data in self.metas if data[1] == kind]

    def multiplied(self, path: Path, steps_per_quarter: int) -> MidiFile:
        """The same in ticks of which whole numbers make a time step.

        Where a quarter note would get more ticks than a header can say, nothing is multiplied.

        Raises:
            UserError: a tick is longer than a step, or the file lasts longer than an editor can say.
        """
        ticks = self.ticks_per_quarter
        factor = steps_per_quarter // gcd(ticks, steps_per_quarter)
        if ticks * factor > _MOST_TICKS:
            factor = 1
            if ticks <= steps_per_quarter:
                raise UserError(f"{path}: {ticks} ticks a quarter note are too few for {steps_per_quarter} time steps")
        if self.end * factor > _LONGEST:
            raise UserError(f"{path}: too long to be edited ({self.end * factor:,} ticks of {ticks * factor})")
        tracks = [[Event(tick * factor, data) for tick, data in events] for events in self.tracks]
        return replace(self, ticks_per_quarter=ticks * factor, tracks=tracks, ends=[end * factor for end in self.ends])

    def notes(self, pedal: bool = True) -> tuple[list[MidiNote], set[Key]]:
        """Notes, on each key the one struck first ended first, and lone ends.

        A note that is never ended sounds to the end of its track; drums have no such notes.  With ``pedal`` a note
        sounds on as long as the sustaining pedal of its channel is down (64 and above).
        """
        notes: list[MidiNote] = []
        lone: set[Key] = set()
        for track, events in enumerate(self.tracks):
            waiting: dict[tuple[int, int], deque[MidiNote]] = defaultdict(deque)
            for place, (tick, data) in enumerate(events):
                status = data[0]
                if status >= 0xA0 or status < 0x80:
                    continue
                channel = status & 0xF
                if status >= 0x90 and data[2]:
                    waiting[channel, data[1]].append(MidiNote(track, channel, data[1], data[2], tick, 0, place, NEVER))
                elif began := waiting[channel, data[1]]:
                    note = began.popleft()
                    note.end, note.off = tick, place
                    notes.append(note)
                elif channel != DRUMS:  # a player sounds a drum without an end
                    lone.add((track, place))
            for (channel, _), began in waiting.items():
                for note in began:
                    note.end = self.ends[track]
                    if channel != DRUMS:
                        notes.append(note)
        down = self.pedals() if pedal else Pedals({})
        for note in notes:
            note.sounds = down.sounding(note.channel, note.end)
        return notes, lone

    def pedals(self, stop: int | None = None) -> Pedals:
        """When the sustaining pedal of each channel is down, up to the end of its track or the tick ``stop``."""
        stop = self.end if stop is None else min(stop, self.end)
        moves: dict[int, list[tuple[int, int, int, bool]]] = defaultdict(list)
        for track, events in enumerate(self.tracks):
            for place, (tick, data) in enumerate(events):
                if data[0] >> 4 == 0xB and data[1] in (PEDAL, _RESET) and tick < stop:
                    moves[data[0] & 0xF].append((tick, track, place, data[1] == PEDAL and data[2] >= 64))
        spans: dict[int, tuple[list[int], list[int]]] = {}
        for channel, found in moves.items():
            began, ended = spans.setdefault(channel, ([], []))
            for tick, track, _, down in sorted(found):
                if down and len(began) == len(ended):
                    began.append(tick)
                    last = self.ends[track]
                elif not down and len(began) > len(ended):
                    ended.append(tick)
            if len(began) > len(ended):
                ended.append(min(stop, last))
        return Pedals(spans)


class Pedals(NamedTuple):
    """Ticks at which the pedal of a channel goes down, and those at which it comes up again."""

    spans: dict[int, tuple[list[int], list[int]]]

    def sounding(self, channel: int, end: int) -> int:
        """When a note stops sounding whose key comes up at the tick ``end``."""
        if channel not in self.spans:
            return end
        began, ended = self.spans[channel]
        last = bisect_left(began, end) - 1
        return max(end, ended[last]) if last >= 0 else end


class Part(NamedTuple):
    """The notes of one channel of one track, which a user may choose: its name is that of the track."""

    track: int
    channel: int
    name: str
    notes: int


def parts_of(file: MidiFile, notes: Collection[MidiNote]) -> list[Part]:
    """The parts of a file in the order of its tracks, drums included."""
    counts: dict[tuple[int, int], int] = defaultdict(int)
    for note in sorted(notes, key=lambda note: (note.track, note.on)):
        counts[note.track, note.channel] += 1
    return [Part(track, channel, file.name(track), count) for (track, channel), count in counts.items()]


def decode(content: bytes) -> str:
    """A text of a MIDI file, which says nothing of its encoding: UTF-8, or else Shift-JIS, or else Latin-1."""
    for encoding in ("utf-8", "shift_jis"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1")


def text(meta: bytes) -> bytes:
    """The content of a meta event."""
    _, start = _number(meta, 2)
    return meta[start:]


def read_file(path: Path) -> MidiFile:
    """Read a MIDI file of type 0 or 1, also in a RIFF container (.rmi) or packed by gzip.

    Raises:
        UserError: no MIDI file, nothing to be read in it, or ticks that are not musical time.
    """
    content = _unpack(path)
    if not content:
        raise UserError(f"{path}: empty file")
    if content[:4] != b"MThd":
        raise UserError(f"{path}: not a MIDI file (it does not begin with MThd)")
    if len(content) < 14:
        raise UserError(f"{path}: truncated ({len(content)} bytes)")
    kind, count, division = struct.unpack(">HHH", content[8:14])
    if kind == 2 and count > 1:
        raise UserError(f"{path}: type 2, several sequences in one file; save each as type 0 or 1")
    if division == 0:
        raise UserError(f"{path}: its header gives 0 ticks per quarter note")
    if division & 0x8000:
        raise UserError(f"{path}: its ticks are parts of SMPTE frames, not musical time")
    tracks: list[list[Event]] = []
    ends: list[int] = []
    faults: list[str] = []
    place = 8 + int.from_bytes(content[4:8], "big")
    while place + 8 <= len(content):
        start, stop = place + 8, place + 8 + int.from_bytes(content[place + 4 : place + 8], "big")
        if content[place : place + 4] == b"MTrk":
            events, end, fault = _events(content, start, min(stop, len(content)))
            if fault is None and stop > len(content):
                fault = "is cut off"
            if fault is not None:
                faults.append(f"track {len(tracks)} {fault} at tick {end}, what follows in it is missing")
            tracks.append(events)
            ends.append(end)
        place = stop
    if not tracks:
        raise UserError(f"{path}: damaged or truncated (no track in it)")
    if len(tracks) != count:
        faults.append(f"the header says {count} tracks, there are {len(tracks)}")
    return MidiFile(division, tracks, ends, tuple(faults))


def _unpack(path: Path) -> bytes:
    """The bytes of a file, out of gzip and RIFF."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            content = gzip.GzipFile(fileobj=file).read(_MOST_BYTES + 1) if packed else file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason})") from error
    if len(content) > _MOST_BYTES:
        raise UserError(f"{path}: more than {_MOST_BYTES:,} bytes, too long for a piece of music")
    if content[:4] == b"RIFF" and content[8:12] == b"RMID":
        begin = content.find(b"MThd", 12)
        return content[begin:] if begin >= 0 else b"RIFF"
    return content


def midi_bytes(tracks: list[list[Event]], ticks_per_quarter: int) -> bytes:
    """A type 1 file of tracks, whose events are in order of time; each track says its own end."""
    content = [b"MThd", struct.pack(">IHHH", 6, 1, len(tracks), ticks_per_quarter)]
    for events in tracks:
        waits = (later - tick for tick, later in pairwise([0, *(event.tick for event in events)]))
        body = b"".join(_variable(wait) + event.data for wait, event in zip(waits, events, strict=True))
        content += [b"MTrk", len(body).to_bytes(4, "big"), body]
    return b"".join(content)


def text_event(kind: int, content: str) -> bytes:
    """A meta event that holds a text: ``kind`` 1 text, 3 track name, 6 marker."""
    encoded = content.encode()
    return bytes([0xFF, kind]) + _variable(len(encoded)) + encoded


def _events(content: bytes, place: int, stop: int) -> tuple[list[Event], int, str | None]:
    """The events of a track up to its end, the tick there, and what is wrong, if anything.

    An event without a status byte has that of the channel event before, also across other events.
    """
    events: list[Event] = []
    append = events.append
    tick = running = 0
    try:
        while place < stop:
            byte = content[place]
            place += 1
            if byte < 0x80:
                wait = byte
            else:
                wait, place = _number(content, place - 1)
            status = content[place]
            if status >= 0x80:
                place += 1
            else:
                status = running
            if 0x80 <= status < 0xF0:
                size = 1 if 0xC0 <= status < 0xE0 else 2
                running = status
            elif status in (0xF0, 0xF7, 0xFF):
                length, begin = _number(content, place + (status == 0xFF))
                size = begin + length - place
            elif status:
                size = _SYSTEM.get(status, 0)
            else:
                return events, tick, "has data without a status"
            if place + size > stop:
                return events, tick, "is cut off"
            if status < 0xF0 and (content[place] | content[place + size - 1]) > 0x7F:
                return events, tick, "has a status where data belong"
            data = bytes((status,)) + content[place : place + size]
            place += size
            tick += wait
            append(Event(tick, data))
            if status == 0xFF and data[1] == 0x2F:
                return events, tick, None
    except IndexError:
        return events, tick, "is cut off"
    return events, tick, None


def _number(content: bytes, place: int) -> tuple[int, int]:
    """A number of variable length, and the place after it."""
    value, last = 0, place + 4
    while True:
        if place > last:
            raise IndexError("a number of more than five bytes")
        value = value << 7 | content[place] & 0x7F
        place += 1
        if content[place - 1] < 0x80:
            return value, place


def _variable(value: int) -> bytes:
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))

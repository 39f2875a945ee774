"""From tracks of events to the bytes of a MIDI file, and the events themselves."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from fractalgen.music.midi_parser import Event


def midi_bytes(tracks: list[list[Event]], ticks_per_quarter: int) -> bytes:
    """A type 1 file of tracks, whose events are in order of time; each track says its own end."""
    content = [b"MThd", struct.pack(">IHHH", 6, 1, len(tracks), ticks_per_quarter)]
    for events in tracks:
        body, before = bytearray(), 0
        for tick, data in events:
            body += variable_length(tick - before) + data
            before = tick
        content += [b"MTrk", len(body).to_bytes(4, "big"), bytes(body)]
    return b"".join(content)


def note_events(notes: Iterable[Sequence[int]], channel: int) -> list[Event]:
    """The events of notes (start, stop, pitch, velocity), in order of time; what ends comes before what begins."""
    rows = []
    for start, stop, pitch, velocity in notes:
        rows += [(start, 1, bytes([0x90 | channel, pitch, velocity])), (stop, 0, bytes([0x80 | channel, pitch, 0]))]
    return [Event(tick, data) for tick, _, data in sorted(rows)]


def microseconds(tempo: float) -> int:
    """Microseconds of a quarter note at so many a minute, as near as MIDI can say."""
    return min(max(round(60e6 / tempo), 1), (1 << 24) - 1)


def tempo_event(tempo: float) -> bytes:
    """A meta event that holds a tempo in quarter notes a minute."""
    return b"\xff\x51\x03" + microseconds(tempo).to_bytes(3, "big")


def meter_event(beats: int, unit: int) -> bytes:
    """A meta event that holds a time signature; ``unit`` is a power of two."""
    return bytes([0xFF, 0x58, 4, beats, unit.bit_length() - 1, 24, 8])


def key_event(sharps: int, minor: bool) -> bytes:
    """A meta event that holds a key signature; flats count below 0."""
    return bytes([0xFF, 0x59, 2, sharps % 256, minor])


def text_event(kind: int, text: str) -> bytes:
    """A meta event that holds a text: ``kind`` 1 text, 3 track name, 6 marker."""
    content = text.encode()
    return bytes([0xFF, kind]) + variable_length(len(content)) + content


def variable_length(value: int) -> bytes:
    """A number of variable length, see :func:`.midi_parser.read_number`."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))

"""MIDI bytes written by hand, for files that no library would write."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from fractalgen.data.reading import Skipped

END = b"\x00\xff\x2f\x00"


def delta(ticks: int) -> bytes:
    """A variable-length number."""
    out = [ticks & 0x7F]
    while ticks := ticks >> 7:
        out.append(ticks & 0x7F | 0x80)
    return bytes(reversed(out))


def on(wait: int, pitch: int, velocity: int = 66, channel: int = 0) -> bytes:
    return delta(wait) + bytes([0x90 | channel, pitch, velocity])


def off(wait: int, pitch: int, channel: int = 0) -> bytes:
    return delta(wait) + bytes([0x80 | channel, pitch, 0])


def tempo(wait: int, microseconds: int) -> bytes:
    return delta(wait) + b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


def meter(wait: int, numerator: int, power: int) -> bytes:
    return delta(wait) + bytes([0xFF, 0x58, 4, numerator, power, 24, 8])


def meta(kind: int, content: bytes) -> bytes:
    """A meta event, without the wait before it."""
    return bytes([0xFF, kind]) + delta(len(content)) + content


def midi(*tracks: bytes, kind: int = 1, division: int = 480) -> bytes:
    """A file; each track gets its end-of-track event."""
    head = b"MThd" + struct.pack(">IHHH", 6, kind, len(tracks), division)
    return head + b"".join(b"MTrk" + struct.pack(">I", len(body + END)) + body + END for body in tracks)


def scale(notes: int = 8, ticks: int = 480, first: int = 60) -> bytes:
    """Track: one quarter note after the other."""
    return b"".join(on(0, first + i) + off(ticks, first + i) for i in range(notes))


def read_or_die(file: Path) -> Skipped:
    """Stands in for the reader in worker processes; one name takes the process along, as a bug in C would."""
    if file.name == "lethal.mid":
        os._exit(9)
    return Skipped(file.name, "fine")

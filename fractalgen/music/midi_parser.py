"""From the bytes of a MIDI file to tracks of events; damaged parts are skipped and reported."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError

DRUMS = 9  # the channel that General MIDI gives to percussion
END_OF_TRACK = b"\xff\x2f\x00"
NEVER = -1  # the place of an end that is not there
_MOST_TICKS = 0x7FFF  # a quarter note may have in a MIDI header
_LONGEST = 0x0FFFFFFF  # ticks between two events: four bytes of seven bits
_MOST_BYTES, _MOST_TRACKS = 1 << 21, 1024  # over 500,000 events: no piece has so many, and reading them takes seconds
_MOST_FAULTS = 3  # damaged tracks that are listed one by one
_STATUS = [bytes([status]) for status in range(256)]
_SYSTEM = {0xF1: 1, 0xF2: 2, 0xF3: 1}  # data bytes of messages out of place in a file; the other ones have none

Columns: TypeAlias = npt.NDArray[np.int64]


class Event(NamedTuple):
    """One event of a track: its tick, and its bytes with the status byte always written out."""

    tick: int
    data: bytes


@dataclass(frozen=True, eq=False)
class Track:
    """A column for each property of events: tick, status, where in ``content`` its data begin and stop."""

    content: bytes
    tick: Columns
    status: Columns
    begin: Columns
    stop: Columns

    @property
    def end(self) -> int:
        """The tick at which it ends."""
        return int(self.tick[-1]) if len(self.tick) else 0

    def events(self, kind: Columns | npt.NDArray[np.bool_]) -> Iterator[Event]:
        """The events at these places."""
        columns = (column[kind].tolist() for column in (self.tick, self.status, self.begin, self.stop))
        for tick, status, begin, stop in zip(*columns, strict=True):
            yield Event(tick, _STATUS[status] + self.content[begin:stop])


def decode(text: bytes) -> str:
    """A text of a MIDI file, which does not say its encoding: UTF-8, or else Shift-JIS, or else Latin-1."""
    for encoding in ("utf-8", "shift_jis"):
        try:
            return text.decode(encoding)
        except UnicodeDecodeError:
            continue
    return text.decode("latin-1")


def is_score(path: Path) -> bool:
    """Whether a file is a score in place of a MIDI file: it begins as XML or as a ZIP archive (.mxl)."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return False
    return head[:4] == b"PK\x03\x04" or head.lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n")[:1] == b"<"


def _unpacked(path: Path) -> bytes:
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
        size = int.from_bytes(content[begin - 4 : begin], "little")
        return content[begin : begin + size] if begin >= 0 else b"RIFF"
    return content


def _content(meta: bytes) -> bytes:
    """What a meta event holds."""
    return meta[read_number(meta, 2)[1] :]


def read_track(content: bytes) -> tuple[Track, str]:
    """The events of a track up to its end, and what is wrong, if anything.

    An event without a status byte has that of the channel event before, also across other events.
    """
    size = len(content)
    byte = np.zeros(size + 8, np.int64)
    byte[:size] = np.frombuffer(content, np.uint8)
    # Were there an event at each byte: where its status is, behind a wait of one to four bytes, and where the next
    # event begins if it has two bytes of data (negative: without a status of its own; 0: anything else).
    high = byte >= 0x80
    wide = high[:-3]
    behind = np.arange(1, size + 6) + wide
    for later in (1, 2):
        wide = wide & high[later : later - 3]
        behind += wide
    endless = (wide & high[3:])[:size]
    behind = behind[:size]
    status = byte[behind]
    two = (status >= 0x80) & (status < 0xF0) & (status >> 5 != 6)
    following = np.where(two, behind + 3, np.where(status < 0x80, -behind - 2, 0))
    following = np.where(endless, 0, following).tolist()
    starts: list[int] = []
    place = running = 0  # the status that goes on; any of two bytes of data is as good
    fault = ""
    try:
        while place < size:
            step = following[place]
            starts.append(place)
            if step > 0:
                place, running = step, 0x80
            elif step < 0 and running == 0x80:
                place = -step
            else:
                _, place = read_number(content, place)
                kind = content[place]
                if kind < 0x80 and not running:
                    fault = "has data without a status"
                    place = len(content) + 1
                elif kind < 0xF0:
                    running = kind if kind >= 0x80 else running
                    place += (kind >= 0x80) + (1 if running >> 5 == 6 else 2)
                elif kind in (0xF0, 0xF7, 0xFF):
                    count, data = read_number(content, place + 1 + (kind == 0xFF))
                    if content[place : place + 2] == END_OF_TRACK[:2]:
                        size = data + count
                    place = data + count
                else:
                    place += 1 + _SYSTEM.get(kind, 0)
    except IndexError:  # it ends in the middle of an event
        place = len(content) + 1
    if place > len(content):
        place, fault = starts.pop(), fault or "is cut off"
    start = np.array(starts, np.int64)
    begin = behind[start]
    own = byte[begin] >= 0x80
    going_on = np.maximum.accumulate(np.where(own & (byte[begin] < 0xF0), np.arange(len(start)), 0))
    status = byte[np.where(own, begin, begin[going_on])]
    wait = byte[start] & 0x7F
    for later in (1, 2, 3):
        wait = np.where(start + later < begin, wait << 7 | byte[start + later] & 0x7F, wait)
    begin, stop = begin + own, np.r_[start[1:], place]
    wrong = np.flatnonzero((status < 0xF0) & (high[begin] | high[stop - 1]))
    if len(wrong):
        fault = "has a status where data belong"
    good = slice(wrong[0] if len(wrong) else None)
    return Track(content, np.cumsum(wait)[good], status[good], begin[good], stop[good]), fault


def read_number(content: bytes, place: int) -> tuple[int, int]:
    """A number of variable length, up to four bytes, and the place after it.

    Raises:
        IndexError: it does not end.
    """
    value = 0
    for end in range(place, place + 4):
        value = value << 7 | content[end] & 0x7F
        if content[end] < 0x80:
            return value, end + 1
    raise IndexError


def _variable(value: int) -> bytes:
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))

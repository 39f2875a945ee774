"""From the bytes of a MIDI file to tracks of events; damaged parts are skipped and reported."""

from __future__ import annotations

import gzip
import struct
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


def unpacked(path: Path, most: int = _MOST_BYTES) -> bytes:
    """The bytes of a file, at most so many, out of gzip and RIFF.

    Raises:
        UserError: it cannot be read, or has more bytes.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            content = (gzip.GzipFile(fileobj=file) if packed else file).read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason})") from error
    if len(content) > most:
        raise UserError(f"{path}: more than {most:,} bytes, too long for a piece of music")
    if content[:4] == b"RIFF" and content[8:12] == b"RMID":
        begin = content.find(b"MThd", 12)
        size = int.from_bytes(content[begin - 4 : begin], "little")
        return content[begin : begin + size] if begin >= 0 else b"RIFF"
    return content


def parse_file(path: Path, content: bytes) -> tuple[int, list[Track], tuple[str, ...]]:
    """Ticks of a quarter note, the tracks, and what is wrong with a file (``path``, for messages) of this content.

    Raises:
        UserError: it is no MIDI file, has no tracks, or ticks that are not musical time.
    """
    if not content:
        raise UserError(f"{path}: empty file")
    if content[:4] != b"MThd":
        raise UserError(f"{path}: not a MIDI file (it does not begin with MThd)")
    if len(content) < 14:
        raise UserError(f"{path}: truncated (its header has {len(content)} of 14 bytes)")
    kind, count, division = struct.unpack(">HHH", content[8:14])
    if kind == 2 and count > 1:
        raise UserError(f"{path}: type 2, several sequences in one file; save each as type 0 or 1")
    if division == 0:
        raise UserError(f"{path}: its header gives 0 ticks per quarter note")
    if division & 0x8000:
        raise UserError(f"{path}: its ticks are parts of SMPTE frames, not musical time")
    tracks: list[Track] = []
    faults: list[str] = []
    place = content.find(b"MTrk", 14)
    while 0 <= place <= len(content) - 8:
        start, stop = place + 8, place + 8 + int.from_bytes(content[place + 4 : place + 8], "big")
        if content[place : place + 4] == b"MTrk":
            track, fault = read_track(content[start:stop])
            if fault or stop > len(content):
                fault = fault or "is cut off"
                faults.append(f"track {len(tracks)} {fault} at tick {track.end}, what follows in it is missing")
            tracks.append(track)
        place = stop
        if len(tracks) > _MOST_TRACKS:
            raise UserError(f"{path}: more than {_MOST_TRACKS:,} tracks, too many for a piece of music")
    if not tracks:
        raise UserError(f"{path}: damaged or truncated (no track in it)")
    if len(faults) > _MOST_FAULTS:
        faults = [*faults[:_MOST_FAULTS], f"{len(faults) - _MOST_FAULTS} more tracks are damaged"]
    if len(tracks) != count:
        faults.append(f"the header says {count} tracks, there are {len(tracks)}")
    return division, tracks, tuple(faults)


def meta_content(meta: bytes) -> bytes:
    """What a meta event holds."""
    return meta[read_number(meta, 2)[1] :]


def read_track(content: bytes) -> tuple[Track, str]:
    """The events of a track up to its end, and what is wrong, if anything.

    An event without a status byte has that of the channel event before, also across other events.
    """
    byte = np.zeros(len(content) + 8, np.int64)
    byte[: len(content)] = np.frombuffer(content, np.uint8)
    behind, following = _if_events_began(byte, len(content))
    starts, end, fault = _walk(content, following.tolist())
    start = np.array(starts, np.int64)
    begin = behind[start]
    own = byte[begin] >= 0x80
    going_on = np.maximum.accumulate(np.where(own & (byte[begin] < 0xF0), np.arange(len(start)), 0))
    status = byte[np.where(own, begin, begin[going_on])]
    wait = byte[start] & 0x7F
    for later in (1, 2, 3):
        wait = np.where(start + later < begin, wait << 7 | byte[start + later] & 0x7F, wait)
    begin, stop = begin + own, np.r_[start[1:], end]
    wrong = np.flatnonzero((status < 0xF0) & ((byte[begin] >= 0x80) | (byte[stop - 1] >= 0x80)))
    if len(wrong):
        fault = "has a status where data belong"
    good = slice(wrong[0] if len(wrong) else None)
    return Track(content, np.cumsum(wait)[good], status[good], begin[good], stop[good]), fault


def _if_events_began(byte: Columns, size: int) -> tuple[Columns, Columns]:
    """Of each of ``size`` bytes, as if an event began there: the place of its status, and how it goes on.

    The status is behind a wait of one to four bytes.  An event of two bytes of data goes on at the place that the
    second table names, the negative of it where the status is that of an event before.  Other events have 0 there.
    """
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
    return behind, np.where(endless, 0, following)


def _walk(content: bytes, following: list[int]) -> tuple[list[int], int, str]:
    """Where the events of a track begin, the place behind the last one, and what is wrong, if anything.

    ``following``: see :func:`_if_events_began`; the events that it does not know are read here.
    """
    starts: list[int] = []
    size = len(content)
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
        return starts[:-1], starts[-1], fault or "is cut off"
    return starts, place, fault


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

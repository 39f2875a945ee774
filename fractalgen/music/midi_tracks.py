"""Tracks of MIDI files, chosen by name, number or General MIDI program: ``--tracks`` and ``--voice track:``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fractalgen.errors import UserError, shown
from fractalgen.music.midi_events import MidiFile, Part, read_file
from fractalgen.music.midi_parser import DRUMS

_MOST_LISTED = 20  # tracks in a message


class PlayedTrack(NamedTuple):
    """A track with notes that can be chosen; each channel of a MIDI track counts as one.

    ``number``: from 0, drums are counted too.  ``program``: of General MIDI, from 0, when its first note is struck.
    """

    number: int
    part: Part
    name: str
    program: int
    notes: int

    def __str__(self) -> str:
        return f"{self.number} {shown(self.name, 40)!r} (program {self.program}, {self.notes} notes)"


def played_tracks(file: MidiFile) -> list[PlayedTrack]:
    """All tracks with notes, but no drums."""
    notes = file.notes()[0]
    notes = notes[np.lexsort((notes[:, 6], notes[:, 4], notes[:, 1], notes[:, 0]))]
    parts, firsts, counts = np.unique(notes[:, :2], axis=0, return_index=True, return_counts=True)
    changes: list[tuple[int, int, int, int, int]] = []  # tick, track, place, channel, program
    for number, track in enumerate(file.columns):
        places = (track.status >> 4 == 0xC).nonzero()[0]
        for place, (tick, data) in zip(places.tolist(), track.events(places), strict=True):
            changes.append((tick, number, place, data[0] & 0xF, data[1]))

    def program(row: int) -> int:
        """Of the changes before the first note those in its own track come first; without any it is a piano."""
        track, mine, _, _, start, _, on, _ = notes[row].tolist()
        before = [
            (number == track, tick, place, changed)
            for tick, number, place, channel, changed in changes
            if channel == mine and (tick, place if number == track else 0) <= (start, on)
        ]
        return max(before, default=(True, 0, 0, 0))[-1]

    return [
        PlayedTrack(number, (track, channel), file.name(track), program(row), count)
        for number, ((track, channel), row, count) in enumerate(
            zip(parts.tolist(), firsts.tolist(), counts.tolist(), strict=True)
        )
        if channel != DRUMS
    ]


def programs(word: str, flag: str = "--tracks") -> range | None:
    """The programs that ``program:A`` or ``program:A-B`` means; None of any other word.

    Raises:
        UserError: they are not from 0 to 127.
    """
    plain = word.strip().casefold()
    if not plain.startswith("program:"):
        return None
    match = re.fullmatch(r"program:(\d{1,3})(?:-(\d{1,3}))?", plain)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not first <= last <= 127:
        raise UserError(f"{flag} {shown(word)}: not program:A or program:A-B with numbers from 0 to 127")
    return range(first, last + 1)


def chosen(tracks: Sequence[PlayedTrack], words: Iterable[str], flag: str = "--tracks") -> list[PlayedTrack]:
    """The tracks that any of the words means: a number, ``program:A-B``, or a name.

    Capitals do not matter in names, and ``*`` stands for any text.  A name may mean several tracks.

    Raises:
        UserError: programs that are not from 0 to 127.
    """
    found: set[PlayedTrack] = set()
    for word in words:
        plain = " ".join(word.split()).casefold()
        name = re.compile(re.escape(plain).replace(r"\*", ".*"))
        if (wanted := programs(word, flag)) is not None:
            found |= {track for track in tracks if track.program in wanted}
        elif numbered := {track for track in tracks if str(track.number) == plain}:
            found |= numbered
        elif plain:
            found |= {track for track in tracks if name.fullmatch(track.name.casefold())}
    return sorted(found)


def listed(tracks: Sequence[PlayedTrack]) -> str:
    """Tracks as they stand in a message."""
    texts = [str(track) for track in tracks[:_MOST_LISTED]]
    return ", ".join(texts + [f"and {len(tracks) - len(texts)} more"] * (len(tracks) > len(texts)))


def tracks_meant(path: Path, words: Sequence[str]) -> tuple[Part, ...] | None:
    """The tracks of a file that any of the words means, see :func:`chosen`; without words None, which is all.

    Raises:
        UserError: there is none; with the list of those that can be chosen.
    """
    if not words:
        return None
    played = played_tracks(read_file(path))
    found = chosen(played, words, "--tracks")
    if played and not found:
        raise UserError(f"{path}: --tracks {' '.join(words)} means none of its tracks {listed(played)}")
    return tuple(track.part for track in found)


def find_tracks(path: str | os.PathLike[str], wanted: str) -> tuple[tuple[Part, ...], str]:
    """The tracks of a file that ``wanted`` means, see :func:`chosen`, and how to call them.

    Raises:
        UserError: there is no such track; with the list of those that can be chosen.
    """
    tracks = played_tracks(read_file(Path(path)))
    found = chosen(tracks, [wanted], "--voice track:")
    if not found:
        raise UserError(
            f"--voice track:{wanted.strip()}: {path} has the tracks {listed(tracks) or '(none with notes)'}"
        )
    return tuple(track.part for track in found), listed(found)

"""One source file becomes a song: what the workers do."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fractalgen.config import PrepareConfig
from fractalgen.data.analysis import Analysis
from fractalgen.data.song import Song
from fractalgen.errors import UserError, reason
from fractalgen.music.chord_estimate import annotated_chords
from fractalgen.music.chords import Chords, parse_harte
from fractalgen.music.midi import BeatMap, read_midi
from fractalgen.music.midi_tracks import tracks_meant
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import Notes

BEAT_MAP, CHORDS = "beat_midi.txt", "chord_midi.txt"
MOST_BYTES = 8 << 20  # of one file out of an archive or from far: longer ones are no music


class SourceFile(NamedTuple):
    """A file that may become a song: a path, an address of fsspec, or its content, taken out of an archive.

    ``name``: its path in the source.  ``style``: of the folder it is in.  ``stamp`` changes when the file does.
    ``end``: bytes of the source up to the end of this file.
    """

    name: str
    style: str
    stamp: str
    path: str = ""
    content: bytes | None = None
    end: int = 0


@dataclass(frozen=True)
class Skipped:
    """A file that did not become a song, and why; ``passing``: another run may be able to read it."""

    file: str
    reason: str
    passing: bool = False


@dataclass(frozen=True)
class Read:
    """A file that became a song, and what a user should know of it: see :class:`fractalgen.music.midi.MidiEvents`."""

    song: Song
    analysis: Analysis
    pedalled: int = 0
    merged: int = 0
    moved: int = 0
    fitting_grid: int | None = None
    remarks: tuple[str, ...] = ()


def restruck(notes: Notes) -> Notes:
    """Notes of one step each, one for every step of every note, sorted by start, then pitch.

    Their roll is a sequence of sets of pitches without holds: what RNN-RBM (Boulanger-Lewandowski et al. 2012) and
    the models compared with it score on the chorales.
    """
    single = np.repeat(notes, notes["duration"])
    first = np.cumsum(notes["duration"]) - notes["duration"]  # where each note's steps begin in ``single``
    single["start"] += np.arange(len(single)) - np.repeat(first, notes["duration"])
    single["duration"] = 1
    return single[np.lexsort((single["pitch"], single["start"]))]


def song_of(
    name: str,
    roll: PianoRoll,
    config: PrepareConfig,
    chords: Chords = (),
    voices: npt.NDArray[np.uint8] | None = None,
) -> Song:
    """The song of a roll, struck anew at every step if the settings say so."""
    song = Song.from_roll(name, roll, chords, voices)
    return replace(song, notes=restruck(song.notes), voices=None) if config.restrike else song


def read_chords(file: Path, beats: BeatMap, origin: int, steps_per_quarter: int) -> Chords:
    """Changes of chord (step, code) of a song by an annotation such as POP909's ``chord_midi.txt``.

    Lines hold seconds of begin and end, and a chord in Harte's notation; each beat has the chord that holds most of it.

    Raises:
        UserError: the file cannot be read.
    """
    spans = []
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.strip():
                start, stop, chord = line.split()
                spans.append((float(start), float(stop), parse_harte(chord)))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: unreadable chords ({reason(error)})") from error
    codes = annotated_chords(spans, beats.seconds).tolist()
    steps = [(beat - origin) * steps_per_quarter for beat in range(len(codes))]
    return tuple(
        (max(step, 0), code)
        for beat, (step, code) in enumerate(zip(steps, codes, strict=True))
        if step >= 0 and (step == 0 or beat == 0 or code != codes[beat - 1])
    )


def fingerprint(song: Song) -> bytes:
    """What songs of the same notes have in common."""
    return hashlib.sha256(song.notes.tobytes()).digest()


def shown_name(name: str) -> str:
    """A file name that can be printed on one line, also when its bytes are not valid Unicode."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f]", lambda sign: f"\\x{ord(sign[0]):02x}", text)


def file_count(count: int) -> str:
    """So many files, in words."""
    return f"{count:,} file{'s' * (count != 1)}"


def beat_map_of(file: Path) -> Path | None:
    """The beat map beside a song in POP909's layout."""
    beats = file.with_name(BEAT_MAP)
    return beats if file.stem == file.parent.name and beats.exists() else None


@contextmanager
def _at_hand(file: SourceFile) -> Iterator[Path]:
    """The file on a disk of this machine."""
    if file.content is None and "://" not in file.path:
        yield Path(file.path)
        return
    content = file.content
    if content is None:
        import fsspec

        with fsspec.open(file.path, "rb") as stream:
            content = stream.read(MOST_BYTES)
    with TemporaryDirectory() as folder:
        path = Path(folder, "song")
        path.write_bytes(content)
        yield path


def read_source(file: SourceFile, config: PrepareConfig) -> Read | Skipped:
    """The song of one file with all that a corpus knows of it; whatever is wrong with the file becomes the reason."""
    name, path = file.name, Path(file.path)
    try:
        with _at_hand(file) as path:
            beat_map = beat_map_of(path)
            name = shown_name(path.stem) if beat_map else file.name
            beats = BeatMap.read(beat_map) if beat_map else None
            tracks = tracks_meant(path, config.tracks)
            events = read_midi(path, config.steps_per_quarter, beats, tracks, config.pedal == "follow")
        if not len(events.onset):
            return Skipped(name, "no notes")
        distance = events.grid_distance
        merged, moved = events.misplaced()
        fitting = events.fitting_grid() if merged or moved else None
        if distance > config.max_grid_distance and not config.allow_off_grid:
            fits = f"it fits --steps_per_quarter {fitting}; else " if fitting else ""
            return Skipped(
                name,
                f"off its own grid: onsets lie {distance:.2f} step away on average, more than "
                f"{config.max_grid_distance:g} ({fits}keep it with --allow_off_grid)",
            )
        roll = PianoRoll.from_events(events, config.velocity_bins)
        voices = events.voices_of(roll.notes()) if events.voices.any() else None
        chords: Chords = ()
        if beats is not None and (listed := path.with_name(CHORDS)).exists():
            chords = read_chords(listed, beats, events.origin, config.steps_per_quarter)
        song = replace(song_of(name, roll, config, chords, voices), style=file.style)
        analysis = Analysis.of(song, config.steps_per_quarter, config.velocity_bins)
        return Read(song, analysis, events.pedalled, merged, moved, fitting, events.remarks)
    except UserError as error:
        passing = isinstance(error.__cause__, OSError | ImportError)
        return Skipped(name, str(error).removeprefix(f"{path}: "), passing)
    except Exception as error:  # noqa: BLE001 - whatever a strange file provokes, the others are read; it is listed
        return Skipped(name, f"{type(error).__name__}: {' '.join(str(error).split())}")


def kills(file: SourceFile) -> Skipped:
    """What is told of a file that takes its worker along."""
    return Skipped(file.name, "ends the process that reads it: a crash, or more time than there is")

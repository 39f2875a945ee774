"""The source files of a corpus, found and read by several processes."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fractalgen.config import PrepareConfig
from fractalgen.data.song import Song
from fractalgen.errors import UserError, reason
from fractalgen.music.chord_estimate import annotated_chords
from fractalgen.music.chords import Chords, parse_harte
from fractalgen.music.midi import BeatMap, nearest_steps, read_midi
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import Notes
from fractalgen.music.voices import merged_voices

MIDI_ENDINGS = (".mid", ".midi", ".kar", ".rmi", ".smf")  # each also packed: .mid.gz
OTHER_ENDINGS = (".abc", ".gp", ".gp3", ".gp4", ".gp5", ".gpx", ".mscx", ".mscz", ".mus", ".musicxml", ".mxl", ".sib")
BEAT_MAP, CHORDS = "beat_midi.txt", "chord_midi.txt"
SHOWN = 20  # skipped files listed on the terminal
_CHUNK = 16  # files a worker reads at a time
_SPAWN = get_context("spawn")  # forking a process that has threads (PyTorch's) may hang it
_FEW = 64  # fewer files than this are read in this process: starting workers would take longer


@dataclass(frozen=True)
class Skipped:
    """A file that did not become a song, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Read:
    """A file that became a song, and what a user should know of it: see :class:`fractalgen.music.midi.MidiEvents`."""

    song: Song
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


def read_folder(source: Path, config: PrepareConfig) -> tuple[list[Read], list[Skipped]]:
    """The songs of all MIDI files in a folder (or of one file), and the files that were left out.

    Raises:
        UserError: there is no MIDI file.
    """
    root = source if source.is_dir() else source.parent
    found: list[Read] = []
    files, skipped = _find(source) if source.is_dir() else ([source], [])
    if not files:
        raise UserError(f"--data {source}: no MIDI file in it ({', '.join(MIDI_ENDINGS)}, also packed: .gz)")
    ids: set[str] = set()
    contents: dict[bytes, str] = {}
    read = partial(_read, root=root, config=config)
    for result in tqdm(read_all(files, read, config.num_workers), "reading", len(files), unit="file", disable=None):
        if isinstance(result, Skipped):
            skipped.append(result)
            continue
        name = result.song.name
        twin = contents.setdefault(fingerprint(result.song), name)
        if name in ids:
            skipped.append(Skipped(name, "another file has the same id"))
        elif twin != name and not config.keep_duplicates:
            skipped.append(Skipped(name, f"the same notes as {twin}"))
        else:
            ids.add(name)
            found.append(result)
    return found, skipped


def _find(folder: Path) -> tuple[list[Path], list[Skipped]]:
    """MIDI files in a folder and its sub-folders, unreadable folders, and music files in other formats, sorted.

    Links are followed, each folder once.  POP909's ``versions`` folders are left out (drafts of the same songs), and so
    are the ``._`` files of macOS.
    """
    found: list[Path] = []
    closed: list[Skipped] = []
    seen: set[Path] = set()

    def unreadable(error: OSError) -> None:
        closed.append(Skipped(_shown(error.filename), f"folder cannot be read ({error.strerror})"))

    for where, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        here = Path(where).resolve()
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders.sort()
        if BEAT_MAP in names:
            folders.clear()
        for name in names:
            if name[:2] == "._":
                continue
            if name.lower().removesuffix(".gz").endswith(MIDI_ENDINGS):
                found.append(Path(where, name))
            elif name.lower().endswith(OTHER_ENDINGS):
                shown = _shown(Path(where, name).relative_to(folder).as_posix())
                closed.append(Skipped(shown, "not MIDI; export it as MIDI from a notation program"))
    return sorted(found), closed


def _shown(name: str) -> str:
    """A file name that can be printed, also when its bytes are not valid Unicode."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _beat_map(file: Path) -> Path | None:
    beats = file.with_name(BEAT_MAP)
    return beats if file.stem == file.parent.name and beats.exists() else None


def _style(file: Path, root: Path, beat_map: Path | None) -> str:
    """The sub-folder of ``root`` that a file is in, empty in ``root`` itself; a song's own folder is no style."""
    folder = file.parent.parent if beat_map else file.parent
    return _shown(folder.relative_to(root).parts[0]) if folder.is_relative_to(root) and folder != root else ""


def _read(file: Path, root: Path, config: PrepareConfig) -> Read | Skipped:
    """One file; runs in a worker process."""
    beat_map = _beat_map(file)
    name = _shown(file.stem if beat_map else file.relative_to(root).as_posix())
    try:
        beats = BeatMap.read(beat_map) if beat_map else None
        events = read_midi(file, config.steps_per_quarter, beats, pedal=config.pedal == "follow")
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
        voices = None
        chords: Chords = ()
        if events.voices is not None and events.voices.any():
            voices = merged_voices(roll.notes(), events.pitch, nearest_steps(events.onset), events.voices)
        if beats is not None and (listed := file.with_name(CHORDS)).exists():
            chords = read_chords(listed, beats, events.origin, config.steps_per_quarter)
        song = song_of(name, roll, config, chords, voices)
        song = replace(song, style=_style(file, root, beat_map))
        return Read(song, events.pedalled, merged, moved, fitting, events.remarks)
    except UserError as error:
        return Skipped(name, str(error).removeprefix(f"{file}: "))
    except Exception as error:  # noqa: BLE001 - whatever a strange file provokes, the others are read; it is listed
        return Skipped(name, f"{type(error).__name__}: {' '.join(str(error).split())}")


def read_all(
    files: list[Path], read: Callable[[Path], Read | Skipped], num_workers: int = 0
) -> Iterator[Read | Skipped]:
    """Results in the order of ``files``; a file that kills its worker is skipped like any other bad file."""
    workers = num_workers or os.cpu_count() or 1
    if workers == 1 or len(files) < _FEW:
        yield from map(read, files)
        return
    chunks = [files[first : first + _CHUNK] for first in range(0, len(files), _CHUNK)]
    while chunks:
        with ProcessPoolExecutor(min(workers, len(chunks)), _SPAWN, _end_with_parent) as pool:
            futures = [pool.submit(_read_chunk, chunk, read) for chunk in chunks]
            for number, future in enumerate(futures):
                try:
                    yield from future.result()
                except BrokenProcessPool:
                    yield from (_read_alone(file, read) for file in chunks[number])
                    chunks = chunks[number + 1 :]
                    break
            else:
                chunks = []


def _read_chunk(files: list[Path], read: Callable[[Path], Read | Skipped]) -> list[Read | Skipped]:
    return [read(file) for file in files]


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _read_alone(file: Path, read: Callable[[Path], Read | Skipped]) -> Read | Skipped:
    try:
        with ProcessPoolExecutor(1, _SPAWN, _end_with_parent) as pool:
            return pool.submit(read, file).result()
    except BrokenProcessPool:
        return Skipped(_shown(file.name), "kills the MIDI reader")


class Listed(NamedTuple):
    """What a manifest says of a file: its style, and whether its velocities mean nothing."""

    style: str = ""
    flat: bool = False


def read_manifest(path: Path) -> dict[str, Listed]:
    """What a manifest says of each file.

    Raises:
        UserError: it cannot be read, or a column is missing.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
        rows = list(csv.DictReader(text.splitlines(), delimiter=delimiter, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"--manifest {path}: cannot be read ({error})") from error
    if not rows or not {"file", "style"} <= rows[0].keys():
        found = ", ".join(map(str, rows[0])) if rows else "no rows"
        raise UserError(f"--manifest {path}: the columns `file` and `style` are needed (found: {found})")
    return {
        row["file"]: Listed((row["style"] or "").strip(), (row.get("velocities") or "").strip().lower() == "flat")
        for row in rows
    }

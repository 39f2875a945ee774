"""``fractalgen prepare``: a folder of MIDI files becomes one packed corpus.

POP909's layout is recognised (``NNN/NNN.mid`` beside ``beat_midi.txt``): its notes are placed by the beat map, because
they do not sit on the ticks of the file, and its split is the one in ``assets/splits/pop909.json``.  A JSON file of
chorales in the layout of the JSB data sets ({split: [[[pitch, ...] per sixteenth]]}) is read too.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import numpy as np
from tqdm import tqdm

from fractalgen.config import PrepareConfig, check_bounds
from fractalgen.data.corpus import ASSETS, SPLITS, Split, write_corpus
from fractalgen.data.song import Song
from fractalgen.errors import UserError
from fractalgen.files import replacing
from fractalgen.music.midi import BeatMap, read_midi
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import Notes, merge_notes

MIDI_ENDINGS = (".mid", ".midi", ".kar", ".rmi", ".smf")  # each also packed: .mid.gz
OTHER_ENDINGS = (".abc", ".gp", ".gp3", ".gp4", ".gp5", ".gpx", ".mscx", ".mscz", ".mus", ".musicxml", ".mxl", ".sib")
BEAT_MAP = "beat_midi.txt"
_SHOWN = 20  # skipped files listed on the terminal
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


@dataclass(frozen=True)
class Summary:
    """What :func:`prepare` did; ``damaged``: files of which something is missing, read all the same."""

    songs: int
    notes: int
    splits: dict[Split, int]
    skipped: list[Skipped]
    damaged: list[Skipped]


def prepare(config: PrepareConfig) -> Summary:
    """Read everything that ``config`` names, write the corpus, print what was left out and why.

    A file that cannot be used never stops the run.  Raises ``UserError`` when nothing usable is left or a path is
    wrong; then nothing is written.
    """
    check_bounds(config)
    source, out = Path(config.data), Path(config.out)
    if not config.data:
        raise UserError("--data is missing: name a folder of MIDI files")
    if not source.exists():
        raise UserError(f"--data {source}: no such file or folder")
    _check_target(out, "--out")
    if config.report:
        _check_target(Path(config.report), "--report")
    listed = _read_splits(Path(config.splits)) if config.splits else None
    styles = _read_manifest(Path(config.manifest)) if config.manifest else None

    splits: dict[str, Split]
    assumed = "ticks are musical time, unless a beat map says where the beats are"
    if source.suffix.lower() == ".json":
        songs, skipped, splits = read_chorales(source, config)
        found: list[Read] = []
        repeated = "struck anew" if config.restrike else "held (restrikes are unknown)"
        assumed = f"a repeated pitch is {repeated}; 4/4 from the first step, tempo 120, one velocity"
    else:
        found, skipped = _read_folder(source, config)
        songs = [read.song for read in found]
        # POP909's ids are bare numbers, other files' ids end in .mid: the list cannot hit a wrong song
        known = _read_splits(ASSETS / "splits" / "pop909.json")
        splits = split_by_hash(song.name for song in songs if song.name not in known) | known
        assumed += "; whatever sounds is struck anew at every step" if config.restrike else ""
    if listed is not None:
        splits = listed
        skipped += [Skipped(song.name, f"not listed in {config.splits}") for song in songs if song.name not in splits]
        songs = [song for song in songs if song.name in splits]
    if styles is not None:
        songs = [replace(song, style=styles.get(song.name, "")) for song in songs]
        if songs and not any(song.style for song in songs):
            raise UserError(f"--manifest {config.manifest}: names none of the songs (the first one is {songs[0].name})")
    skipped.sort(key=lambda entry: entry.file)
    if config.report:
        told = [
            *skipped,
            *(Skipped(read.song.name, f"read, but {remark}") for read in found for remark in read.remarks),
        ]
        lines = "".join(f"{entry.file}\t{entry.reason}\n" for entry in told)
        with replacing(config.report) as temporary:
            temporary.write_bytes(lines.encode())
    if not songs:
        first = f"; first: {skipped[0].file}: {skipped[0].reason}" if skipped else ""
        raise UserError(f"--data {source}: no usable music ({len(skipped)} files skipped{first})")
    write_corpus(
        songs,
        splits,
        out,
        steps_per_quarter=config.steps_per_quarter,
        velocity_bins=config.velocity_bins,
        provenance=source.name,
        licence=config.licence,
        assumed=assumed,
        allow_off_grid=config.allow_off_grid,
        max_grid_distance=config.max_grid_distance,
        skipped=[[entry.file, entry.reason] for entry in skipped],
    )
    counts = {name: sum(splits[song.name] == name for song in songs) for name in SPLITS}
    damaged = [Skipped(read.song.name, remark) for read in found for remark in read.remarks]
    summary = Summary(len(songs), sum(len(song.notes) for song in songs), counts, skipped, damaged)
    _print(summary, out, config)
    _print_losses(found, config)
    return summary


def split_by_hash(names: Iterable[str]) -> dict[str, Split]:
    """80 % train, 10 % valid, 10 % test by a hash of the song id: songs that come later change nothing for the others.

    Only of a few songs, where a split would stay empty, the nearest by hash moves over (train first, test last).
    """
    share = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64 for name in names}
    splits: dict[str, Split] = {
        name: "test" if value < 0.1 else "valid" if value < 0.2 else "train" for name, value in share.items()
    }
    needed = SPLITS[: len(splits)]
    for wanted in needed:
        counts = Counter(splits.values())
        if not counts[wanted]:
            spare = [name for name, split in splits.items() if counts[split] > 1 or split not in needed]
            splits[min(spare, key=lambda name: share[name])] = wanted
    return splits


def read_chorales(path: Path, config: PrepareConfig) -> tuple[list[Song], list[Skipped], dict[str, Split]]:
    """Songs and their splits of a JSON file {split: [piece: [step: [pitch of each voice]]]}.

    A pitch repeated in a voice is held, unless ``config.restrike``: the file does not say where it is struck again.
    Nor does it say more about time and loudness: ``config.steps_per_quarter`` (4: sixteenths), bars of 4/4 from the
    first step, the middle velocity and a tempo of 120 are assumed.
    """
    songs: list[Song] = []
    skipped: list[Skipped] = []
    splits: dict[str, Split] = {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for split in SPLITS:
            for number, piece in enumerate(content[split]):
                name = f"{split}/{number:03d}"
                notes = _chorale_notes(piece, config.velocity_bins // 2)
                if not len(notes):
                    skipped.append(Skipped(name, "no notes"))
                    continue
                grid = {"steps_per_quarter": config.steps_per_quarter, "velocity_bins": config.velocity_bins}
                songs.append(_song(name, PianoRoll.from_notes(notes, **grid), config))
                splits[name] = split
    except OSError as error:
        raise UserError(f"--data {path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"--data {path}: not a file of chorales ({type(error).__name__}: {error})") from error
    return songs, skipped, splits


def _chorale_notes(piece: list[list[int]], velocity: int) -> Notes:
    voices = np.full((max(map(len, piece), default=0), len(piece)), -1, np.int64)
    for step, chord in enumerate(piece):
        voices[: len(chord), step] = chord
    if voices.size and not -1 <= voices.min() <= voices.max() <= 127:
        raise ValueError(f"a pitch of {voices.max()}")
    runs = []  # pitch, start, stop
    for voice in voices:
        starts = np.flatnonzero(np.diff(voice, prepend=-1))
        runs += [run for run in zip(voice[starts], starts, np.r_[starts[1:], len(voice)], strict=False) if run[0] >= 0]
    pitch, start, stop = np.array(runs, np.int64).reshape(-1, 3).T
    return merge_notes(pitch, start, stop, np.full(len(runs), velocity))


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


def _song(name: str, roll: PianoRoll, config: PrepareConfig) -> Song:
    song = Song.from_roll(name, roll)
    return replace(song, notes=restruck(song.notes)) if config.restrike else song


def _read_folder(source: Path, config: PrepareConfig) -> tuple[list[Read], list[Skipped]]:
    root = source if source.is_dir() else source.parent
    found: list[Read] = []
    files, skipped = _find(source) if source.is_dir() else ([source], [])
    if not files:
        raise UserError(f"--data {source}: no MIDI file in it ({', '.join(MIDI_ENDINGS)}, also packed: .gz)")
    ids: set[str] = set()
    contents: dict[bytes, str] = {}
    read = partial(_read, root=root, config=config)
    for result in tqdm(_read_all(files, read, config.num_workers), "reading", len(files), unit="file", disable=None):
        if isinstance(result, Skipped):
            skipped.append(result)
            continue
        name = result.song.name
        twin = contents.setdefault(hashlib.sha256(result.song.notes.tobytes()).digest(), name)
        if name in ids:
            skipped.append(Skipped(name, "another file has the same id"))
        elif twin != name and not config.keep_duplicates:
            skipped.append(Skipped(name, f"the same notes as {twin}"))
        else:
            ids.add(name)
            found.append(result)
    return found, skipped


def _find(folder: Path) -> tuple[list[Path], list[Skipped]]:
    """MIDI files in depth, sorted; and folders that cannot be read, and files of music in another format.

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
        song = replace(
            _song(name, PianoRoll.from_events(events, config.velocity_bins), config), style=_style(file, root, beat_map)
        )
        return Read(song, events.pedalled, merged, moved, fitting, events.remarks)
    except UserError as error:
        return Skipped(name, str(error).removeprefix(f"{file}: "))
    except Exception as error:  # noqa: BLE001 - whatever a strange file provokes, the others are read; it is listed
        return Skipped(name, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _read_all(
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


def _check_target(path: Path, flag: str) -> None:
    """Refuse a file that cannot be written before an hour of reading, not after."""
    if path.is_dir():
        raise UserError(f"{flag} {path}: is a folder; name a file in it")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{flag} {path}: cannot be written ({folder} is not a writable folder)")


def _read_splits(path: Path) -> dict[str, Split]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        unknown = sorted(set(content) - set(SPLITS))
        if unknown:
            raise UserError(f"--splits {path}: {unknown[0]!r} is none of {', '.join(SPLITS)}")
        pairs = [(str(name), split) for split in SPLITS for name in content.get(split, [])]
    except UserError:
        raise
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"--splits {path}: not a JSON file of id lists ({error})") from error
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise UserError(f"--splits {path}: {twice[0]!r} is listed twice")
    return dict(pairs)


def _read_manifest(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
        rows = list(csv.DictReader(text.splitlines(), delimiter=delimiter, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"--manifest {path}: cannot be read ({error})") from error
    if not rows or not {"file", "style"} <= rows[0].keys():
        found = ", ".join(map(str, rows[0])) if rows else "no rows"
        raise UserError(f"--manifest {path}: the columns `file` and `style` are needed (found: {found})")
    return {row["file"]: (row["style"] or "").strip() for row in rows}


def _print(summary: Summary, out: Path, config: PrepareConfig) -> None:
    for entry in summary.skipped[:_SHOWN]:
        print(f"skipped {entry.file}: {entry.reason}")
    if len(summary.skipped) > _SHOWN:
        where = config.report or "--report FILE lists them all"
        print(f"skipped {len(summary.skipped) - _SHOWN} more ({where})")
    splits = ", ".join(f"{name} {count}" for name, count in summary.splits.items())
    for entry in summary.damaged[:_SHOWN]:
        print(f"damaged {entry.file}: {entry.reason}")
    if len(summary.damaged) > _SHOWN:
        print(f"damaged {len(summary.damaged) - _SHOWN} more ({config.report or '--report FILE lists them all'})")
    print(f"{out}: {summary.songs} songs ({splits}), {summary.notes:,} notes; {len(summary.skipped)} files skipped")


def _print_losses(found: list[Read], config: PrepareConfig) -> None:
    """What the pedal and the grid did to the notes, a line each."""
    notes = sum(len(read.song.notes) for read in found)
    if pedalled := sum(read.pedalled for read in found):
        print(f"the pedal lengthens {pedalled:,} of {notes:,} notes (--pedal ignore: they end when the key comes up)")
    lossy = [read for read in found if read.merged or read.moved]
    if lossy:
        merged, moved = (sum(getattr(read, name) for read in lossy) for name in ("merged", "moved"))
        line = (
            f"{len(lossy)} files: {merged:,} notes merged with others, {moved:,} moved by more than a quarter of a step"
        )
        grids = Counter(read.fitting_grid for read in lossy if read.fitting_grid)
        if grids:
            grid, count = grids.most_common(1)[0]
            line += f"; --steps_per_quarter {grid} would keep those of {count}"
        print(line)

"""``fractalgen prepare``: a folder of MIDI files becomes one packed corpus.

POP909's layout is recognised (``NNN/NNN.mid`` beside ``beat_midi.txt``): its notes are placed by the beat map, because
they do not sit on the ticks of the file, and its split is the one in ``assets/splits/pop909.json``.  A JSON file of
chorales in the layout of the JSB data sets ({split: [[[pitch, ...] per sixteenth]]}) is read too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from fractalgen.config import PrepareConfig, check_bounds
from fractalgen.data.corpus import SPLITS, Corpus, Split, write_corpus
from fractalgen.data.song import Song
from fractalgen.data.sources import SHOWN, Listed, Read, Skipped, fingerprint, read_folder, read_manifest, song_of
from fractalgen.errors import UserError
from fractalgen.files import ASSETS, replacing
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import Notes, merge_notes

MERGING = ("merge", "out", "style", "keep_duplicates", "num_workers")
"""Flags that mean something together with ``--merge``."""


@dataclass(frozen=True)
class Summary:
    """Result of :func:`prepare`; ``damaged``: incomplete files that were read nevertheless."""

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
    _check_target(out, "--out")
    if config.merge:
        return merge(config)
    if not config.data:
        raise UserError("--data is missing: name a folder of MIDI files")
    if not source.exists():
        raise UserError(f"--data {source}: no such file or folder")
    if config.report:
        _check_target(Path(config.report), "--report")
    listed = _read_splits(Path(config.splits)) if config.splits else None
    manifest = read_manifest(Path(config.manifest)) if config.manifest else None

    splits: dict[str, Split]
    assumed = "ticks are musical time, unless a beat map says where the beats are"
    if source.suffix.lower() == ".json":
        songs, skipped, splits = read_chorales(source, config)
        found: list[Read] = []
        repeated = "struck anew" if config.restrike else "held (restrikes are unknown)"
        assumed = f"a repeated pitch is {repeated}; 4/4 from the first step, tempo 120, one velocity"
    else:
        found, skipped = read_folder(source, config)
        songs = [read.song for read in found]
        # POP909's ids are bare numbers, other files' ids end in .mid: the list cannot hit a wrong song
        known = _read_splits(ASSETS / "splits" / "pop909.json")
        splits = split_by_hash(song.name for song in songs if song.name not in known) | known
        assumed += "; whatever sounds is struck anew at every step" if config.restrike else ""
    if listed is not None:
        splits = listed
        skipped += [Skipped(song.name, f"not listed in {config.splits}") for song in songs if song.name not in splits]
        songs = [song for song in songs if song.name in splits]
    if manifest is not None:
        songs = [replace(song, **manifest.get(song.name, Listed())._asdict()) for song in songs]
        if songs and not any(song.name in manifest for song in songs):
            raise UserError(f"--manifest {config.manifest}: names none of the songs (the first one is {songs[0].name})")
    songs = [replace(song, style=song.style or config.style) for song in songs]
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
    damaged = [Skipped(read.song.name, remark) for read in found for remark in read.remarks]
    summary = _summary(songs, splits, skipped, damaged)
    _print(summary, out, config)
    _print_losses(found, config)
    return summary


def merge(config: PrepareConfig) -> Summary:
    """Put packed corpora together: each song keeps its split, style and chords; copies of other songs are left out.

    Raises:
        UserError: they differ in their grid or velocities, have songs of the same name, or a flag means nothing here;
            nothing has been written.
    """
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name not in MERGING and value != item.default:
            raise UserError(f"--{item.name} {value}: not together with --merge {config.merge[0]}")
    corpora = [Corpus.open(path) for path in config.merge]
    first = corpora[0]
    songs: list[Song] = []
    splits: dict[str, Split] = {}
    skipped: list[Skipped] = []
    contents: dict[bytes, str] = {}
    for corpus in corpora:
        for name in ("steps_per_quarter", "velocity_bins"):
            here, there = getattr(first, name), getattr(corpus, name)
            if here != there:
                raise UserError(f"--merge: {name} is {here} in {first.path} and {there} in {corpus.path}")
        if twins := splits.keys() & set(corpus.song_ids):
            raise UserError(f"--merge: {min(twins)} is in {corpus.path} and in a corpus before it")
        splits |= dict(zip(corpus.song_ids, corpus.splits, strict=True))
        for song in map(corpus.song, range(len(corpus))):
            twin = contents.setdefault(fingerprint(song), song.name)
            if twin != song.name and not config.keep_duplicates:
                skipped.append(Skipped(song.name, f"the same notes as {twin}"))
            else:
                songs.append(replace(song, style=song.style or config.style))
    write_corpus(
        songs,
        splits,
        Path(config.out),
        steps_per_quarter=first.steps_per_quarter,
        velocity_bins=first.velocity_bins,
        provenance=" and ".join(str(corpus.metadata.get("provenance")) for corpus in corpora),
        licence=" and ".join(dict.fromkeys(str(corpus.metadata.get("licence")) for corpus in corpora)),
        merged=[path.name for path in map(Path, config.merge)],
        skipped=[[entry.file, entry.reason] for entry in skipped],
    )
    summary = _summary(songs, splits, skipped, [])
    _print(summary, Path(config.out), config)
    return summary


def _summary(songs: list[Song], splits: dict[str, Split], skipped: list[Skipped], damaged: list[Skipped]) -> Summary:
    counts = {name: sum(splits[song.name] == name for song in songs) for name in SPLITS}
    return Summary(len(songs), sum(len(song.notes) for song in songs), counts, skipped, damaged)


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
                songs.append(song_of(name, PianoRoll.from_notes(notes, **grid), config))
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


def _check_target(path: Path, flag: str) -> None:
    """Refuse a file that cannot be written, before the time-consuming reading starts."""
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


def _print(summary: Summary, out: Path, config: PrepareConfig) -> None:
    for entry in summary.skipped[:SHOWN]:
        print(f"skipped {entry.file}: {entry.reason}")
    if len(summary.skipped) > SHOWN:
        where = config.report or "--report FILE lists them all"
        print(f"skipped {len(summary.skipped) - SHOWN} more ({where})")
    splits = ", ".join(f"{name} {count}" for name, count in summary.splits.items())
    for entry in summary.damaged[:SHOWN]:
        print(f"damaged {entry.file}: {entry.reason}")
    if len(summary.damaged) > SHOWN:
        print(f"damaged {len(summary.damaged) - SHOWN} more ({config.report or '--report FILE lists them all'})")
    print(f"{out}: {summary.songs} songs ({splits}), {summary.notes:,} notes; {len(summary.skipped)} files skipped")


def _print_losses(found: list[Read], config: PrepareConfig) -> None:
    """Effects of the pedal and the grid on the notes, one line each."""
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

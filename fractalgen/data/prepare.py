"""``fractalgen prepare``: MIDI files become a packed corpus, one file or a folder of shards.

POP909's layout is recognised (``NNN/NNN.mid`` beside ``beat_midi.txt``): its notes are placed by the beat map, because
they do not sit on the ticks of the file, and its split is the one in ``assets/splits/pop909.json``.  A JSON file of
chorales is read too, see :mod:`fractalgen.data.chorales`; what else is read, :mod:`fractalgen.data.sources`.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fractalgen.config import PrepareConfig, check_bounds
from fractalgen.data.chorales import read_chorales
from fractalgen.data.corpus import SPLITS, Split
from fractalgen.data.ledger import Ledger, database_error
from fractalgen.data.lists import Listed, read_manifest, read_splits
from fractalgen.data.merging import merge
from fractalgen.data.packing import ENDING, Pack, ShardWriter
from fractalgen.data.reading import Read, Skipped, SourceFile, file_count, kills, read_source
from fractalgen.data.shards import shard_path
from fractalgen.data.sources import MIDI_ENDINGS, Source
from fractalgen.data.summary import SHOWN, Losses, Summary, print_summary
from fractalgen.errors import UserError
from fractalgen.files import ASSETS, replacing
from fractalgen.music.midi_tracks import programs
from fractalgen.parallel import ordered, within

MAY_DIFFER = {"data", "out", "report", "licence", "splits", "manifest", "style", "merge"}
MAY_DIFFER |= {"num_workers", "scheduler", "shard_megabytes"}
"""Flags that may differ between the runs that fill one folder."""
PATIENCE = 1000  # songs after which a manifest that names none of them is given up
LONGEST = 300  # seconds that reading a file may take
LEDGER = "ledger.sqlite"


def prepare(config: PrepareConfig) -> Summary:
    """Read everything that ``config`` names, write the corpus, print what was left out and why.

    A file that cannot be used never stops the run.  Into a folder, finished shards stay where a run is interrupted;
    the same command goes on behind them, and reads files that were added.  Raises ``UserError`` when nothing usable is
    left or a path is wrong; then no corpus is written.
    """
    check_bounds(config)
    for word in config.tracks:
        programs(word)
    if config.tracks and _of_chorales(config):
        raise UserError(f"--tracks {' '.join(config.tracks)}: the chorales in --data {config.data} have no tracks")
    out = Path(config.out)
    folder = out.suffix.lower() != ENDING
    _check_target(config.out, "--out", folder)
    if config.merge:
        return merge(config)
    if not config.data:
        raise UserError("--data is missing: name a folder of MIDI files")
    if config.scheduler and config.num_workers:
        raise UserError(f"--num_workers {config.num_workers}: not together with --scheduler {config.scheduler}")
    source = Source(config.data)
    if config.report:
        _check_target(config.report, "--report")
    try:
        ledger = _ledger_of(out, config) if folder else Ledger()
        try:
            summary, losses = _prepare(config, source, ledger, folder)
        finally:
            ledger.close()
            if folder and not ledger.finished:
                for left in (out / LEDGER, shard_path(out, 0)):
                    left.unlink(missing_ok=True)
                if not any(out.iterdir()):
                    out.rmdir()
    except sqlite3.Error as error:
        raise database_error(out / LEDGER, error) from error
    print_summary(summary, config)
    losses.print()
    return summary


def _prepare(config: PrepareConfig, source: Source, ledger: Ledger, folder: bool) -> tuple[Summary, Losses]:
    """Read all songs, and write them to a file or a folder."""
    listed = read_splits(Path(config.splits)) if config.splits else None
    manifest = read_manifest(Path(config.manifest)) if config.manifest else None
    reads, usual, assumed = _songs(config, source, ledger, listed)
    about: dict[str, Any] = {
        "steps_per_quarter": config.steps_per_quarter,
        "velocity_bins": config.velocity_bins,
        "provenance": Path(config.data).name,
        "licence": config.licence,
        "assumed": assumed,
        "allow_off_grid": config.allow_off_grid,
        "max_grid_distance": config.max_grid_distance,
    }
    pack = ShardWriter(Path(config.out), ledger, config.shard_megabytes, about) if folder else Pack()
    losses = Losses()
    for read in _chosen(reads, ledger, config, listed, manifest):
        losses.add(read)
        pack.add(read.song, read.analysis, (usual if listed is None else listed).get(read.song.name))
    if config.report:
        _write_report(Path(config.report), ledger)
    if not (losses.songs or ledger.finished):
        raise _nothing(config, ledger)
    if isinstance(pack, ShardWriter):
        counts, limit = pack.close(), SHOWN
    else:
        about["skipped"], limit = [[entry.file, entry.reason] for entry in ledger.told("skipped")], -1
        counts = pack.write(Path(config.out), pack.splits(), **about)
    summary = Summary(
        counts["songs"],
        counts["notes"],
        {name: counts[name] for name in SPLITS},
        ledger.told("skipped", limit),
        ledger.told("damaged", limit),
        ledger.count("skipped"),
        ledger.count("damaged"),
    )
    return summary, losses


def _of_chorales(config: PrepareConfig) -> bool:
    return config.data.lower().endswith(".json")


def _songs(
    config: PrepareConfig, source: Source, ledger: Ledger, listed: dict[str, Split] | None
) -> tuple[Iterable[Read], dict[str, Split], str]:
    """The songs of what ``--data`` names, the splits that are usual for them, and what is assumed, in words."""
    number = ledger.source(source.address, Path(config.data).name, config.licence)
    if _of_chorales(config):
        reads, skipped, splits = read_chorales(Path(config.data), config)
        for entry in skipped:
            ledger.tell("skipped", entry.file, entry.reason)
        repeated = "struck anew" if config.restrike else "held (restrikes are unknown)"
        assumed = f"a repeated pitch is {repeated}; 4/4 from the first step, tempo 120, one velocity"
        return reads, splits, assumed
    assumed = "ticks are musical time, unless a beat map says where the beats are"
    assumed += "; whatever sounds is struck anew at every step" if config.restrike else ""
    assumed += f"; only the tracks {' '.join(config.tracks)}" if config.tracks else ""
    # POP909's ids are bare numbers, other files' ids end in .mid: the list cannot hit a wrong song
    return _read(source, number, config, ledger, listed), read_splits(ASSETS / "splits" / "pop909.json"), assumed


def _chosen(
    reads: Iterable[Read],
    ledger: Ledger,
    config: PrepareConfig,
    listed: dict[str, Split] | None,
    manifest: dict[str, Listed] | None,
) -> Iterator[Read]:
    """The songs that join the corpus, new ones of ``listed`` splits, with what the manifest says of each.

    Raises:
        UserError: the manifest names none of the songs.
    """
    named, first = False, ""  # by the manifest
    for number, read in enumerate(reads, 1):
        song, analysis = read.song, read.analysis
        if listed is not None and song.name not in listed:
            why = f"not listed in {config.splits}"
        else:
            why = ledger.refused(song, config.keep_duplicates or _of_chorales(config))
        if why:
            ledger.tell("skipped", song.name, why)
            continue
        for remark in read.remarks:
            ledger.tell("damaged", song.name, remark)
        if manifest is not None:
            named, first = named or song.name in manifest, first or song.name
            if not named and number == PATIENCE:
                break
            song = replace(song, **manifest.get(song.name, Listed())._asdict())
        if song.flat:
            analysis = replace(analysis, measured=analysis.measured.flattened())
        yield replace(read, song=replace(song, style=song.style or config.style), analysis=analysis)
    if manifest is not None and first and not named:
        raise UserError(f"--manifest {config.manifest}: names none of the songs (the first one is {first})")


def _ledger_of(folder: Path, config: PrepareConfig) -> Ledger:
    """The ledger of a folder, new or of an earlier run with the same settings."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / LEDGER).exists():
        raise UserError(
            f"--out {folder}: has other files in it; name a new folder, or a file by a name that ends in {ENDING}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(folder / LEDGER)
    settings = {item.name: getattr(config, item.name) for item in fields(config) if item.name not in MAY_DIFFER}
    try:
        ledger.agree(settings)
    except UserError:
        ledger.close()
        raise
    for left in (*folder.glob(".*.safetensors"), *folder.glob(".tmp??????")):  # of a run that was killed
        left.unlink()  # while it wrote a shard; the second kind is that of the library
    return ledger


def _read(
    source: Source, number: int, config: PrepareConfig, ledger: Ledger, listed: dict[str, Split] | None
) -> Iterator[Read]:
    """The songs of all files of a source that were not read before, in the order of the files.

    Files that could not be read now, or whose songs are not ``listed``, are read again by the next run.
    """
    at_work: deque[SourceFile] = deque()
    known = done = 0
    with tqdm(desc="reading", total=source.size or None, unit="B", unit_scale=True, disable=None) as bar:

        def new_files() -> Iterator[SourceFile]:
            nonlocal known
            for file in source:
                if isinstance(file, Skipped):
                    ledger.tell("skipped", file.file, file.reason)
                elif ledger.knows(number, file):
                    known += 1
                else:
                    at_work.append(file)
                    yield file

        read = partial(within, LONGEST, partial(read_source, config=config))
        results = ordered(read, new_files(), kills, num_workers=config.num_workers, scheduler=config.scheduler)
        for done, result in enumerate(results, 1):
            file = at_work.popleft()
            bar.set_postfix_str(f"{known + done:,} files", refresh=False)
            bar.update(file.end - bar.n)
            if isinstance(result, Skipped):
                ledger.tell("skipped", result.file, result.reason)
                again = result.passing
            else:
                again = listed is not None and result.song.name not in listed
            if not again:
                ledger.add_file(number, file)
            if isinstance(result, Read):
                yield result
        bar.update(source.size - bar.n)
    if not known + done:
        raise _nothing(config, ledger)
    given = [flag for flag in ("splits", "manifest", "style") if getattr(config, flag)]
    if known and given:
        flags, say = " and --".join(given), "says" if len(given) == 1 else "say"
        print(f"{file_count(known)} read by an earlier run: what --{flags} {say} of them is not looked at")


def _nothing(config: PrepareConfig, ledger: Ledger) -> UserError:
    for first in ledger.told("skipped", 1):
        skipped = file_count(ledger.count("skipped"))
        return UserError(
            f"--data {config.data}: no usable music ({skipped} skipped; first: {first.file}: {first.reason})"
        )
    return UserError(f"--data {config.data}: no MIDI file in it ({', '.join(MIDI_ENDINGS)}, also packed: .gz)")


def _write_report(path: Path, ledger: Ledger) -> None:
    with replacing(path) as temporary, temporary.open("wb") as report:
        for entry in ledger.told("skipped"):
            report.write(f"{entry.file}\t{entry.reason}\n".encode())
        for entry in ledger.told("damaged"):
            report.write(f"{entry.file}\tread, but {entry.reason}\n".encode())


def _check_target(target: str, flag: str, as_folder: bool = False) -> None:
    """Refuse what cannot be written, before the time-consuming reading starts."""
    path = Path(target)
    if "://" in target:
        raise UserError(f"{flag} {target}: must be a path, not an address; copy it there afterwards")
    if path.is_dir() and not as_folder:
        raise UserError(f"{flag} {path}: is a folder; name a file in it")
    if path.is_file() and as_folder:
        raise UserError(
            f"{flag} {path}: is a file; the name of a corpus in one file ends in {ENDING}, any other is a folder's"
        )
    here = path.absolute()
    folder = here if here.is_dir() else next(parent for parent in here.parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{flag} {path}: cannot be written ({folder} is not a writable folder)")

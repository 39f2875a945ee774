"""How corpora grow: what 1,000 to 1,000,000 songs take to make, to open and to draw crops of.

    python -m benchmarks.scale midi FOLDER --songs 1000        a folder of synthetic MIDI files
    python -m benchmarks.scale prepare FOLDER --out CORPUS     `fractalgen prepare`, with its time and peak of memory
    python -m benchmarks.scale pack CORPUS --songs 100000      a folder of shards, without MIDI files
    python -m benchmarks.scale open CORPUS                     opening, and crops a second

Songs are made of random numbers.  They have as many notes, bars, chords and tempi as those of POP909: on average 1,640
notes in 76 bars.  ``pack`` varies 256 of them, so that many are made in minutes.  With ``--copies 10`` each shard is
there ten times (hard links), to see what a corpus of ten times as many songs takes to open.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks import measure, parser, peak_megabytes, process_megabytes
from fractalgen.data.analysis import Analysis
from fractalgen.data.ledger import Ledger
from fractalgen.data.packing import ShardWriter
from fractalgen.data.prepare import LEDGER
from fractalgen.data.shards import shard_path
from fractalgen.data.song import Song
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import merge_notes

CHORDS = np.array([[0, 4, 7], [9, 12, 16], [5, 9, 12], [7, 11, 14]])  # I vi IV V
BAR = 16  # steps
BASES = 256  # songs that ``pack`` varies
PER_FOLDER = 1000  # MIDI files


def song(number: int) -> PianoRoll:
    """A synthetic song; the same number gives the same song."""
    rng = np.random.default_rng(number)
    bars = int(rng.integers(52, 101))
    count = int(bars * rng.normal(22.5, 3))
    start = np.sort(rng.integers(0, bars * BAR // 2, count) * 2 + (rng.random(count) < 0.2))
    chord = CHORDS[(start // BAR + rng.integers(4)) % 4]
    tones = chord[np.arange(count), rng.integers(3, size=count)]
    pitch = int(rng.integers(36, 48)) + tones + 12 * rng.integers(0, 4, count)
    notes = merge_notes(pitch, start, start + rng.geometric(0.25, count), rng.integers(8, 26, count))
    tempo = float(rng.integers(60, 160))
    return PianoRoll.from_notes(notes, tempos=((0, tempo), (bars * 8, tempo + 4)))


def write_midi(folder: Path, songs: int) -> None:
    """Write the songs as MIDI files into sub-folders."""
    for number in tqdm(range(songs), "writing", unit="song"):
        path = folder / f"{number // PER_FOLDER:04}" / f"{number:07}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        song(number).to_midi(path)


def prepare(folder: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Run ``fractalgen prepare`` and its workers."""
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "fractalgen", "prepare", "--data", str(folder), *flags]
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(time.perf_counter() - begin, 1),
        "seconds_of_cores": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_megabytes": round(after.ru_maxrss / 2**10),  # of the largest process
    }


def pack(out: Path, songs: int, megabytes: float, copies: int = 1) -> dict[str, Any]:
    """Write a corpus of variations: transposed, with other velocities."""
    bases = [Song.from_roll("", song(number)) for number in range(min(BASES, songs))]
    analyses = [Analysis.of(base, 4, 32) for base in bases]
    out.mkdir(parents=True)
    ledger = Ledger(out / LEDGER)
    ledger.source("synthetic", "synthetic", "none")
    before = peak_megabytes()
    begin = time.perf_counter()
    writer = ShardWriter(out, ledger, megabytes, {"steps_per_quarter": 4, "velocity_bins": 32})
    for number in tqdm(range(songs), "packing", unit="song"):
        base, rng = bases[number % BASES], np.random.default_rng(number)
        notes = base.notes.copy()
        notes["pitch"] += rng.integers(6, dtype=np.uint8)
        notes["velocity"] = rng.integers(32, size=len(notes))
        name = f"aria-midi-v1/data/{number // PER_FOLDER:04}/{number:07}_0.mid"
        writer.add(replace(base, name=name, notes=notes), analyses[number % BASES], None)
    writer.flush()
    shards = ledger.shards()
    for number, about in enumerate(shards * (copies - 1), len(shards)):
        os.link(shard_path(out, number % len(shards)), shard_path(out, number))
        ledger.add_shard(about)
    writer.close()
    ledger.close()
    result = {"seconds": round(time.perf_counter() - begin, 1), "seconds_of_core": round(time.process_time(), 1)}
    return result | {"peak_megabytes": round(peak_megabytes()), "megabytes_before": round(before)}


def resident_megabytes() -> tuple[float, float]:
    """Memory of this process, and the part of it that is not the mapped files, which the system may take back."""
    whole = process_megabytes("VmRSS")
    return whole, whole - process_megabytes("RssFile")


def opened(path: Path, crops: int, plans: bool) -> dict[str, Any]:
    """Open a corpus, and draw random training crops twice: from the disk or the system's cache, and once more."""
    import torch

    from fractalgen.data.corpus import Corpus
    from fractalgen.data.crops import CropDataset

    whole, own = resident_megabytes()
    begin, cores = time.perf_counter(), time.process_time()
    corpus = Corpus.open(path)
    data = CropDataset(corpus, "train", 256, transpose=(-6, 6), bar_columns=True, plans=plans)
    seconds, seconds_of_core = time.perf_counter() - begin, time.process_time() - cores
    result: dict[str, Any] = {
        "songs": len(corpus),
        "open_seconds": round(seconds, 3),
        "open_seconds_of_core": round(seconds_of_core, 3),
        "open_megabytes": round(resident_megabytes()[0] - whole, 1),
        "own_megabytes": round(resident_megabytes()[1] - own, 1),
    }
    for name in ("first", "again"):
        torch.manual_seed(0)
        begin, cores = time.perf_counter(), time.process_time()
        for _ in range(crops):
            data[0]
        result[f"crops_a_second_{name}"] = round(crops / (time.perf_counter() - begin), 1)
        result[f"crops_a_second_of_core_{name}"] = round(crops / (time.process_time() - cores), 1)
    result["megabytes_after"] = round(resident_megabytes()[1] - own, 1)
    return result


def run(args: argparse.Namespace) -> dict[str, Any]:
    """One of the four commands; figures are printed as JSON."""
    result: dict[str, Any] = {}
    if args.command == "midi":
        write_midi(args.path, args.songs)
    elif args.command == "prepare":
        result = prepare(args.path, ["--out", args.out, *args.flags])
    elif args.command == "pack":
        result = pack(args.path, args.songs, args.shard_megabytes, args.copies)
    else:
        result = opened(args.path, args.crops, args.plans)
    print(json.dumps(result))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    top = parser("benchmarks.scale", "how corpora grow")
    top.add_argument("command", choices=("midi", "prepare", "pack", "open"))
    top.add_argument("path", type=Path, help="folder of MIDI files, or a corpus")
    top.add_argument("--songs", type=int, default=1000)
    top.add_argument("--out", default="", help="corpus that prepare writes")
    top.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="flags of fractalgen prepare, at the end")
    top.add_argument("--shard_megabytes", type=float, default=256)
    top.add_argument("--copies", type=int, default=1, help="times that pack lists each shard")
    top.add_argument("--crops", type=int, default=2000)
    top.add_argument("--plans", action="store_true", help="crops have plans, as the shipped model needs them")
    return measure(top, run, arguments)


if __name__ == "__main__":
    sys.exit(main())

"""Builds fractalgen/assets/chorales.safetensors: Bach's four-part chorales, from the corpus that ships with music21.

Bach's music is in the public domain; the encodings are those distributed with music21 (Margaret Greentree's).
Only the notes are taken: pitch, start, duration.  Usage:

    pip install music21
    python scripts/make_chorales.py [--out FILE]
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fractalgen.data.corpus import SPLITS, write_corpus
from fractalgen.data.packing import split_by_hash
from fractalgen.data.song import Song
from fractalgen.files import ASSETS
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import Meters, grid_steps, merge_notes, velocity_bin

STEPS = 4  # per quarter note
BINS = 32
TEMPO = 80.0  # the scores give none
VELOCITY = 64  # nor dynamics
SHARED = 0.2  # songs that have this share of their bars in common stay in one split
VOICES = ("Soprano", "Alto", "Tenor", "Bass")


def convert(path: str) -> Song | str:
    """One chorale, or the reason why it is left out.  Step 0 is the downbeat at or before the first note."""
    from music21 import converter

    name = Path(path).stem
    warnings.simplefilter("ignore")
    score: Any = converter.parse(path)
    parts = list(score.parts)
    if len(parts) != len(VOICES):  # some have instruments too
        parts = [part for part in parts if part.partName in VOICES]
    if len(parts) != len(VOICES):
        return f"{name}: {len(score.parts)} parts, not the four voices"
    measures = list(parts[0].getElementsByClass("Measure"))
    if not measures:
        return f"{name}: no bars"
    # a first bar shorter than its meter is an upbeat: it is moved to the end of a full bar
    meter = measures[0].timeSignature
    if meter is None:
        return f"{name}: no time signature"
    upbeat = float(meter.barDuration.quarterLength) - float(measures[0].duration.quarterLength)
    shift = upbeat if upbeat > 0 else 0.0

    columns: list[tuple[int, float, float]] = []
    for part in parts:
        for note in part.flatten().stripTies().notes:
            if note.duration.isGrace:
                continue
            start = float(note.offset) + shift
            for pitch in note.pitches:
                columns.append((int(pitch.midi), start, start + float(note.quarterLength)))
    pitches, starts, stops = np.array(columns).T
    onset = starts * STEPS
    if float(np.abs(onset - np.round(onset)).mean()) > 0.05:
        return f"{name}: not on the grid of sixteenths"
    notes = merge_notes(
        pitches,
        np.floor(onset + 0.5),
        np.floor(stops * STEPS + 0.5),
        np.full(len(pitches), velocity_bin(VELOCITY, BINS)),
    )
    meters: Meters = ((0, meter.numerator, meter.denominator),)
    for measure in measures[1:]:
        if measure.timeSignature is not None:
            step = round((float(measure.offset) + shift) * STEPS)
            meters += ((step, measure.timeSignature.numerator, measure.timeSignature.denominator),)
    grid = {"steps_per_quarter": STEPS, "velocity_bins": BINS}
    return Song.from_roll(name, PianoRoll.from_notes(notes, tempos=((0, TEMPO),), time_signatures=meters, **grid))


def signature(song: Song) -> bytes:
    """The same for the same music in another key: chorales that come back transposed must not be split apart."""
    notes = song.notes.copy()
    notes["pitch"] -= notes["pitch"].min()
    return notes[np.lexsort((notes["pitch"], notes["start"]))].tobytes()


def bars(song: Song) -> set[bytes]:
    """Bars of four notes or more: steps since the first note, pitch above the lowest, duration of each note."""
    notes = song.notes
    lines = grid_steps(song.meters, song.num_steps + 1, STEPS)
    found = set()
    for first, last in pairwise(np.searchsorted(notes["start"], lines)):
        part = notes[first:last]
        if len(part) >= 4:
            start, pitch = part["start"] - part["start"][0], part["pitch"] - part["pitch"].min()
            found.add(np.stack([start, pitch, part["duration"]]).astype(np.int16).tobytes())
    return found


def families(songs: Sequence[Song]) -> dict[str, str]:
    """Name of the first song of each song's family: Bach used a chorale again with small changes, and keys.

    Songs that share a fifth of the bars of the shorter one, in whichever key, are of one family.
    """
    first = {song.name: song.name for song in songs}
    contents = {song.name: bars(song) for song in songs}
    for one, other in combinations(contents, 2):
        if len(contents[one] & contents[other]) >= SHARED * min(len(contents[one]), len(contents[other])):
            old, new = sorted((first[one], first[other]), reverse=True)
            first = {name: new if head == old else head for name, head in first.items()}
    return first


def main() -> int:
    """Convert, drop duplicates, split by family, write."""
    from music21 import corpus

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ASSETS / "chorales.safetensors")
    out: Path = parser.parse_args().out
    paths = sorted(str(path) for path in corpus.getComposer("bach") if Path(path).name.startswith("bwv"))
    songs: dict[bytes, Song] = {}
    with ProcessPoolExecutor() as pool:
        for result in pool.map(convert, paths, chunksize=8):
            if isinstance(result, str):
                print(f"skipped {result}")
                continue
            if any(song.name == result.name for song in songs.values()):
                print(f"skipped {result.name}: a second encoding")
                continue
            twin = songs.setdefault(signature(result), result)
            if twin is not result:
                print(f"skipped {result.name}: the same notes as {twin.name}")
    chorales = sorted(songs.values(), key=lambda song: song.name)
    family = families(chorales)
    by_family = split_by_hash(set(family.values()))
    splits = {name: by_family[head] for name, head in family.items()}
    write_corpus(
        chorales,
        splits,
        out,
        steps_per_quarter=STEPS,
        velocity_bins=BINS,
        title="Four-part chorales by Johann Sebastian Bach",
        provenance=f"music21 {version('music21')}, encoded by Margaret Greentree; see scripts/make_chorales.py",
        licence="public domain",
        assumed=f"tempo {TEMPO:g} and velocity {VELOCITY}: the scores give neither",
    )
    counts = ", ".join(f"{name} {sum(splits[song.name] == name for song in chorales)}" for name in SPLITS)
    print(f"{out}: {len(chorales)} chorales ({counts}), {out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

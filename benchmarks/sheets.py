"""Lead sheets for :mod:`benchmarks.lead_sheets`: found in a folder or made of a corpus, and their chords."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fractalgen.data.corpus import Corpus
from fractalgen.data.crops import evenly
from fractalgen.errors import UserError
from fractalgen.music.chord_estimate import estimate_chords
from fractalgen.music.chords import QUALITIES, Chord, Chords, spelled
from fractalgen.music.lead_sheet import chord_markers
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import Notes, merge_notes, tokens_from_notes, without_repeats
from fractalgen.music.voices import MELODY, melody_beside_chords

SHEET, TRUTH = "lead_sheet", "truth"
BARS = 8  # of a segment
BASS, CHORD = 36, 48  # the lowest pitches of block chords, and of their basses
EXAMPLES, EXAMPLE_SHEET, EXAMPLE_TRUTH = "listening_examples", "leadsheet.mid", "valid.mid"
NOT_SYSTEMS = (EXAMPLE_SHEET, "leadsheet_melody_only.mid", "comparisons.mid")


class Sheet(NamedTuple):
    """A lead sheet, the truth, and what systems composed."""

    group: str
    path: Path
    truth: Path
    systems: dict[str, Path]


def sheets_in(folder: Path, songs: int = 0) -> list[Sheet]:
    """All segments of a folder, or those of so many songs, evenly spread.

    Raises:
        UserError: there is none, or one without its truth.
    """
    found = []
    for song in evenly(sorted({path.parent.parent for path in folder.glob(f"*/{SHEET}/*.mid")}), songs):
        names = sorted(path.name for path in song.iterdir() if path.is_dir() and path.name != SHEET)
        for path in sorted((song / SHEET).glob("*.mid")):
            systems = {name: song / name / path.name for name in names if (song / name / path.name).is_file()}
            if TRUTH not in systems:
                raise UserError(f"--data {folder}: {path} has no {song / TRUTH / path.name}")
            found.append(Sheet(song.name, path, systems[TRUTH], {TRUTH: systems.pop(TRUTH), **systems}))
    if not found:
        raise UserError(f"--data {folder}: no */{SHEET}/*.mid in it")
    return found


def examples_in(folder: Path) -> list[Sheet]:
    """The examples of a listening test, if there are any: a folder each, with a file for each system."""
    found = []
    for path in sorted((folder / EXAMPLES).glob(f"*/{EXAMPLE_SHEET}")):
        truth = path.with_name(EXAMPLE_TRUTH)
        others = [file for file in sorted(path.parent.glob("*.mid")) if file.name not in (*NOT_SYSTEMS, EXAMPLE_TRUTH)]
        found.append(Sheet(path.parent.name, path, truth, {TRUTH: truth, **{file.stem: file for file in others}}))
    return found


def write_sheets(corpus: Corpus, songs: Sequence[int], folder: Path) -> None:
    """Lead sheets and truths of whole segments of eight bars of 4/4, as they are in a folder of others."""
    for song in tqdm(songs, desc="lead sheets", unit="song"):
        downbeats, notes, voices = corpus.downbeats(song), corpus.notes(song), corpus.voices(song)
        for number in range(0, len(downbeats) - BARS, BARS):
            start, stop = int(downbeats[number]), int(downbeats[number + BARS])
            if (np.diff(downbeats[number : number + BARS + 1]) != 4 * corpus.steps_per_quarter).any():
                continue
            held = [(max(step - start, 0), code) for step, code in corpus.chords(song) if step < stop]
            changes = tuple(sorted(dict(held).items()))
            melody = tokens_from_notes(notes[voices == MELODY], start, stop)
            texts = [(step, spelled(code)) for step, code in changes if spelled(code)]
            name = f"{corpus.song_ids[song]}/{{}}/seg_{number}_{number + BARS}.mid"
            for kind, tokens in ((SHEET, with_blocks(melody, changes)), (TRUTH, corpus.tokens(song, start, stop))):
                path = folder / name.format(kind)
                path.parent.mkdir(parents=True, exist_ok=True)
                PianoRoll(tokens, corpus.steps_per_quarter, corpus.velocity_bins).to_midi(path, markers=texts)


def with_blocks(melody: npt.NDArray[np.uint8], changes: Chords) -> npt.NDArray[np.uint8]:
    """A melody (128, T) and its chords: each is held, its bass and all of its notes."""
    width = melody.shape[1]
    rows = [(n["pitch"], n["start"], n["start"] + n["duration"], n["velocity"]) for n in PianoRoll(melody).notes()]
    for (start, code), stop in zip(changes, [*(step for step, _ in changes[1:]), width], strict=True):
        if (chord := Chord.of(code)) is not None:
            notes = [CHORD + (chord.root + step) % 12 for step in list(QUALITIES.values())[chord.quality]]
            rows += [(pitch, start, stop, 20) for pitch in (BASS + (chord.root + chord.bass) % 12, *notes)]
    return tokens_from_notes(merge_notes(*np.array(rows, np.int64).reshape(-1, 4).T), 0, width)


def blocks_of(notes: Notes, width: int) -> npt.NDArray[np.uint8]:
    """The block chords (128, width) of a lead sheet."""
    return tokens_from_notes(notes[~melody_beside_chords(notes)], 0, width)


def given_chords(sheet: Path, beat: int) -> Chords:
    """The chords of the markers (step, code); where the first marker contradicts the block chords, the chords of these.

    Segments may have been cut so that the first chord of the song is the first marker of each.  A chord contradicts a
    block where both have a note that the other lacks.  ``beat``: steps of a beat.
    """
    changes = chord_markers(sheet, beat)
    roll = PianoRoll.from_midi(sheet, beat)
    blocks = blocks_of(roll.notes(), roll.width)
    begin, stop = changes[0][0], changes[1][0] if len(changes) > 1 else roll.width
    beats = np.arange(0, roll.width, beat)
    heard = estimate_chords(blocks, beats, beats[::4])
    first = []
    for step in range(begin, stop, beat):
        code = changes[0][1]
        played = set((np.flatnonzero(blocks[:, step]) % 12).tolist())
        if (chord := Chord.of(code)) is not None:
            meant = {(chord.root + note) % 12 for note in list(QUALITIES.values())[chord.quality]}
            code = int(heard[step // beat]) if meant - played and played - meant else code
        first.append((step, code))
    return (*without_repeats(first), *changes[1:])


def codes_at(changes: Chords, steps: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """The code of the chord in each of some steps."""
    starts, codes = np.array(changes, np.int64).T
    return codes[np.maximum(np.searchsorted(starts, steps, side="right") - 1, 0)]

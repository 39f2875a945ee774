"""Files of chorales in the layout of the JSB data sets: {split: [[[pitch, ...] per sixteenth]]}."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fractalgen.config import PrepareConfig
from fractalgen.data.analysis import Analysis
from fractalgen.data.corpus_file import SPLITS, Split
from fractalgen.data.reading import Read, Skipped, song_of
from fractalgen.errors import UserError
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import Notes, merge_notes


def read_chorales(path: Path, config: PrepareConfig) -> tuple[list[Read], list[Skipped], dict[str, Split]]:
    """Songs and their splits of a JSON file {split: [piece: [step: [pitch of each voice]]]}.

    A pitch repeated in a voice is held, unless ``config.restrike``: the file does not say where it is struck again.
    Nor does it say more about time and loudness: ``config.steps_per_quarter`` (4: sixteenths), bars of 4/4 from the
    first step, the middle velocity and a tempo of 120 are assumed.
    """
    songs: list[Read] = []
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
                song = song_of(name, PianoRoll.from_notes(notes, **grid), config)
                songs.append(Read(song, Analysis.of(song, **grid)))
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

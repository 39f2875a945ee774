"""The packed corpus: all songs of a collection in one memory-mapped, self-describing file, or in a folder of them.

The columns of a file are described in :mod:`fractalgen.data.corpus_file`, a folder in :mod:`fractalgen.data.shards`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fractalgen.data import attributes
from fractalgen.data.analysis import Analysis, estimated_chords
from fractalgen.data.corpus_file import FORMAT, SPLITS, VERSION, Split, check_notes, damage_told, map_corpus
from fractalgen.data.shards import MANIFEST, Coded, Shards
from fractalgen.data.song import Song
from fractalgen.errors import UserError
from fractalgen.files import ASSETS, write_tensors
from fractalgen.music.chords import Chords
from fractalgen.music.keys import Keys, key_changes
from fractalgen.music.labels import KEYS, Attribute
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import NOTE, Meters, Notes, Tempos, grid_steps, tokens_from_notes

__all__ = ["SPLITS", "Corpus", "Split", "estimated_chords", "write_corpus"]

REMEMBERED = 4096  # songs whose keys and chords are kept once they were looked up


def write_corpus(
    songs: Sequence[Song],
    splits: Mapping[str, Split],
    path: Path,
    *,
    steps_per_quarter: int = 4,
    velocity_bins: int = 32,
    analyses: Sequence[Analysis] | None = None,
    vocabulary: bool = True,
    **about: Any,
) -> None:
    """Pack songs into one file that appears whole or not at all; ``about`` (plain data) joins the metadata.

    ``analyses``: one for each song, where they are known already.  A shard has no ``vocabulary`` of its own.
    """
    if analyses is None:
        listened = tqdm(songs, "keys and chords", unit="song", disable=None)
        analyses = [Analysis.of(song, steps_per_quarter, velocity_bins) for song in listened]
    tempos = [event for song in songs for event in song.tempos]
    meters = [event for song in songs for event in song.meters]
    keys, chords = [analysis.keys for analysis in analyses], [analysis.chords for analysis in analyses]
    voices = [np.zeros(len(song.notes), np.uint8) if song.voices is None else song.voices for song in songs]
    tensors = {
        **{f"notes.{name}": _column(songs, name) for name in ("start", "duration", "pitch", "velocity")},
        "songs.notes": _offsets(len(song.notes) for song in songs),
        "songs.num_steps": np.array([song.num_steps for song in songs], np.int32),
        "songs.tempos": _offsets(len(song.tempos) for song in songs),
        "songs.meters": _offsets(len(song.meters) for song in songs),
        "tempos.step": np.array([step for step, _ in tempos], np.int32),
        "tempos.quarters_per_minute": np.array([tempo for _, tempo in tempos], np.float64),
        "meters.step_numerator_denominator": np.array(meters, np.int32).reshape(-1, 3),
        "songs.keys": _offsets(len(changes) for changes in keys),
        "keys.step": np.array([step for changes in keys for step, _ in changes], np.int32),
        "keys.key": np.array([KEYS.index(key) for changes in keys for _, key in changes], np.uint8),
        "songs.chords": _offsets(len(changes) for changes in chords),
        "chords.step": np.array([step for changes in chords for step, _ in changes], np.int32),
        "chords.code": np.array([code for changes in chords for _, code in changes], np.uint16),
        "notes.voice": np.concatenate([np.zeros(0, np.uint8), *voices]).astype(np.uint8),
    }
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "steps_per_quarter": steps_per_quarter,
        "velocity_bins": velocity_bins,
        "songs": [song.name for song in songs],
        "splits": [splits[song.name] for song in songs],
        "styles": [song.style for song in songs],
        "flat": [song.flat for song in songs],
    }
    if vocabulary:
        pairs = zip(songs, analyses, strict=True)
        training = [(song.style, found.measured) for song, found in pairs if splits[song.name] == "train"]
        metadata["attributes"] = [asdict(attribute) for attribute in attributes.vocabulary(training)]
    metadata |= about
    write_tensors(path, tensors, metadata)


def _column(songs: Sequence[Song], name: str) -> npt.NDArray[Any]:
    kind = np.uint16 if name == "duration" else NOTE[name]
    return np.concatenate([np.zeros(0, kind), *(song.notes[name] for song in songs)], dtype=kind, casting="unsafe")


def _offsets(lengths: Iterable[int]) -> npt.NDArray[np.int32] | npt.NDArray[np.int64]:
    """Where the songs begin in a table; only what 32 bits cannot count takes 64."""
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    return offsets.astype(np.int32) if offsets[-1] < 2**31 else offsets


class Corpus:
    """A packed corpus, memory-mapped; it travels to worker processes as a path.

    Attributes:
        song_ids: the id of each song.
        splits: the split of each song.
        lengths: int32, the length of each song in steps.
        steps_per_quarter: time steps of a quarter note.
        velocity_bins: number of velocity bins.
        metadata: format, provenance, licence, settings.
        keys: function of a song's index: its changes of key, (step, key).
        chords: function of a song's index: its changes of chord, (step, code).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._styles: Sequence[str]
        if self.path.is_dir():
            shards = Shards(self.path)
            self.metadata = shards.manifest
            self.song_ids: Sequence[str] = shards.song_ids
            self.splits: Sequence[Split] = shards.splits
            self.lengths: npt.NDArray[np.int32] = shards.lengths
            self._split_codes, self._styles, self._flat = shards.splits.codes, shards.styles, shards.flat
            self._at = shards.at
        else:
            self.metadata, tensors = map_corpus(self.path)
            self.song_ids, self.splits = self.metadata["songs"], self.metadata["splits"]
            self.lengths = tensors["songs.num_steps"]
            self._split_codes = np.array([SPLITS.index(split) for split in self.splits], np.uint8)
            self._styles = self.metadata.get("styles", [""] * len(self.splits))
            self._flat = np.array(self.metadata.get("flat", [False] * len(self.splits)), np.bool_)
            self._at = lambda index: (tensors, index)
        self.steps_per_quarter: int = self.metadata["steps_per_quarter"]
        self.velocity_bins: int = self.metadata["velocity_bins"]
        self.keys = lru_cache(REMEMBERED)(self._keys)
        self.chords = lru_cache(REMEMBERED)(self._chords)

    @classmethod
    def open(cls, path_or_name: str | os.PathLike[str]) -> Corpus:
        """Open a packed corpus, a file or a folder, by path, or an embedded one by name (``chorales``).

        Raises:
            UserError: it is missing, not a corpus, damaged, of a newer version, or not on this machine.
        """
        if "://" in os.fspath(path_or_name):
            raise UserError(
                f"corpus {path_or_name}: must be on a disk of this machine, because its files are mapped into memory; "
                "copy it there first"
            )
        path = Path(path_or_name)
        embedded = ASSETS / f"{path_or_name}.safetensors"
        there = path.is_file() or (path / MANIFEST).exists()  # a folder of the same name may be anything
        if not there and path.name == str(path_or_name) and embedded.exists():
            path = embedded
        return cls(path)

    def __reduce__(self) -> tuple[type[Corpus], tuple[Path]]:
        return Corpus, (self.path,)

    def __len__(self) -> int:
        return len(self.song_ids)

    def __repr__(self) -> str:
        return f"Corpus({str(self.path)!r}, {len(self)} songs)"

    def indices(self, split: Split) -> list[int]:
        """Songs of a split."""
        if split not in SPLITS:
            raise UserError(f"split {split!r}: one of {', '.join(SPLITS)}")
        return np.flatnonzero(self._split_codes == SPLITS.index(split)).tolist()

    def num_steps(self, index: int) -> int:
        """Length of a song in steps: whole bars."""
        return int(self.lengths[index])

    def notes(self, index: int) -> Notes:
        """Notes of a song (pitch, start, duration, velocity bin), sorted by start, then pitch."""
        tensors, part = self._part("songs.notes", index)
        notes = np.zeros(part.stop - part.start, NOTE)
        for name in ("pitch", "start", "duration", "velocity"):
            notes[name] = tensors[f"notes.{name}"][part]
        if isinstance(self._styles, Coded):  # a shard's notes were not checked when it was opened
            with damage_told(self.path):
                check_notes(notes, self.num_steps(index), self.velocity_bins)
        return notes

    def tempos(self, index: int) -> Tempos:
        """Tempo changes (step, quarter notes a minute) of a song."""
        tensors, part = self._part("songs.tempos", index)
        steps, values = tensors["tempos.step"][part], tensors["tempos.quarters_per_minute"][part]
        return tuple(zip(steps.tolist(), values.tolist(), strict=True))

    def meters(self, index: int) -> Meters:
        """Meter changes (step, numerator, denominator) of a song."""
        tensors, part = self._part("songs.meters", index)
        rows = tensors["meters.step_numerator_denominator"][part]
        return tuple((step, numerator, denominator) for step, numerator, denominator in rows.tolist())

    def _keys(self, index: int) -> Keys:
        """Key changes (step, key) of a song, as estimated by :func:`fractalgen.music.keys.key_changes`."""
        if "songs.keys" not in self._at(index)[0]:
            return key_changes(self.tokens(index), self.steps_per_quarter)
        tensors, part = self._part("songs.keys", index)
        steps, numbers = tensors["keys.step"][part].tolist(), tensors["keys.key"][part].tolist()
        return tuple((step, KEYS[key]) for step, key in zip(steps, numbers, strict=True))

    def _chords(self, index: int) -> Chords:
        """Changes of chord (step, code) of a song: annotated, or as :func:`estimated_chords` finds them."""
        if "songs.chords" not in self._at(index)[0]:
            return estimated_chords(self.song(index), self.steps_per_quarter)
        tensors, part = self._part("songs.chords", index)
        steps, codes = (tensors[name][part].tolist() for name in ("chords.step", "chords.code"))
        return tuple(zip(steps, codes, strict=True))

    def voices(self, index: int) -> npt.NDArray[np.uint8]:
        """The voice of each note of a song, see :mod:`fractalgen.music.voices`; 0 where nothing says it."""
        tensors, part = self._part("songs.notes", index)
        if "notes.voice" not in tensors:
            return np.zeros(part.stop - part.start, np.uint8)
        return np.array(tensors["notes.voice"][part])

    def style(self, index: int) -> str:
        """Style label of a song; empty where there is none."""
        return self._styles[index]

    def flat(self, index: int) -> bool:
        """Whether the velocities of a song mean nothing: its file has the same one everywhere, say."""
        return bool(self._flat[index])

    @cached_property
    def vocabulary(self) -> tuple[Attribute, ...]:
        """The attributes by which the training songs differ, see :func:`fractalgen.data.attributes.vocabulary`."""
        if "attributes" in self.metadata:
            return tuple(Attribute.from_dict(data) for data in self.metadata["attributes"])
        songs = map(self.song, tqdm(self.indices("train"), "attributes", unit="song", disable=None))
        grid = self.steps_per_quarter, self.velocity_bins
        return attributes.vocabulary((song.style, attributes.Measured.of(song, *grid)) for song in songs)

    def song(self, index: int) -> Song:
        """A song as it went into the corpus."""
        return Song(
            self.song_ids[index],
            self.notes(index),
            self.num_steps(index),
            self.tempos(index),
            self.meters(index),
            self.style(index),
            self.chords(index) if "songs.chords" in self._at(index)[0] else (),
            self.voices(index),
            self.flat(index),
        )

    def downbeats(self, index: int) -> npt.NDArray[np.int32]:
        """Steps at which a bar of a song begins."""
        return grid_steps(self.meters(index), self.num_steps(index), self.steps_per_quarter, "bar")

    def beats(self, index: int) -> npt.NDArray[np.int32]:
        """Steps at which a beat of a song begins."""
        return grid_steps(self.meters(index), self.num_steps(index), self.steps_per_quarter, "beat")

    def tokens(self, index: int, start: int = 0, stop: int | None = None) -> npt.NDArray[np.uint8]:
        """Tokens (128, stop - start) of an excerpt; past the end of the song there is silence."""
        return tokens_from_notes(self.notes(index), start, self.num_steps(index) if stop is None else stop)

    def roll(self, index: int) -> PianoRoll:
        """A whole song."""
        return PianoRoll(
            self.tokens(index), self.steps_per_quarter, self.velocity_bins, self.tempos(index), self.meters(index)
        )

    def _part(self, offsets: str, index: int) -> tuple[dict[str, npt.NDArray[Any]], slice]:
        """The columns that have a song, and where it is in those that a table of offsets cuts."""
        tensors, index = self._at(index)
        return tensors, slice(int(tensors[offsets][index]), int(tensors[offsets][index + 1]))

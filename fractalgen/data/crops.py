"""What the model is trained and scored on: crops of a packed corpus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fractalgen.data.corpus import Corpus, Split
from fractalgen.data.labeller import Labeller
from fractalgen.errors import UserError
from fractalgen.music.labels import Attribute

__all__ = ["Corpus", "CropDataset", "ValidCrops", "evenly"]

PIANO = (21, 108)  # lowest and highest key
Item = dict[str, Tensor]
Chosen = TypeVar("Chosen")


def _item(tokens: np.ndarray, labels: np.ndarray) -> Item:
    return {"tokens": torch.from_numpy(tokens.astype(np.int64)), "labels": torch.from_numpy(labels)}


def evenly(items: list[Chosen], limit: int) -> list[Chosen]:
    """At most ``limit`` of the items, evenly spread; 0: all."""
    if limit == 0 or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def _songs(corpus: Corpus, split: Split) -> list[int]:
    songs = corpus.indices(split)
    if not songs:
        counts = ", ".join(f"{name} {corpus.splits.count(name)}" for name in ("train", "valid", "test"))
        raise UserError(f"corpus {corpus.path}: no song in split {split!r} ({counts})")
    return songs


class CropDataset(Dataset[Item]):
    """Random crops for training: a song by its length, a bar (or beat) of it, a transposition.

    Items: ``tokens`` int64 (128, crop_length), ``labels`` int64 (num_attributes,): those of the crop as transposed, 0
    where unknown.  The index is ignored; every item is drawn with torch's global generator, so worker seeds make runs
    reproducible.  Transpositions (semitones, inclusive) that would take a note of the crop outside the piano's 88 keys
    are not drawn.  A song shorter than a crop is followed by silence.  ``length``: items per epoch, by default as many
    as crops fit into the split.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: Split = "train",
        crop_length: int = 256,
        align: Literal["bar", "beat"] = "bar",
        transpose: tuple[int, int] = (0, 0),
        length: int | None = None,
        attributes: Sequence[Attribute] = (),
    ) -> None:
        if transpose[0] > transpose[1]:
            raise UserError(f"--transpose_min {transpose[0]} is above --transpose_max {transpose[1]}")
        if align not in ("bar", "beat"):
            raise UserError(f"--crop_align {align!r}: 'bar' or 'beat'")
        self.corpus, self.crop_length, self.transpose = corpus, crop_length, transpose
        self.labels = Labeller(corpus, attributes)
        self.songs = _songs(corpus, split)
        self.starts = []
        for song in self.songs:
            grid = corpus.downbeats(song) if align == "bar" else corpus.beats(song)
            fitting = grid[grid <= corpus.num_steps(song) - crop_length]
            self.starts.append(fitting if len(fitting) else grid[:1])
        steps = torch.tensor([corpus.num_steps(song) for song in self.songs])
        self.until = torch.cumsum(steps, 0)
        self.length = max(1, int(self.until[-1]) // crop_length) if length is None else length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        position = torch.randint(int(self.until[-1]), ())
        which = int(torch.searchsorted(self.until, position, right=True))
        starts = self.starts[which]
        start = int(starts[int(torch.randint(len(starts), ()))])
        song = self.songs[which]
        tokens = self.corpus.tokens(song, start, start + self.crop_length)
        shift = self._shift(tokens)
        tokens = np.roll(tokens, shift, axis=0)
        return _item(tokens, self.labels(tokens, song, start, shift))

    def _shift(self, tokens: np.ndarray) -> int:
        keys = np.flatnonzero(tokens.any(axis=1))
        if not len(keys):
            return 0
        low = max(self.transpose[0], PIANO[0] - int(keys[0]))
        high = min(self.transpose[1], PIANO[1] - int(keys[-1]))
        if low > high:  # no choice fits the keyboard: as written
            return 0
        return int(torch.randint(low, high + 1, ()))


def every_other_song(crops: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Which crops, each (song, first step), are of every other song: a floor is measured between the two halves."""
    songs = np.array([song for song, _ in crops])
    return np.isin(songs, np.unique(songs)[1::2])


class ValidCrops(Dataset[Item]):
    """Fixed consecutive crops of a split, each song from its first bar; items as in :class:`CropDataset`.

    Crops without a note are left out.  The last crop of a song is kept, followed by silence, when the song fills at
    least half of it or is shorter than a crop.  ``limit`` keeps that many crops, evenly spread (0: all).
    ``crops`` lists them as (song, first step).
    """

    def __init__(
        self,
        corpus: Corpus,
        split: Split = "valid",
        crop_length: int = 256,
        limit: int = 0,
        attributes: Sequence[Attribute] = (),
    ) -> None:
        self.corpus, self.crop_length = corpus, crop_length
        self.labels = Labeller(corpus, attributes)
        crops = []
        for song in _songs(corpus, split):
            first = int(corpus.downbeats(song)[0])
            last = max(first, corpus.num_steps(song) - crop_length // 2)
            notes = corpus.notes(song)
            begin, end = notes["start"], notes["start"] + notes["duration"]
            for start in range(first, last + 1, crop_length):
                if ((begin < start + crop_length) & (end > start)).any():
                    crops.append((song, start))
        self.crops = evenly(crops, limit)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> Item:
        song, start = self.crops[index]
        tokens = self.corpus.tokens(song, start, start + self.crop_length)
        return _item(tokens, self.labels(tokens, song, start))

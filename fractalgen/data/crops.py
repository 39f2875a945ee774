"""What the model is trained and scored on: crops of a packed corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fractalgen.data.corpus import SPLITS, Corpus, Split
from fractalgen.data.labeller import Labeller
from fractalgen.errors import UserError
from fractalgen.model.plans import MOST_BACK
from fractalgen.music.bars import BarLayout, units_of
from fractalgen.music.chords import UNTOLD, transposed_chords
from fractalgen.music.form import NEW, find_returns
from fractalgen.music.labels import Attribute
from fractalgen.music.plan import Plan, plan_of
from fractalgen.music.tokens import PITCHES
from fractalgen.music.voices import voice_plane

PIANO = (21, 108)  # lowest and highest key
ALONE = 0.5  # share of training crops whose plan is that of a piece which begins there
ENDINGS = 0.2  # share of training crops, besides those that chance takes there, in which a song ends; with plans
OUTLINES = 4096  # songs whose outlines are kept; the one kept longest makes way for another
VALID_SONGS = 4096  # of a split, evenly spread, that validation crops are taken from at most
Item = dict[str, Tensor]
Chosen = TypeVar("Chosen")


@dataclass(frozen=True)
class Outline:
    """What is known of a whole song beside its notes: its columns, and the plan that it sounds like."""

    layout: BarLayout
    plan: Plan


class Excerpts:
    """Excerpts of songs as a model takes them: bar by bar where it has bar columns, with plans where it knows plans.

    An item holds ``tokens`` int64 (128, width), ``labels`` int64 (num_attributes,), those of the excerpt as transposed
    and 0 where unknown, and ``flat`` bool (): its velocities mean nothing.  With bar columns also ``absent`` bool
    (width,): steps that do not exist, behind the end of a bar or of the song; and ``voices`` uint8 (128, width), see
    :mod:`fractalgen.music.voices`.  With plans also what :class:`fractalgen.model.plans.Plans` has.
    """

    def __init__(
        self,
        corpus: Corpus,
        width: int,
        attributes: Sequence[Attribute] = (),
        *,
        patch: int,
        bar_columns: bool,
        plans: bool = False,
    ) -> None:
        self.corpus, self.width, self.patch = corpus, width, patch
        self.bar_columns, self.plans = bar_columns, plans
        self.labels = Labeller(corpus, attributes)
        self.outlines: dict[int, Outline] = {}

    def outline(self, song: int) -> Outline:
        """The columns and the plan of a song."""
        if song not in self.outlines:
            corpus = self.corpus
            steps, meters = corpus.num_steps(song), corpus.meters(song)
            layout = BarLayout.of(meters, steps, corpus.steps_per_quarter, self.patch)
            chords = corpus.chords(song) if self.plans else ((0, 0),)
            tokens = corpus.tokens(song) if self.plans else np.zeros((PITCHES, steps), np.uint8)
            self.outlines[song] = Outline(layout, plan_of(layout, tokens, meters, corpus.steps_per_quarter, chords))
            if len(self.outlines) > OUTLINES:
                del self.outlines[next(iter(self.outlines))]
        return self.outlines[song]

    def starts(self, song: int) -> NDArray[np.int64]:
        """Steps of a song at which an excerpt may begin so that the song fills it; at least its first bar."""
        downbeats = self.corpus.downbeats(song).astype(np.int64)
        if not self.bar_columns:
            fitting = downbeats[downbeats <= self.corpus.num_steps(song) - self.width]
        else:  # the last excerpts end one bar after the song: how it ends is seen as often as what goes before
            layout = self.outline(song).layout
            fitting = layout.starts[: max(0, len(layout) - self.width // self.patch + 2)]
            fitting = fitting[np.isin(fitting, downbeats)]
        return fitting if len(fitting) else downbeats[:1]

    def all_starts(self, song: int) -> list[int]:
        """Steps at which excerpts that follow each other begin; the last one is at least half full."""
        first, steps = int(self.corpus.downbeats(song)[0]), self.corpus.num_steps(song)
        if not self.bar_columns:
            return list(range(first, max(first, steps - self.width // 2) + 1, self.width))
        layout, count = self.outline(song).layout, self.width // self.patch
        return [int(layout.starts[k]) for k in range(0, max(0, len(layout) - count // 2) + 1, count) if k < len(layout)]

    def window(self, song: int, start: int) -> BarLayout:
        """The columns of the excerpt that begins at a step."""
        layout = self.outline(song).layout
        return layout.window(layout.column_of(start), self.width // self.patch)

    def columns(self, song: int, window: BarLayout) -> NDArray[np.uint8]:
        """Tokens of some columns of a song."""
        first = int(window.starts[0])
        return _laid(window, self.corpus.tokens(song, first, first + window.num_steps))

    def __call__(
        self, song: int, start: int, shift: Callable[[NDArray[np.uint8]], int] | int = 0, alone: bool = True
    ) -> Item:
        """The excerpt that begins at a step, transposed by so many semitones (or as a function of its tokens says).

        ``alone``: its plan is that of a piece which begins there; else bars may come back from before it.
        """
        window = self.window(song, start) if self.bar_columns else None
        tokens = self.corpus.tokens(song, start, start + self.width) if window is None else self.columns(song, window)
        shift = shift if isinstance(shift, int) else shift(tokens)
        tokens = np.roll(tokens, shift, axis=0)
        item: dict[str, NDArray[Any]] = {
            "tokens": tokens.astype(np.int64),
            "flat": np.array(self.corpus.flat(song)),
        }
        if window is None:
            item["labels"] = self.labels(tokens, song, start, shift)
        else:
            item["absent"] = ~window.exists
            item["labels"] = self.labels(window.strip(tokens), song, start, shift)
            first, notes = int(window.starts[0]), self.corpus.notes(song)
            voices = voice_plane(notes, self.corpus.voices(song), first, first + window.num_steps)
            item["voices"] = np.roll(_laid(window, voices), shift, axis=0)
            if self.plans:
                item |= self._plan(song, window, shift, alone)
        return {name: torch.from_numpy(array) for name, array in item.items()}

    def _plan(self, song: int, window: BarLayout, shift: int, alone: bool) -> dict[str, NDArray[Any]]:
        """The plan of an excerpt.  A bar that it comes back to from outside is in ``bank``, at the same column."""
        outline, count = self.outline(song), len(window)
        first = outline.layout.column_of(int(window.starts[0]))
        there = min(count, len(outline.layout) - first)
        units = units_of(self.patch)
        chords = np.full(count * units, UNTOLD)
        chords[: there * units] = outline.plan.chords[first * units : (first + there) * units]
        back, left = np.zeros(count, np.int64), np.zeros(count, np.int64)
        left[:there] = outline.plan.left[first : first + there]
        bank = np.zeros((PITCHES, window.width), np.uint8)
        bank_chords = np.full(count * units, UNTOLD)
        returns = outline.plan.returns[first : first + there]
        if alone:
            tokens = self.columns(song, window).reshape(PITCHES, count, self.patch)[:, :there]
            returns = find_returns(tokens.transpose(1, 0, 2))
            returns = np.where(returns >= 0, returns + first, NEW)
        for column, source in enumerate(returns.tolist()):
            if source < 0 or first + column - source > MOST_BACK:
                continue
            back[column] = first + column - source
            if source < first:
                here = slice(column * self.patch, (column + 1) * self.patch)
                bank[:, here] = self.columns(song, outline.layout.window(source, 1))
                beats = slice(column * units, (column + 1) * units)
                bank_chords[beats] = outline.plan.chords[source * units : (source + 1) * units]
        return {
            "chords": transposed_chords(chords, shift).astype(np.int64),
            "back": back,
            "left": left,
            "before": np.array(0 if alone else first),
            "bank": np.roll(bank, shift, axis=0).astype(np.int64),
            "bank_chords": transposed_chords(bank_chords, shift).astype(np.int64),
        }


def _laid(window: BarLayout, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A plane (128, T) that begins with a window, in the columns of that window."""
    return replace(window, starts=window.starts - window.starts[0]).lay(plane)


def evenly(items: list[Chosen], limit: int) -> list[Chosen]:
    """At most ``limit`` of the items, evenly spread; 0: all."""
    if limit == 0 or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def _songs(corpus: Corpus, split: Split) -> list[int]:
    songs = corpus.indices(split)
    if not songs:
        counts = ", ".join(f"{name} {corpus.splits.count(name)}" for name in SPLITS)
        raise UserError(
            f"--data {corpus.path}: no song in split {split!r} ({counts}); prepare it again with more songs, or choose"
            " which songs are in it with `fractalgen prepare --splits`"
        )
    return songs


class CropDataset(Dataset[Item]):
    """Random crops for training: a song by its length, a bar of it, a transposition; with plans some more endings.

    Items: see :class:`Excerpts`.  The index is ignored; every item is drawn with torch's global generator, so worker
    seeds make runs reproducible.  Transpositions (semitones, inclusive) that would take a note of the crop outside the
    piano's 88 keys are not drawn.  A song shorter than a crop is followed by silence, or by steps that do not exist.
    ``length``: items per epoch, by default as many as crops fit into the split.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: Split = "train",
        crop_length: int = 256,
        transpose: tuple[int, int] = (0, 0),
        length: int | None = None,
        attributes: Sequence[Attribute] = (),
        *,
        patch: int = 16,
        bar_columns: bool = False,
        plans: bool = False,
    ) -> None:
        if transpose[0] > transpose[1]:
            raise UserError(f"--transpose_min {transpose[0]} is above --transpose_max {transpose[1]}")
        self.corpus, self.crop_length, self.transpose, self.plans = corpus, crop_length, transpose, plans
        self.excerpts = Excerpts(corpus, crop_length, attributes, patch=patch, bar_columns=bar_columns, plans=plans)
        self.songs = np.array(_songs(corpus, split))
        self.until = torch.from_numpy(np.cumsum(corpus.lengths[self.songs], dtype=np.int64))
        self.length = max(1, int(self.until[-1]) // crop_length) if length is None else length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        position = torch.randint(int(self.until[-1]), ())
        which = int(torch.searchsorted(self.until, position, right=True))
        song = int(self.songs[which])
        starts = self.excerpts.starts(song)
        if self.plans and float(torch.rand(())) < ENDINGS:
            starts = starts[-2:]
        start = int(starts[int(torch.randint(len(starts), ()))])
        return self.excerpts(song, start, self._shift, alone=bool(torch.rand(()) < ALONE) if self.plans else True)

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
    least half of it or is shorter than a crop.  ``limit`` keeps that many crops, evenly spread (0: all).  Of a split of
    more than ``VALID_SONGS`` songs that many are taken, evenly spread, and the others are not looked at.  ``crops``
    lists the crops as (song, first step).
    """

    def __init__(
        self,
        corpus: Corpus,
        split: Split = "valid",
        crop_length: int = 256,
        limit: int = 0,
        attributes: Sequence[Attribute] = (),
        *,
        patch: int = 16,
        bar_columns: bool = False,
        plans: bool = False,
    ) -> None:
        self.corpus, self.crop_length = corpus, crop_length
        self.excerpts = Excerpts(corpus, crop_length, attributes, patch=patch, bar_columns=bar_columns, plans=plans)
        crops = []
        for song in evenly(_songs(corpus, split), VALID_SONGS):
            notes = corpus.notes(song)
            begin, end = notes["start"], notes["start"] + notes["duration"]
            for start in self.excerpts.all_starts(song):
                steps = self.excerpts.window(song, start).num_steps if bar_columns else crop_length
                if ((begin < start + steps) & (end > start)).any():
                    crops.append((song, start))
        self.crops = evenly(crops, limit)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> Item:
        return self.excerpts(*self.crops[index])

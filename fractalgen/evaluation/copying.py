"""Copying: the share of bars that occur in the training songs, exactly or transposed.

The number means something beside the same share of real songs that are not in the training split: music repeats
common figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fractalgen.data.corpus import Corpus, Split
from fractalgen.features.notes import Ints, as_rolls, struck_notes


class BarIndex:
    """What is struck, and for how long, in every bar of a collection of songs.

    A bar is the set of its onsets: step in the bar, pitch, duration up to the bar line.  Velocities, and notes held
    from the bar before, are ignored.  Bars with fewer than ``min_notes`` notes (empty ones too) are not counted: too
    many songs share them.  The bars themselves are kept, so that there are no false matches.
    """

    def __init__(self, steps_per_bar: int = 16, min_notes: int = 4) -> None:
        self.steps_per_bar, self.min_notes = steps_per_bar, min_notes
        self._shapes: set[bytes] = set()  # pitches relative to the lowest one
        self._bars: set[tuple[bytes, int]] = set()  # the same with the lowest pitch

    def __len__(self) -> int:
        """Number of different bars."""
        return len(self._bars)

    @classmethod
    def from_corpus(
        cls, corpus: Corpus, split: Split = "train", steps_per_bar: int = 16, min_notes: int = 4
    ) -> BarIndex:
        """All bars of the songs of a split, as they can stand in a roll that begins on a bar line.

        A roll is cut into bars of ``steps_per_bar`` steps whatever the song's meters.  Where all bars of a song have
        that length these are its own bars.  Otherwise they are the windows that can meet that cut: beginning at every
        8th step if all bars have 24 steps, at every 4th if a bar of 20 steps shifts the others.
        """
        index = cls(steps_per_bar, min_notes)
        for song in corpus.indices(split):
            notes = corpus.notes(song)
            lines = np.append(corpus.downbeats(song), corpus.num_steps(song))
            apart = math.gcd(steps_per_bar, *np.diff(lines).tolist())
            columns = (notes[name].astype(np.int64) for name in ("start", "pitch", "duration"))
            for _, shape, lowest in index._found(np.arange(lines[0], lines[-1], apart), *columns):
                index._shapes.add(shape)
                index._bars.add((shape, lowest))
        return index

    def share(self, tokens: Any) -> dict[str, float | None]:
        """How many bars of rolls (n, 128, T), which begin on a bar line, are in the index.

        - ``bars``: bars counted; ``exact``: share of them that is in the index; ``transposed``: the share that is in
          it at any transposition, the untransposed ones included (both None when no bar is counted)
        - ``longest``: the longest run of neighbouring bars in one roll that are all counted and found, each at any
          transposition

        Steps after the last whole bar are ignored.
        """
        rolls = as_rolls(tokens)
        count, _, width = rolls.shape
        bars = width // self.steps_per_bar
        notes = struck_notes(rolls)
        starts = np.arange(count)[:, None] * width + np.arange(bars) * self.steps_per_bar  # all rolls in one line
        onset = notes.roll * width + notes.step
        found = list(self._found(starts.ravel(), onset, notes.pitch, notes.duration))
        exact = sum((shape, lowest) in self._bars for _, shape, lowest in found)
        copied = np.zeros(starts.shape, bool)
        copied.flat[[bar for bar, shape, _ in found if shape in self._shapes]] = True
        return {
            "bars": len(found),
            "exact": exact / len(found) if found else None,
            "transposed": int(copied.sum()) / len(found) if found else None,
            "longest": _longest_run(copied),
        }

    def _found(self, starts: Ints, onset: Ints, pitch: Ints, duration: Ints) -> Iterator[tuple[int, bytes, int]]:
        """Number, shape and lowest pitch of the counted bars that begin at ``starts``; notes are sorted by onset."""
        first, last = np.searchsorted(onset, starts), np.searchsorted(onset, starts + self.steps_per_bar)
        for bar in np.flatnonzero(last - first >= self.min_notes):
            part = slice(first[bar], last[bar])
            step, lowest = onset[part] - starts[bar], int(pitch[part].min())
            length = np.minimum(duration[part], self.steps_per_bar - step)
            yield int(bar), np.stack([step, pitch[part] - lowest, length]).astype(np.int16).tobytes(), lowest


def _longest_run(copied: npt.NDArray[np.bool_]) -> int:
    """Longest run of True in a row of a table."""
    edges = np.diff(np.pad(copied, ((0, 0), (1, 1))).ravel().astype(np.int8))
    return int((np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)).max(initial=0))

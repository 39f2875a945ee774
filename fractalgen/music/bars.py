"""Bars as columns: how the time steps of music are laid out in the columns of a model's first-level patches.

A column is a bar, or a part of a long one: a bar of 12 steps fills the first 12 of its 16, and the cells behind its
end do not exist.  A longer bar takes several columns.  A model without bar columns takes 16 steps after the other,
whatever the meter.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError, quoted
from fractalgen.music import MAX_STEPS
from fractalgen.music.tokens import Meters, ends_of, grid_steps

Meter = tuple[int, int]
MOST_BEATS = 32


def units_of(patch: int) -> int:
    """Chords that a column of ``patch`` steps has room for: four (beats of 4/4), or one if it cannot be quartered."""
    return 4 if patch % 4 == 0 else 1


@dataclass(frozen=True, eq=False)
class BarLayout:
    """The columns of a piece, each ``patch`` model steps wide.

    ``starts``: the first real step of each column; ``lengths``: how many real steps it has (0: none at all);
    ``bars``: the number of the bar that it belongs to.
    """

    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    bars: npt.NDArray[np.int64]
    patch: int

    @classmethod
    def of(cls, meters: Meters, num_steps: int, steps_per_quarter: int, patch: int) -> BarLayout:
        """The columns of so many steps in these meters; a bar longer than a column is split nearly evenly."""
        lines = np.unique([*grid_steps(meters, num_steps, steps_per_quarter), num_steps]).tolist()
        unit = patch // units_of(patch)
        columns = []
        for bar, (start, stop) in enumerate(pairwise(lines)):
            count = math.ceil((stop - start) / patch)
            width = math.ceil((stop - start) / max(count, 1) / unit) * unit
            columns += [(first, min(width, stop - first), bar) for first in range(start, stop, width)]
        starts, lengths, bars = np.array(columns, np.int64).reshape(-1, 3).T
        return cls(starts, lengths, bars, patch)

    @classmethod
    def plain(cls, num_steps: int, patch: int) -> BarLayout:
        """Columns without regard to bars; the last one is as wide as the others."""
        starts = np.arange(0, num_steps, patch)
        return cls(starts, np.full(len(starts), patch), np.arange(len(starts)), patch)

    def __len__(self) -> int:
        return len(self.starts)

    def window(self, first: int, count: int) -> BarLayout:
        """So many columns from one on; behind the last one columns without steps follow."""
        stop = min(first + count, len(self))
        missing = count - (stop - first)
        end = int(self.starts[-1] + self.lengths[-1]) if len(self) else 0
        last = int(self.bars[-1]) if len(self) else -1
        return BarLayout(
            np.r_[self.starts[first:stop], np.full(missing, end)],
            np.r_[self.lengths[first:stop], np.zeros(missing, np.int64)],
            np.r_[self.bars[first:stop], last + 1 + np.arange(missing)],
            self.patch,
        )

    @property
    def width(self) -> int:
        """Model steps."""
        return len(self) * self.patch

    @property
    def num_steps(self) -> int:
        """Real steps."""
        return int(self.lengths.sum())

    @cached_property
    def exists(self) -> npt.NDArray[np.bool_]:
        """Which model steps (width,) are real ones."""
        return (np.arange(self.patch) < self.lengths[:, None]).ravel()

    @cached_property
    def place(self) -> npt.NDArray[np.int64]:
        """The real step of each model step (width,); -1 where there is none."""
        steps = self.starts[:, None] + np.arange(self.patch)
        return np.where(self.exists, steps.ravel(), -1)

    @cached_property
    def model_steps(self) -> npt.NDArray[np.int64]:
        """The model step of each real step, in order."""
        return np.flatnonzero(self.exists)

    def lay(self, cells: npt.NDArray[Any], fill: int = 0) -> npt.NDArray[Any]:
        """Cells (..., T) by real step from 0 on, in columns (..., width); ``fill`` where there is no step or cell."""
        place = np.where(self.place < cells.shape[-1], self.place, -1)
        laid = cells[..., place]
        laid[..., place < 0] = fill
        return laid

    def strip(self, cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Inverse of :meth:`lay`: (..., width) to (..., T)."""
        return cells[..., self.model_steps]

    @cached_property
    def unit_steps(self) -> npt.NDArray[np.int64]:
        """The first real step of each chord unit (columns * units); -1 where the unit has no step."""
        return self.place.reshape(len(self), units_of(self.patch), -1)[..., 0].ravel()

    def open_units(self, known: npt.NDArray[np.integer] | None) -> npt.NDArray[np.bool_]:
        """The chord units (columns * units) in which tokens (128, T) are below 0: to be composed (None: all)."""
        there = self.unit_steps >= 0
        if known is None:
            return there
        laid = self.lay(np.any(known < 0, axis=0), False)
        return there & laid.reshape(len(there), -1).any(1)

    def column_of(self, step: int) -> int:
        """The column that holds a real step."""
        return int(np.searchsorted(self.starts, step, side="right")) - 1


def parse_meter(text: str) -> Meter:
    """A meter written ``3/4``.

    Raises:
        UserError: it cannot be read, or MIDI does not know it.
    """
    found = re.fullmatch(r"\s*(\d{1,3})\s*/\s*(\d{1,2})\s*", text)
    if not found:
        raise UserError(f"--meter {quoted(text)}: write it as 4/4, 3/4, 6/8 ...")
    beats, unit = int(found[1]), int(found[2])
    if not 1 <= beats <= MOST_BEATS or unit not in (1, 2, 4, 8, 16, 32):
        raise UserError(f"--meter {text}: 1 to {MOST_BEATS} beats over 1, 2, 4, 8, 16 or 32")
    return beats, unit


def main_meter(meters: Meters, num_steps: int = MAX_STEPS) -> Meter:
    """The meter that lasts longest in all, of equals the one that comes first."""
    lasting: Counter[Meter] = Counter()
    for (start, beats, unit), end in zip(meters, ends_of(meters, num_steps), strict=True):
        lasting[beats, unit] += max(0, min(end, num_steps) - start)
    return max(lasting, key=lambda meter: lasting[meter])


def meter_label(meter: Meter) -> str:
    """How a meter is written."""
    return f"{meter[0]}/{meter[1]}"

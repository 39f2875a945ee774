"""Harmony: what every level is told of the chords, relative to the pitches that it works on.

As with the degrees of a key, what is learned on one root serves on all: a chord is shown as seen from the lowest pitch
of a patch.  So a patch is told which of its pitches are in the chord, how far the root and the bass lie from it, and
the same of the chord that comes next.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fractalgen.model.grid import Grid
from fractalgen.model.transformer import narrow
from fractalgen.music.bars import units_of
from fractalgen.music.chords import CODES, FIRST, NO_CHORD, QUALITIES, Chord

SIZE = 12 * len(QUALITIES)  # codes of a root
FEATURES = 12 + 12 + 12 + 2


def chord_table() -> Float[Tensor, "codes features"]:
    """Features of every chord as seen from a C: its notes, root, bass, whether it is told, and whether it is none."""
    table = np.zeros((CODES, FEATURES), np.float32)
    table[1:, 36] = 1
    table[NO_CHORD, 37] = 1
    semitones = list(QUALITIES.values())
    for code in range(FIRST, CODES):
        chord = Chord.of(code)
        assert chord is not None
        table[code, [(chord.root + step) % 12 for step in semitones[chord.quality]]] = 1
        table[code, 12 + chord.root] = 1
        table[code, 24 + (chord.root + chord.bass) % 12] = 1
    return torch.from_numpy(table)


def seen_from(codes: Int[Tensor, "*n"], pitch: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """Codes of chords as they are when counted from a pitch instead of from C."""
    return torch.where(codes < FIRST, codes, FIRST + (codes - FIRST - pitch % 12 * SIZE) % (12 * SIZE))


class Harmony(nn.Module):
    """The chords of each child patch of a level, embedded; zero at first.

    Args:
        patch: pitches of a child.
        steps: time steps of a child.
        column: time steps of a first-level patch, which holds ``units_of(column)`` chords.
        width: of the embedding.
    """

    def __init__(self, patch: int, steps: int, column: int, width: int) -> None:
        super().__init__()
        self.patch, self.steps, self.unit = patch, steps, column // units_of(column)
        self.per_child = max(1, steps // self.unit)
        self.table = nn.Buffer(chord_table(), persistent=False)
        self.embed = nn.Linear((self.per_child + 1) * FEATURES, width, bias=False)
        nn.init.zeros_(self.embed.weight)

    def groups(self, grid: Grid) -> int:
        """How many columns of children have chords of their own."""
        return max(1, grid.cols * self.steps // self.unit // self.per_child)

    def windows(self, codes: Int[Tensor, "b u"], grid: Grid) -> Int[Tensor, "b g k"]:
        """The chords of each group of columns, and the one after them."""
        return codes[:, : self.groups(grid) * self.per_child + 1].unfold(1, self.per_child + 1, self.per_child)

    def forward(self, codes: Int[Tensor, "b u"], lowest: Int[Tensor, " b"], grid: Grid) -> Float[Tensor, "b n d"]:
        """The embedding of every child of regions with these chords (and the next), from these pitches upwards."""
        groups = self.windows(codes, grid)[:, None]
        rows = self.patch * torch.arange(grid.rows, device=codes.device)
        seen = seen_from(groups, (lowest[:, None] + rows)[:, :, None, None])
        embedded: Tensor = self.embed(F.embedding(seen, narrow(self.table)).flatten(-2))  # b r g d
        embedded = embedded.repeat_interleave(grid.cols // groups.shape[2], 2)
        return (embedded.transpose(1, 2) if grid.order == "column_major" else embedded).flatten(1, 2)

    def below(self, codes: Int[Tensor, "b u"], grid: Grid) -> Int[Tensor, "b n k"]:
        """The chords of every child as a region, and the one after them."""
        groups = self.windows(codes, grid)
        columns = groups.repeat_interleave(grid.cols // groups.shape[1], 1)[:, None].expand(-1, grid.rows, -1, -1)
        return (columns.transpose(1, 2) if grid.order == "column_major" else columns).flatten(1, 2)

"""Embeddings of cells and of places."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fractalgen.model.grid import Grid
from fractalgen.model.transformer import narrow
from fractalgen.music.tokens import HOLD, ONSET


class CellFeatures(nn.Module):
    """Token codes as four numbers each: onset, hold, velocity, and known (0), unknown (1) or outside (-1)."""

    def __init__(self, velocity_bins: int) -> None:
        super().__init__()
        table = torch.zeros(velocity_bins + 4, 4)
        table[HOLD, 1] = 1
        table[ONSET:-2, 0] = 1
        table[ONSET:-2, 2] = (torch.arange(velocity_bins) + 1) / velocity_bins
        table[-2, 3], table[-1, 3] = 1, -1
        self.table = nn.Buffer(table, persistent=False)

    def forward(self, codes: Int[Tensor, "*n h w"]) -> Float[Tensor, "*n features"]:
        """Features of whole windows, four times ``h * w`` of them."""
        return F.embedding(codes.int(), narrow(self.table)).flatten(-3)  # the planes of 0 and 1 stay exact


class Place(nn.Module):
    """Factorised positions: a learned vector per pitch row plus a projected sinusoid of the time column.

    ``pace``: how far apart columns are.
    """

    def __init__(self, rows: int, width: int, pace: float = 1.0) -> None:
        super().__init__()
        self.pace = pace
        self.row = nn.Parameter(0.02 * torch.randn(rows, width))
        self.col = nn.Linear(width, width, bias=False)
        frequencies = math.pi * torch.logspace(0, -3, width // 2)
        self.frequencies = nn.Buffer(frequencies, persistent=False)

    def forward(self, grid: Grid) -> Float[Tensor, "n d"]:
        """One vector per patch of the grid, in scan order."""
        angles = torch.arange(grid.cols, device=self.row.device)[:, None] * (self.pace * self.frequencies)
        col = self.col(torch.cat([angles.sin(), angles.cos()], -1))
        return grid.number(self.row[:, None] + col)


def mlp(inputs: int, width: int) -> nn.Sequential:
    """Two linear layers with a GELU between them."""
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU("tanh"), nn.Linear(width, width))

"""Small parts that the levels share: embeddings of cells and places, and the books that are kept along the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fractalgen.model.grid import Grid
from fractalgen.sampling import Draw

SILENCE, HOLD, ONSET = 0, 1, 2
"""Tokens of a cell; onset bin ``v`` is ``ONSET + v`` (the same codes as in ``fractalgen.pianoroll``)."""


@dataclass(frozen=True)
class NLL:
    """Negative log-likelihood of a batch of rolls, in nats per roll.

    ``exact`` is true if every level is AR, or if MAR levels were scored under one given order and schedule; otherwise
    the numbers are an unbiased estimate of the average over orders, an upper bound of the NLL.
    ``terms`` adds up to ``total``: ``L0/gate`` ... and ``L3/articulation``, ``L3/velocity`` (or ``L3/token``).
    So does ``kinds``, by what was decided: gates of patches that are silent (``silence``) and that are not
    (``sound``), of a sounding cell that it is a ``hold`` or an ``onset``, and the ``velocity`` of onsets.
    """

    terms: dict[str, Float[Tensor, " b"]]
    kinds: dict[str, Float[Tensor, " b"]]
    exact: bool

    @property
    def total(self) -> Float[Tensor, " b"]:
        """All terms together."""
        return torch.stack(list(self.terms.values())).sum(0)


class Ledger:
    """Where every level books its NLL terms, for the crop that each patch belongs to and with the patch's weight."""

    def __init__(self, batch: int, like: Tensor) -> None:
        self.zeros = like.new_zeros(batch)
        self.terms: dict[str, Tensor] = {}
        self.kinds: dict[str, Tensor] = {}

    def add(
        self, name: str, nats: Float[Tensor, " m"], crop: Int[Tensor, " m"], weight: Float[Tensor, " m"], kind: str
    ) -> None:
        """Book ``nats`` of each patch under ``name`` and under ``kind``."""
        for book, entry in ((self.terms, name), (self.kinds, kind)):
            before = book.get(entry, self.zeros)
            book[entry] = before.index_add(0, crop, (nats * weight).to(self.zeros))


@dataclass(frozen=True)
class Regions:
    """What a level works on: regions in the middle of a ``canvas`` of known surroundings, see :mod:`.grid`.

    ``given`` holds the tokens of cells that are known beforehand and -1 elsewhere; None if there are none.
    ``echo``, below the first level, holds one layer for each distance, see :mod:`.echo`.
    """

    canvas: Int[Tensor, "b ch cw"]
    given: Int[Tensor, "b p t"] | None = None
    echo: Int[Tensor, "b e p t"] | None = None


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
        table: Tensor = self.table
        if torch.is_autocast_enabled(table.device.type):  # half the memory; the planes of 0 and 1 stay exact
            table = table.to(torch.get_autocast_dtype(table.device.type))
        return F.embedding(codes.int(), table).flatten(-3)


class Place(nn.Module):
    """Factorised positions: a learned vector per pitch row plus a projected sinusoid of the time column."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.row = nn.Parameter(0.02 * torch.randn(rows, width))
        self.col = nn.Linear(width, width, bias=False)
        frequencies = math.pi * torch.logspace(0, -3, width // 2)
        self.frequencies = nn.Buffer(frequencies, persistent=False)

    def forward(self, grid: Grid) -> Float[Tensor, "n d"]:
        """One vector per patch of the grid, in scan order."""
        angles = torch.arange(grid.cols, device=self.row.device)[:, None] * self.frequencies
        col = self.col(torch.cat([angles.sin(), angles.cos()], -1))
        return grid.number(self.row[:, None] + col)


def mlp(inputs: int, width: int) -> nn.Sequential:
    """Two linear layers with a GELU between them."""
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU("tanh"), nn.Linear(width, width))


class StepLog:
    """The chronology of the first level: (iteration, batch) of every step and when it ended, in seconds."""

    def __init__(self, progress: Callable[[int, int], None] | None = None) -> None:
        self.steps: list[tuple[int, int]] = []
        self.seconds: list[float] = []
        self.began, self.report = time.perf_counter(), progress

    def add(self, iteration: int, batch: int) -> int:
        """Begin a step; returns its number."""
        self.steps.append((iteration, batch))
        return len(self.steps) - 1

    def progress(self, done: int, total: int) -> None:
        """End a step: ``done`` of ``total`` patches are decided."""
        self.seconds.append(time.perf_counter() - self.began)
        if self.report:
            self.report(done, total)


@dataclass
class Composed:
    """What sampling a region returns: its tokens and, if recorded, a step plane per level from this one down."""

    tokens: Int[Tensor, "b p t"]
    planes: Int[Tensor, "b levels p t"] | None


def streams(x: Float[Tensor, "sb *n"], draw: Draw) -> Float[Tensor, "s b *n"]:
    """Separate the guidance streams, stacked along the batch."""
    return x.unflatten(0, (draw.streams, -1))

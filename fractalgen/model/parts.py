"""Small parts that the levels share: embeddings of cells and places, and the books that are kept along the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
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
    """Where every level books its NLL terms, for the crop that each patch belongs to and with the patch's weight.

    ``subsample``: levels may visit a random subset of their patches.
    """

    def __init__(self, batch: int, like: Tensor, subsample: bool = False) -> None:
        self.subsample = subsample
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
class Limits:
    """What may sound in regions: cells that are ``allowed``, and at each step no more of them than there is ``room``.

    Known cells are exempt, but those that sound have taken their room.  Without ``room`` there is no limit.
    """

    allowed: Bool[Tensor, "b p t"]
    room: Int[Tensor, "b t"] | None = None

    def split(self, grid: Grid) -> PatchLimits:
        """The same for the children of the regions."""
        steps = torch.arange(self.allowed.shape[2], device=self.allowed.device)
        columns = grid.split(steps.expand(1, *self.allowed.shape[1:]))[0, :, 0]
        return PatchLimits(grid.split(self.allowed), self.room, columns)


@dataclass(frozen=True)
class PatchLimits:
    """:class:`Limits` by child patch; ``room`` shrinks as children are filled."""

    allowed: Bool[Tensor, "b n h w"]
    room: Int[Tensor, "b t"] | None
    columns: Int[Tensor, "n w"]

    def possible(self, given: Int[Tensor, "b n h w"]) -> Bool[Tensor, "b n"]:
        """Children in which a cell that is not ``given`` may sound."""
        cells = self.allowed & (given < 0)
        if self.room is not None:
            cells = cells & (self.room > 0)[:, self.columns][:, :, None]
        return cells.flatten(2).any(-1)

    def at(self, region: Int[Tensor, " m"], child: Int[Tensor, " m"]) -> Limits:
        """What is left to some children."""
        room = None if self.room is None else self.room[region[:, None], self.columns[child]]
        return Limits(self.allowed[region, child], room)

    def fill(self, region: Int[Tensor, " m"], child: Int[Tensor, " m"], sounding: Bool[Tensor, "m h w"]) -> None:
        """Cells of some children sound now."""
        if self.room is not None:
            taken = -sounding.sum(1).to(self.room)
            self.room.index_put_((region[:, None], self.columns[child]), taken, accumulate=True)


@dataclass(frozen=True)
class Regions:
    """What a level works on: regions in the middle of a ``canvas`` of known surroundings, see :mod:`.grid`.

    ``given`` holds the tokens of cells that are known beforehand, and elsewhere -1, or -2 (``NO_HOLD``) where the note
    before is known to end; None if nothing is known.
    ``echo``, below the first level, holds one layer for each distance, see :mod:`.echo`.  While sampling,
    ``limits`` say what may sound, and ``noise`` holds uniform numbers in [0, 1): all that chance decides in a region.
    """

    canvas: Int[Tensor, "b ch cw"]
    given: Int[Tensor, "b p t"] | None = None
    echo: Int[Tensor, "b e p t"] | None = None
    limits: Limits | None = None
    noise: Float[Tensor, "b k"] | None = None


@dataclass(frozen=True)
class Condition:
    """What is asked of regions: a vector, and which degree of the key asked for their lowest pitch is.

    Degrees 1 to 12 are semitones above the tonic of a major key, 13 to 24 of a minor key; 0: no key is asked for.
    """

    vector: Float[Tensor, "*n d"]
    degree: Int[Tensor, "*n"]

    def each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        """The same change of both."""
        return Condition(change(self.vector), change(self.degree))


DEGREES = 25


def lowest_degree(key: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """The degree of pitch 0, a C, in keys by their labels: 1 to 12 major, from C on, 13 to 24 minor, 0 for none."""
    return torch.where(key > 0, (key - 1) // 12 * 12 + (1 - key) % 12 + 1, 0)


def raised(degree: Int[Tensor, "*n"], semitones: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """The degree so many semitones higher."""
    return torch.where(degree > 0, (degree - 1) // 12 * 12 + (degree - 1 + semitones) % 12 + 1, 0)


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
    """The chronology of the first level: (iteration, batch) of every step and when it ended, in seconds.

    A long piece is composed window by window; iterations count on from one to the next.
    """

    def __init__(self, total: int, progress: Callable[[int, int], None] | None = None) -> None:
        self.steps: list[tuple[int, int]] = []
        self.seconds: list[float] = []
        self.ranks: Sequence[int] | None = None
        self.offset, self.total, self.here, self.later = 0, total, total, 0
        self.began, self.report = time.perf_counter(), progress

    def begin_window(self, ranks: Sequence[int] | None, here: int, later: int) -> None:
        """Of ``total`` patches, ``here`` lie in this window and ``later`` after it.

        ``ranks``: the rank in the piece of each patch of the window, where iterations are patches (AR).
        """
        self.ranks, self.offset = ranks, self.steps[-1][0] + 1 if self.steps else 0
        self.here, self.later = here, later

    def add(self, iteration: int, batch: int) -> int:
        """Begin a step; returns its number."""
        self.steps.append((self.offset + iteration if self.ranks is None else self.ranks[iteration], batch))
        return len(self.steps) - 1

    def progress(self, left: float) -> None:
        """End a step: this share of the window's patches is not decided."""
        self.seconds.append(time.perf_counter() - self.began)
        if self.report:
            self.report(self.total - self.later - round(left * self.here), self.total)


@dataclass
class Composed:
    """What sampling a region returns: its tokens and, if recorded, a step plane per level from this one down.

    Also recorded: for each cell how probable it was that the smallest patch around it that was asked about would sound,
    given that the region does.
    """

    tokens: Int[Tensor, "b p t"]
    planes: Int[Tensor, "b levels p t"] | None = None
    chances: Float[Tensor, "b p t"] | None = None


def streams(x: Float[Tensor, "sb *n"], draw: Draw) -> Float[Tensor, "s b *n"]:
    """Separate the guidance streams, stacked along the batch."""
    return x.unflatten(0, (draw.streams, -1))

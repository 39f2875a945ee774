"""What the levels below the first know of music far away: echoes of other bars, and a tally of pitches.

A window around a patch cannot show that this bar repeats the one four bars ago, or what key the piece is in.  The
first level hands both down to its children, as far as they are decided when the child is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from fractalgen.config import ModelConfig
from fractalgen.model.grid import Grid, neighbours
from fractalgen.model.parts import SILENCE, CellFeatures, mlp

TALLIES = 3  # numbers for each pitch


@dataclass(frozen=True)
class Memory:
    """Of each region: ``echo``, the codes at the same pitches some first-level patches away, one layer a distance;
    ``tally``, for each of its pitches how much that pitch and its pitch class sounded so far.
    """

    echo: Int[Tensor, "*b e p t"] | None
    tally: Float[Tensor, "*b p k"] | None

    def split(self, grid: Grid) -> Memory:
        """The memory of every child, on one more axis after the batch."""
        echo, tally = self.echo, self.tally
        return Memory(
            None if echo is None else grid.split_layers(echo),
            None if tally is None else grid.split_rows(tally),
        )

    def __getitem__(self, index: Any) -> Memory:
        """Part of a batch."""
        return Memory(*(None if part is None else part[index] for part in (self.echo, self.tally)))


@dataclass(frozen=True)
class Regions:
    """What a level works on: regions in the middle of a ``canvas`` of known surroundings, see :mod:`.grid`.

    ``given`` holds the tokens of cells that are known beforehand and -1 elsewhere; None if there are none.
    ``memory`` comes from the first level.
    """

    canvas: Int[Tensor, "b ch cw"]
    given: Int[Tensor, "b p t"] | None = None
    memory: Memory | None = None


class Recall(nn.Module):
    """Embeds the memory of children."""

    def __init__(self, model: ModelConfig, patch: int, width: int) -> None:
        super().__init__()
        self.embed = mlp(4 * len(model.echoes) * patch**2 + (TALLIES * patch if model.tally else 0), width)

    def forward(self, memory: Memory, features: CellFeatures) -> Float[Tensor, "b n d"]:
        """Memory with a child axis, (b, n, ...), as vectors."""
        parts = []
        if memory.echo is not None:
            parts.append(features(memory.echo).flatten(2))
        if memory.tally is not None:
            parts.append(memory.tally.flatten(2).to(features.table))
        return self.embed(torch.cat(parts, -1))


def remember(
    model: ModelConfig,
    grid: Grid,
    codes: Int[Tensor, "b p t"],
    region: Int[Tensor, " m"],
    child: Int[Tensor, " m"],
    steps: Int[Tensor, "b n"] | None = None,
    given: Int[Tensor, "b p t"] | None = None,
) -> Memory | None:
    """First level: the memory of some children, each a (region, child) of the whole rolls in ``codes``.

    ``steps``: hide what is not decided in an earlier step than the child, but for ``given`` cells (-1: not given).
    Without it everything in ``codes`` that is not UNKNOWN is visible.
    """
    if not model.echoes and not model.tally:
        return None
    unknown, patches = model.vocabulary, grid.split(codes)
    seen = torch.ones(len(region), len(grid), dtype=torch.bool, device=codes.device)
    if steps is not None:
        seen = steps[region] < steps[region, child][:, None]
    shown = torch.full_like(patches, unknown)
    if given is not None:
        shown = torch.where(grid.split(given) >= 0, patches, unknown)

    echo = tally = None
    if model.echoes:
        source = neighbours(grid, model.echoes, codes.device)[child]
        everything, shown_ahead = (F.pad(x, (0, 0, 0, 0, 0, 1), value=unknown + 1) for x in (patches, shown))
        visible = F.pad(seen, (0, 1), value=True).gather(1, source)[..., None, None]
        echo = torch.where(visible, everything[region[:, None], source], shown_ahead[region[:, None], source])
    if model.tally:
        sounds, sounds_ahead = (((x > SILENCE) & (x < unknown)).sum(-1)[region] for x in (patches, shown))
        sums = torch.where(seen[..., None], sounds, sounds_ahead).movedim(1, 0)  # n m h
        rows = grid.number(torch.arange(grid.rows, device=codes.device)[:, None].expand(-1, grid.cols))
        cells = sums.new_zeros(grid.rows, *sums.shape[1:]).index_add(0, rows, sums)
        tally = tallies(rearrange(cells, "r m h -> m (r h)"))
        tally = rearrange(tally, "m (r h) k -> m r h k", r=grid.rows)[torch.arange(len(child)), rows[child]]
    return Memory(echo, tally)


def tallies(cells: Int[Tensor, "m p"]) -> Float[Tensor, "m p k"]:
    """From how many cells of each pitch sounded: logarithms of that and of its pitch class's, and the class's share.

    The same for all keys: what matters is how often this pitch was heard, not which it is.
    """
    classes = torch.arange(cells.shape[1], device=cells.device) % 12
    heard = cells.new_zeros(len(cells), 12).index_add(1, classes, cells)
    share = heard / heard.sum(1, keepdim=True).clamp(min=1)
    return torch.stack([cells.log1p() / 4, (heard.log1p() / 4)[:, classes], 4 * share[:, classes]], -1)

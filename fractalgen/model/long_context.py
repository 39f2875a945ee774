"""Echoes: what the levels below the first know of music far away.

A window around a patch cannot show that this bar repeats the one four bars ago, and what the first level makes of whole
patches is too coarse to copy from.  So the first level hands down to each of its children the cells at the same pitches
some patches earlier (and later, where it is MAR), as far as they are decided when the child is.  Where a plan says that
a bar comes back to an earlier one, the cells of that one are handed down too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from fractalgen.model.grid import Grid, columns_and_rows, neighbours, numbers


def find_long_context(
    grid: Grid,
    codes: Int[Tensor, "b p t"],
    distances: tuple[int, ...],
    region: Int[Tensor, " m"],
    child: Int[Tensor, " m"],
    unknown: int,
    steps: Int[Tensor, "b n"] | None = None,
    given: Int[Tensor, "b p t"] | None = None,
) -> Int[Tensor, "m e h w"]:
    """Echoes of some first-level children, each a (region, child) of the rolls in ``codes``, one layer a distance.

    ``steps``: hide what is not decided in an earlier step than the child, but for ``given`` cells (-1: not given).
    Without it everything in ``codes`` is visible, UNKNOWN where nothing is decided yet.
    """
    source = neighbours(grid, distances, codes.device)[child]
    patches = F.pad(grid.split(codes), (0, 0, 0, 0, 0, 1), value=unknown + 1)  # beyond the roll: OUTSIDE
    found = patches[region[:, None], source]
    if steps is None:
        return found
    earlier = F.pad(steps, (0, 1), value=-1)[region[:, None], source] < steps[region, child][:, None]
    visible = earlier[..., None, None]
    if given is not None:
        visible = visible | (F.pad(grid.split(given), (0, 0, 0, 0, 0, 1))[region[:, None], source] >= 0)
    return torch.where(visible, found, unknown)


def find_returned(
    grid: Grid,
    codes: Int[Tensor, "b p t"],
    bank: Int[Tensor, "b p t"],
    returns: Int[Tensor, "b c"],
    region: Int[Tensor, "*m"],
    child: Int[Tensor, "*m"],
    unknown: int,
    steps: Int[Tensor, "b n"] | None = None,
    given: Int[Tensor, "b p t"] | None = None,
    sees: Bool[Tensor, "b i n"] | None = None,
) -> Int[Tensor, "*m h w"]:
    """The patches that some first-level children come back to; unknown where there is none, or not yet.

    ``returns``, ``bank``: see :class:`.plans.Plans`; what lies in the bank is known.  ``steps``, ``given``: as for
    :func:`find_long_context`.  ``sees``: in place of steps, which children each child sees, see
    :class:`.teacher_forcing.Pass`.
    """
    column, row = columns_and_rows(grid, codes.device)
    source = returns[region, column[child]]
    inside = (source >= 0) & (source < grid.cols)
    number = numbers(grid, codes.device)[row[child], source.clamp(0, grid.cols - 1)]
    found = torch.where(inside[..., None, None], grid.split(codes)[region, number], grid.split(bank)[region, child])
    visible = (source >= grid.cols)[..., None, None] | inside[..., None, None]
    if steps is not None or sees is not None:
        if sees is not None:
            batch, rows = sees.shape[:2]
            earlier = sees[region if batch > 1 else 0, child if rows > 1 else 0, number][..., None, None]
        else:
            assert steps is not None
            earlier = (steps[region, number] < steps[region, child])[..., None, None]
        if given is not None:
            earlier = earlier | (grid.split(given)[region, number] >= 0)
        visible = visible & (earlier | ~inside[..., None, None])
    return torch.where(visible, found, unknown)

"""Echoes: what the levels below the first know of music far away.

A window around a patch cannot show that this bar repeats the one four bars ago, and what the first level makes of whole
patches is too coarse to copy from.  So the first level hands down to each of its children the cells at the same pitches
some patches earlier (and later, where it is MAR), as far as they are decided when the child is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from fractalgen.model.grid import Grid, neighbours


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

"""Summaries of the notes so far: what a level below the first cannot see in the windows around its children.

A window shows nearby pitches, the long context the same pitches in other bars.  Both hide how loud a register has been
over the last bars, and what sounds at the same step in another octave.  So the first level hands down to each of its
children six more layers of cells, written in the codes of the roll:

- what sounds at the same step on the same pitch class, in the patches of the column that are decided;
- the mean velocity of all notes that are struck at the same step there;
- the mean velocity of the notes struck in earlier columns, at most :data:`NEAR` semitones away: in the last column, in
  the last four, and in all of them;
- the velocity with which the same pitch was last struck in an earlier column.

Where there is no such note, a cell is unknown.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from fractalgen.config import ModelConfig
from fractalgen.model.grid import Grid
from fractalgen.model.long_context import columns_and_rows, numbers
from fractalgen.music.tokens import ONSET, SILENCE

SUMMARIES = ("octaves", "step", "last column", "four columns", "all columns", "same pitch")
REACH = (1, 4, 10**6)  # columns that the three means look back
NEAR = 6  # semitones
OCTAVE = 12


def long_context_layers(config: ModelConfig) -> tuple[int | str, ...]:
    """What the layers of the long context are, in their order: distances in columns, and names of summaries."""
    return (*config.echoes, *(SUMMARIES if config.summaries else ()))


def find_summaries(
    grid: Grid,
    codes: Int[Tensor, "b p t"],
    region: Int[Tensor, " m"],
    child: Int[Tensor, " m"],
    unknown: int,
    steps: Int[Tensor, "b n"] | None = None,
    given: Int[Tensor, "b p t"] | None = None,
) -> Int[Tensor, "m e h w"]:
    """The layers of :data:`SUMMARIES` for some first-level children, each a (region, child) of the rolls in ``codes``.

    ``steps``, ``given``: what is visible, see :func:`.find_long_context`.
    """
    column, row = columns_and_rows(grid, codes.device)
    patches = grid.split(codes)
    known = None if given is None or steps is None else grid.split(torch.where(given >= 0, codes, unknown))
    earlier = None if steps is None else steps[region] < steps[region, child][:, None]

    def at(place: Int[Tensor, "m c"], of: Tensor, of_known: Tensor | None, nothing: int) -> Tensor:
        """What belongs to some patches of each region, as far as the child sees it."""
        found = of[region[:, None], place]
        if earlier is None:
            return found
        hidden = found.new_tensor(nothing) if of_known is None else of_known[region[:, None], place]
        return torch.where(earlier.gather(1, place)[(..., *[None] * (found.ndim - 2))], found, hidden)

    table = numbers(grid, codes.device)  # (rows, columns): the number of a patch
    own_column = at(table.T[column[child]], patches, known, unknown).flatten(1, 2)
    layers = [octaves(own_column, row[child], grid.patch, unknown), struck_together(own_column, grid.patch, unknown)]

    everywhere = table.flatten().expand(len(child), -1)
    notes = at(everywhere, struck(patches, unknown), None if known is None else struck(known, unknown), 0)
    notes = notes.unflatten(1, (grid.rows, grid.cols))  # m r c h 3
    back = column[child][:, None] - torch.arange(grid.cols, device=codes.device)
    reach = torch.stack([(back > 0) & (back <= columns) for columns in REACH], 1)
    means = mean_velocities(notes, reach, unknown).unflatten(2, (grid.rows, grid.patch))
    mine = torch.arange(len(child), device=codes.device)
    last = last_velocity(notes[mine, row[child], ..., 2], back > 0, unknown)
    flat = torch.cat([means[mine, :, row[child]], last[:, None]], 1)
    return torch.cat([torch.stack(layers, 1), flat[..., None].expand(-1, -1, -1, grid.patch)], 1)


def struck(patches: Int[Tensor, "b n h w"], unknown: int) -> Int[Tensor, "b n h 3"]:
    """Of each pitch of each patch: notes that are struck, the sum of their velocity bins, the code of the last one."""
    onset = (patches >= ONSET) & (patches < unknown)
    when = onset * torch.arange(1, patches.shape[3] + 1, device=patches.device)
    last = patches.gather(3, when.argmax(3, keepdim=True))[..., 0] * onset.any(3)
    return torch.stack([onset.sum(3), ((patches - ONSET) * onset).sum(3), last.to(when)], 3)


def octaves(cells: Int[Tensor, "m p w"], row: Int[Tensor, " m"], patch: int, unknown: int) -> Int[Tensor, "m h w"]:
    """The highest code of the same pitch class at each step of a column (a note struck, or else held, or silence)."""
    seen = cells.masked_fill(cells >= unknown, -1)
    classes = F.pad(seen, (0, 0, 0, -seen.shape[1] % OCTAVE), value=-1).unflatten(1, (-1, OCTAVE)).amax(1)
    mine = (patch * row[:, None] + torch.arange(patch, device=row.device)) % OCTAVE
    found = classes.gather(1, mine[..., None].expand(-1, -1, cells.shape[2]))
    return found.masked_fill(found < 0, unknown)


def struck_together(cells: Int[Tensor, "m p w"], patch: int, unknown: int) -> Int[Tensor, "m h w"]:
    """The mean velocity of what is struck at each step of a column, the same at all pitches; silence if nothing is."""
    onset = (cells >= ONSET) & (cells < unknown)
    code = mean_code(onset.sum(1), ((cells - ONSET) * onset).sum(1), unknown)
    silent = (code == unknown) & (cells < unknown).any(1)
    return code.masked_fill(silent, SILENCE)[:, None].expand(-1, patch, -1).to(cells)


def mean_velocities(
    notes: Int[Tensor, "m r c h 3"], reach: Bool[Tensor, "m k c"], unknown: int
) -> Int[Tensor, "m k p"]:
    """The mean velocity around each pitch over the columns in ``reach``."""
    total = torch.einsum("mkc,mrchs->mskrh", reach.float(), notes[..., :2].float()).flatten(3)
    near = F.avg_pool1d(total.flatten(0, 2)[:, None], 2 * NEAR + 1, 1, NEAR) * (2 * NEAR + 1)
    count, velocity = near.view(total.shape).round().unbind(1)
    return mean_code(count, velocity, unknown).to(notes)


def mean_code(count: Tensor, velocity: Tensor, unknown: int) -> Tensor:
    """The code of an onset with the mean of so many velocity bins."""
    mean = (velocity / count.clamp(min=1)).round().long() + ONSET
    return mean.masked_fill(count == 0, unknown)


def last_velocity(last: Int[Tensor, "m c h"], before: Bool[Tensor, "m c"], unknown: int) -> Int[Tensor, "m h"]:
    """The code of the last note on each pitch among the columns ``before``."""
    order = torch.arange(1, last.shape[1] + 1, device=last.device)[:, None]
    when = (order * (last > 0) * before[..., None]).amax(1)
    found = last.gather(1, (when - 1).clamp(min=0)[:, None])[:, 0]
    return found.masked_fill(when == 0, unknown)

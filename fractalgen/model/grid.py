"""Where things are: patches of a region, their scan order, and the windows of cells around them.

A *canvas* is a region of cells with a margin of known surroundings.  Its codes are the tokens of the vocabulary and
two more: UNKNOWN (not decided yet) and OUTSIDE (beyond the roll).  Rectangles only: no square root of anything.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Int, Shaped
from torch import Tensor

from fractalgen.config import ScanOrder


class Margin(NamedTuple):
    """How many cells a canvas reaches beyond its region: pitches below and above, steps before, steps after."""

    pitch: int = 0
    past: int = 0
    future: int = 0

    def union(self, other: Margin) -> Margin:
        """The smallest margin that covers both."""
        return Margin(*map(max, self, other))


class Grid(NamedTuple):
    """``rows x cols`` patches of ``patch`` pitches and ``steps``, in scan order from the lowest pitch and step on.

    ``column_major`` takes all pitches of a time column, then the next column; ``row_major`` all times of a pitch row.
    """

    rows: int
    cols: int
    patch: int
    steps: int
    order: ScanOrder = "column_major"

    def __len__(self) -> int:
        """Number of patches."""
        return self.rows * self.cols

    def split(self, region: Shaped[Tensor, "b p t"]) -> Shaped[Tensor, "b n h w"]:
        """Cut regions into their patches."""
        # views, not einops, here and below: a sampling step is so small that their microseconds count
        cells = region.unflatten(2, (self.cols, self.steps)).unflatten(1, (self.rows, self.patch))  # b r h c w
        return cells.permute((0, 3, 1, 2, 4) if self.order == "column_major" else (0, 1, 3, 2, 4)).flatten(1, 2)

    def split_layers(self, layers: Shaped[Tensor, "b e p t"]) -> Shaped[Tensor, "b n e h w"]:
        """Cut several layers over each region into patches."""
        cells = layers.unflatten(3, (self.cols, self.steps)).unflatten(2, (self.rows, self.patch))  # b e r h c w
        order = (0, 4, 2, 1, 3, 5) if self.order == "column_major" else (0, 2, 4, 1, 3, 5)
        return cells.permute(order).flatten(1, 2)

    def join(self, patches: Shaped[Tensor, "b n h w"]) -> Shaped[Tensor, "b p t"]:
        """Inverse of :meth:`split`."""
        if self.order == "column_major":
            cells = patches.unflatten(1, (self.cols, self.rows)).permute(0, 2, 3, 1, 4)
        else:
            cells = patches.unflatten(1, (self.rows, self.cols)).permute(0, 1, 3, 2, 4)
        return cells.flatten(3, 4).flatten(1, 2)

    def corner(self, patch: int) -> tuple[int, int]:
        """The lowest pitch row and the first step of a patch."""
        inner = self.rows if self.order == "column_major" else self.cols
        outer, place = divmod(patch, inner)
        row, column = (place, outer) if self.order == "column_major" else (outer, place)
        return row * self.patch, column * self.steps

    def number(self, table: Shaped[Tensor, "r c ..."]) -> Shaped[Tensor, "n ..."]:
        """What belongs to the patch in each row and column, as a list in scan order."""
        return (table.transpose(0, 1) if self.order == "column_major" else table).flatten(0, 1)

    def lowest(self, device: torch.device) -> Int[Tensor, " n"]:
        """The lowest pitch row of every patch."""
        rows = self.patch * torch.arange(self.rows, device=device)
        return self.number(rows[:, None].expand(self.rows, self.cols))


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is kept from sampling may be used in training
def windows(grid: Grid, canvas: Margin, window: Margin, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tables that cut a window out of a canvas around each patch.

    Returns ``(index, owner)``, both ``(n, h, w)``: the flat canvas position of each window cell, and the patch that
    this position belongs to (``n``: none, it lies in the canvas's margin).
    """
    if any(w > c for w, c in zip(window, canvas, strict=True)):
        raise ValueError(f"a window with margin {tuple(window)} does not fit in a canvas with margin {tuple(canvas)}")
    count, p, steps = len(grid), grid.patch, grid.steps
    width = grid.cols * steps + canvas.past + canvas.future
    owners = grid.join(torch.arange(count)[None, :, None, None].expand(1, count, p, steps))[0]
    owners = F.pad(owners, (canvas.past, canvas.future, canvas.pitch, canvas.pitch), value=count)
    top = canvas.pitch - window.pitch + p * torch.arange(grid.rows)
    left = canvas.past - window.past + steps * torch.arange(grid.cols)
    rows = top[:, None, None, None] + torch.arange(p + 2 * window.pitch)[:, None]
    cols = left[:, None, None] + torch.arange(steps + window.past + window.future)
    index = grid.number(rows * width + cols)
    return index.to(device), owners.flatten()[index].to(device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def earlier(grid: Grid, canvas: Margin, window: Margin, own: bool, device: torch.device) -> Int[Tensor, "n h w"]:
    """As :func:`windows`, but cells of patches that come later in scan order point behind the canvas.

    ``own``: a patch's own cells stay; otherwise they count as later.
    """
    index, owner = windows(grid, canvas, window, device)
    height, width = grid.rows * grid.patch, grid.cols * grid.steps
    size = (height + 2 * canvas.pitch) * (width + canvas.past + canvas.future)
    rank = torch.arange(len(grid), device=device)[:, None, None]
    hidden = (owner > rank if own else owner >= rank) & (owner < len(grid))
    return index.masked_fill(hidden, size)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def columns_and_rows(grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
    """The column and the row of each patch, by its number."""
    row, column = torch.meshgrid(torch.arange(grid.rows), torch.arange(grid.cols), indexing="ij")
    return grid.number(column).to(device), grid.number(row).to(device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def numbers(grid: Grid, device: torch.device) -> Int[Tensor, "r c"]:
    """The number of the patch in each row and column."""
    place = torch.arange(len(grid)).view(grid.rows, grid.cols)
    return grid.number(place).argsort().view(grid.rows, grid.cols).to(device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def neighbours(grid: Grid, columns: tuple[int, ...], device: torch.device) -> Int[Tensor, "n e"]:
    """The patch in the same row some ``columns`` earlier (negative: later) than each patch; ``n`` where none is."""
    padding = max(map(abs, columns))
    padded = F.pad(numbers(grid, device), (padding, padding), value=len(grid))
    shifted = [padded[:, padding - shift : padding - shift + grid.cols] for shift in columns]
    return grid.number(torch.stack(shifted, -1))


def cut(canvas: Int[Tensor, "b ch cw"], index: Int[Tensor, "*n h w"]) -> Int[Tensor, "b *n h w"]:
    """Windows of every canvas at the positions of ``index``."""
    return canvas.flatten(1)[:, index]


def surround(region: Int[Tensor, "b p t"], margin: Margin, outside: int) -> Int[Tensor, "b ch cw"]:
    """A whole roll as a canvas: beyond it there is OUTSIDE."""
    return F.pad(region, (margin.past, margin.future, margin.pitch, margin.pitch), value=outside)


def interior(canvas: Int[Tensor, "b ch cw"], margin: Margin) -> Int[Tensor, "b p t"]:
    """The region inside a canvas (a view: writing to it writes to the canvas)."""
    return canvas[:, margin.pitch : canvas.shape[1] - margin.pitch, margin.past : canvas.shape[2] - margin.future]

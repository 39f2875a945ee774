"""The roll itself as pixels, and what lies behind its notes."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import HOLD, ONSET, SILENCE, velocities
from fractalgen.render.colours import KNOWN, LINE, RAMP, Pixels
from fractalgen.trace.views import Frame

Cells: TypeAlias = NDArray[np.bool_]
Source: TypeAlias = PianoRoll | Frame | NDArray[np.floating]

HOLD_SHADE = 0.86  # held cells are a little darker than the cell that strikes: a note reads as one, restrikes show


def plane_of(source: Source) -> NDArray[np.floating]:
    """Velocities (or chances) in 0..1, (128, T)."""
    if isinstance(source, PianoRoll):
        return velocities(source.tokens, source.velocity_bins)
    return source.output if isinstance(source, Frame) else source


def tokens_of(source: Source) -> NDArray[np.uint8] | None:
    """The cells themselves, where they are at hand."""
    return None if isinstance(source, np.ndarray) else source.tokens


def roll_pixels(
    plane: NDArray[np.floating],
    tokens: NDArray[np.uint8] | None,
    scale: int,
    known: Cells | None = None,
    behind: Pixels | None = None,
) -> Pixels:
    """Cells as palette indices, pitch 0 at the bottom, ``scale`` pixels a cell.

    Where ``tokens`` are at hand, holds are darker and a note struck again shows a fine gap.  ``known`` cells (bool,
    like ``plane``) have their own ramp; None uses the whole ramp for all.  ``behind`` is a picture of the same size as
    the result that shows in silent cells, 0 being nothing.
    """
    shade = np.clip(plane if tokens is None else np.where(tokens == HOLD, plane * HOLD_SHADE, plane), 0, 1)
    if known is None:
        cells = np.rint(shade * (RAMP - 1)).astype(np.uint8)
    else:
        given = KNOWN + np.rint(shade * (LINE - 1 - KNOWN))
        cells = np.where(known & (shade > 0), given, np.rint(shade * (KNOWN - 1))).astype(np.uint8)
    height, width = cells.shape
    pixels = cells[::-1].repeat(scale, 1).repeat(scale, 0).reshape(height, scale, width, scale)
    if behind is not None:
        np.copyto(pixels, behind.reshape(pixels.shape), where=pixels == 0)
    if scale > 2:
        fine = max(1, scale // 6)
        if tokens is not None:
            struck_again = np.zeros(cells.shape, bool)
            struck_again[:, 1:] = (tokens[:, 1:] >= ONSET) & (tokens[:, :-1] != SILENCE)
            pixels[..., :fine] *= ~struck_again[::-1, None, :, None]
        if known is not None:
            _draw_boundary(pixels, known, ~known & (cells == 0), fine)
    return pixels.reshape(height * scale, width * scale)


def outline(pixels: Pixels, corner: tuple[int, int], size: tuple[int, int], thick: int, colour: int) -> None:
    """Draw a frame, in place; ``corner`` (row, column) and ``size`` (rows, columns) are its inside's, in pixels."""
    (top, left), (high, wide) = corner, size
    height, width = pixels.shape
    rows = slice(max(0, top - thick), min(height, top + high + thick))
    columns = slice(max(0, left - thick), min(width, left + wide + thick))
    for line in range(1, thick + 1):
        for row in (top - line, top + high - 1 + line):
            if 0 <= row < height:
                pixels[row, columns] = colour
        for column in (left - line, left + wide - 1 + line):
            if 0 <= column < width:
                pixels[rows, column] = colour


def _draw_boundary(pixels: Pixels, known: Cells, free: Cells, fine: int) -> None:
    """Draw the line round what was composed, just inside it and behind its notes: only in ``free`` cells.

    ``pixels`` is (128, scale, T, scale), highest pitch first, and changed in place; nothing is known beyond the edge.
    """
    around = np.pad(known, 1)
    every, first, last = slice(None), slice(fine), slice(-fine, None)
    for neighbour, rows, columns in (
        (around[2:, 1:-1], first, every),  # the pitch above
        (around[:-2, 1:-1], last, every),
        (around[1:-1, :-2], every, first),  # the step before
        (around[1:-1, 2:], every, last),
    ):
        edge = pixels[:, rows, :, columns]
        edge[:] = np.where((free & neighbour)[::-1, None, :, None], np.uint8(LINE), edge)

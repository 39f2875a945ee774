"""The layout that all frames of one animation share.

From top to bottom: title, label strip, bar numbers, sections and chords, the roll, progress bar.  From left to right:
names of the Cs, keyboard, the roll, patches enlarged, the scale of the colours.  Text has separate places and never
covers notes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fractalgen.config import RenderConfig
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.plan import Span
from fractalgen.render.colours import INK, RAMP, Pixels, on_silence, palette
from fractalgen.render.furniture import (
    bar_numbers,
    blank,
    colour_bar,
    grid_lines,
    heading,
    keyboard,
    octave_names,
    write,
)
from fractalgen.render.lane import lane_pixels
from fractalgen.render.roll import Cells, Source, outline, plane_of, roll_pixels, tokens_of
from fractalgen.render.text import fitting, label
from fractalgen.trace.views import STEPS_PER_BAR, Frame, ZoomedPatch

MARKS = {"velocity": ("0", "64", "127"), "chance": ("0", "0.5", "1")}
OUTLINE, UNDECIDED, CHILDREN = 0.75, 0.22, 0.1  # how far marks of the levels view stand out from silence


class Canvas:
    """Where everything lies, and the drawing of one frame after the other.

    Attributes:
        colours: the palette, uint8 (256, 3).
        width, height: pixels of the whole picture.
        span: pixels of the whole roll from left to right.
        view: of these, how many are seen at once.
    """

    def __init__(
        self,
        last: Source,
        cfg: RenderConfig,
        known: Cells | None = None,
        *,
        widest: int = 0,
        tinted: bool = False,
        lane: Sequence[Span] = (),
    ) -> None:
        """Lay out a picture like ``last``, whose label is taken to be the longest and whose known cells are all's.

        Args:
            last: a frame, a roll or a plane of velocities.
            cfg: what to draw.
            known: bool (128, T), for what is no frame.
            widest: the picture is at most so many pixels wide, and shows a part of the roll (0: all of it).
            tinted: share a palette with pictures that have known cells.
            lane: sections and chords above the roll, for what is no frame.
        """
        frame = last if isinstance(last, Frame) else None
        self.pitches, self.steps = shape = _shape(last)
        self.known = _known_cells(shape, frame.known if frame else known, tinted)
        self.cfg, self.scale = cfg, cfg.gif_scale
        light = cfg.gif_theme == "light"
        self.colours = palette(cfg.gif_cmap, cfg.gif_background, known=self.known is not None, light=light)
        self.span = self.steps * self.scale
        small = max(8.0, 0.75 * cfg.gif_font_size)
        left, right = self._sides(frame, small)
        bars = _bars(last) if cfg.gif_grid else []
        self.grid = grid_lines(self.pitches, self.steps, self.scale, bars, self.colours) if bars else None
        above = bar_numbers(bars, self.steps, self.scale, small) if bars else blank(0, self.span)
        shown = () if cfg.no_gif_plan else frame.lane if frame else lane
        self.above = np.concatenate([above, lane_pixels(shown, self.steps, self.scale, small)])
        blocks = frame.blocks if frame else ()
        panels, panel_room, body = self._panels(blocks, small)
        around = sum(part.shape[1] for part in (*left, *right)) + panel_room
        self.view = min(self.span, max(1, widest - around)) if widest else self.span
        self.width = self.view + around
        self.margin = max(2, cfg.gif_font_size // 2)
        strip = 2 * round(0.95 * cfg.gif_font_size)
        title = round(2.4 * cfg.gif_font_size) if cfg.gif_title else 0
        self.strip = slice(title, title + (strip if frame and not cfg.no_gif_labels else 0))
        top = self.strip.stop + len(self.above)
        bar = max(3, self.scale) if frame and cfg.gif_progress_bar else 0
        self.height = top + body + bar
        self.bar = slice(self.height - bar + 1, self.height) if bar else None
        self.rows = slice(top, top + self.pitches * self.scale)
        start = sum(part.shape[1] for part in left)
        self.columns = slice(start, start + self.view)
        self.panels = [(top + self.rows.start, column + self.columns.stop, scale) for top, column, scale in panels]
        self.base = self._base(left, right, panel_room, blocks, small)
        self.font_size = self._fit(label(frame, cfg), cfg.gif_font_size) if frame else 0.0

    def draw(self, source: Source, offset: int = 0) -> Pixels:
        """Palette indices, uint8 (height, width), of the roll from ``offset`` pixels on."""
        return self.assemble(source, self.roll(source), offset)

    def roll(self, source: Source) -> Pixels:
        """The whole roll, (128 * scale, span), with the lines behind it."""
        behind = self.grid
        if isinstance(source, Frame) and source.blocks:
            behind = np.zeros((self.pitches * self.scale, self.span), np.uint8) if behind is None else behind.copy()
            for block in source.blocks:
                corner = ((self.pitches - block.pitch - block.size[0]) * self.scale, block.step * self.scale)
                thick = max(1, self.scale // 3)
                outline(behind, corner, enlarged(block, self.scale), thick, on_silence(self.colours, OUTLINE))
        return roll_pixels(plane_of(source), tokens_of(source), self.scale, self.known, behind)

    def assemble(self, source: Source, roll: Pixels, offset: int = 0) -> Pixels:
        """A picture of a roll that is drawn already, and of all that stands around it."""
        pixels = self.base.copy()
        seen = slice(offset, offset + self.view)
        pixels[self.rows, self.columns] = roll[:, seen]
        pixels[self.strip.stop : self.rows.start, self.columns] = self.above[:, seen]
        if isinstance(source, Frame):
            if self.strip.stop > self.strip.start:
                text = label(source, self.cfg)
                size = self._fit(text, self.font_size)
                write(pixels[self.strip], text, self.margin, (self.strip.stop - self.strip.start) // 2, size)
            if self.bar:
                pixels[self.bar, : round(self.width * source.progress)] = (RAMP + 2 * INK) // 3
            for block, (top, left, scale) in zip(source.blocks, self.panels, strict=False):
                panel = self._panel(source, block, scale)
                pixels[top : top + len(panel), left : left + len(panel)] = panel
        return pixels

    def _sides(self, frame: Frame | None, small: float) -> tuple[list[Pixels], list[Pixels]]:
        """What stands to the left and to the right of the roll, each as high as it."""
        left, right = [], []
        if self.cfg.gif_grid:
            left.append(octave_names(self.pitches, self.scale, small))
        if self.cfg.gif_keyboard:
            width = min(max(10, 7 * self.scale), 56)
            left.append(keyboard(self.pitches, self.scale, width, self.colours))
        if self.cfg.gif_color_bar:
            marks = MARKS[frame.shows if frame else "velocity"]
            right.append(colour_bar(self.pitches * self.scale, small, marks, self.known is not None))
        return left, right

    def _panels(self, blocks: Sequence[ZoomedPatch], small: float) -> tuple[list[tuple[int, int, int]], int, int]:
        """(row, column after the roll, scale) of every enlarged patch, their room, and the body's height.

        All panels are about as large: together, with their names, as high as the roll.
        """
        height = self.pitches * self.scale
        if not blocks:
            return [], 0, height
        gap, name = round(small), round(1.6 * small)
        side = height // len(blocks) - name - 1
        panels, widest, top = [], 0, 0
        for block in blocks:
            scale = max(2, (side - 2) // block.size[0])
            panels.append((top + name, gap, scale))
            widest = max(widest, block.size[1] * scale)
            top += name + block.size[0] * scale + 1
        return panels, widest + 2 * gap, max(height, top)

    def _base(
        self,
        left: list[Pixels],
        right: list[Pixels],
        panel_room: int,
        blocks: Sequence[ZoomedPatch],
        small: float,
    ) -> Pixels:
        """What all frames have in common."""
        pixels = blank(self.height, self.width)
        if self.cfg.gif_title:
            pixels[: self.strip.start] = heading(self.cfg.gif_title, self.width, self.cfg.gif_font_size, 1.3)
        for at, parts in ((0, left), (self.columns.stop + panel_room, right)):
            if parts:
                beside = np.concatenate(parts, axis=1)
                pixels[self.rows, at : at + beside.shape[1]] = beside
        name = round(1.6 * small)
        for block, (top, column, scale) in zip(blocks, self.panels, strict=True):
            outline(pixels, (top, column), enlarged(block, scale), 1, (2 * RAMP + INK) // 3)
            text = f"L{block.level}  {block.size[0]} x {block.size[1]}"
            write(pixels[top - name : top], text, column, name // 2 - 1, small)
        return pixels

    def _panel(self, frame: Frame, block: ZoomedPatch, scale: int) -> Pixels:
        """An enlarged patch; undecided cells differ from silence, and the next smaller patch is marked."""
        high, wide = block.size
        here = (slice(block.pitch, block.pitch + high), slice(block.step, block.step + wide))
        behind = np.zeros(enlarged(block, scale), np.uint8)
        if frame.open is not None:
            undecided = frame.open[here][::-1].repeat(scale, 0).repeat(scale, 1)
            behind[undecided] = on_silence(self.colours, UNDECIDED)
        smaller = [other for other in frame.blocks if other.level == block.level + 1]
        rows, columns = enlarged(smaller[0], scale) if smaller else (scale, scale)
        if min(rows, columns) > 4:
            behind[::rows] = behind[:, ::columns] = on_silence(self.colours, CHILDREN)
        for other in smaller:
            top = (block.pitch + high - other.pitch - other.size[0]) * scale
            corner = (top, (other.step - block.step) * scale)
            outline(behind, corner, enlarged(other, scale), max(1, scale // 6), on_silence(self.colours, OUTLINE))
        tokens = None if frame.tokens is None else frame.tokens[here]
        known = None if self.known is None else self.known[here]
        return roll_pixels(frame.output[here], tokens, scale, known, behind)

    def _fit(self, text: str, size: float) -> float:
        """The font size at which a text fits above the picture."""
        return fitting(text, size, max(1, self.width - 2 * self.margin))


def enlarged(block: ZoomedPatch, scale: int) -> tuple[int, int]:
    """Pixels that a patch is high and wide."""
    high, wide = block.size
    return high * scale, wide * scale


def _shape(source: Source) -> tuple[int, int]:
    """Pitches and steps of one sample."""
    shape = plane_of(source).shape
    if len(shape) != 2:
        raise ValueError(f"one sample is drawn at a time: (128, T), not {shape}")
    return shape[0], shape[1]


def _known_cells(shape: tuple[int, int], known: Cells | None, tinted: bool) -> Cells | None:
    """The known cells, if there are any; none of them, where the palette has their colours all the same."""
    if known is not None and known.shape != shape:
        raise ValueError(f"known cells {known.shape} of a roll {shape}")
    if known is not None and known.any():
        return known
    return np.zeros(shape, bool) if tinted else None


def _bars(source: Source) -> list[int]:
    """Steps at which bars begin."""
    if isinstance(source, PianoRoll):
        return [int(step) for step in source.downbeats()]
    if isinstance(source, Frame) and source.bars is not None:
        return list(source.bars)
    every = source.steps_per_bar if isinstance(source, Frame) else STEPS_PER_BAR
    return list(range(0, plane_of(source).shape[1], every))

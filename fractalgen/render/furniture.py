"""What stands around the roll and behind its notes: keyboard, names, bar lines, the scale of colours."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from fractalgen.render.colours import INK, KNOWN, LINE, RAMP, Pixels, grey, on_silence
from fractalgen.render.text import fitting, pitch_name, text_mask, text_width

BLACK_KEYS = (1, 3, 6, 8, 10)
BLACK_LENGTH = 0.6  # of a white key
BAR_LINE, OCTAVE_LINE = 0.3, 0.14  # how far lines stand out from silence


def blank(height: int, width: int) -> Pixels:
    """Empty paper."""
    return np.full((height, width), RAMP, np.uint8)


def write(pixels: Pixels, text: str, left: int, middle: int, size: float) -> None:
    """Write a line of text on paper, in place; what does not fit is cut off."""
    height = min(pixels.shape[0], round(2 * size))
    mask = text_mask(text, size, height)
    top = min(max(0, middle - height // 2), pixels.shape[0] - height)
    room = pixels[top : top + height, left : left + mask.shape[1]]
    letters = RAMP + mask[:, : room.shape[1]].astype(np.uint16) * (INK - RAMP) // 255
    np.maximum(room, letters.astype(np.uint8), out=room)


def heading(text: str, width: int, font_size: int, letters: float) -> Pixels:
    """A title, (2.4 * font_size, width); its letters are at most ``letters`` times as large as others, and fit in."""
    pixels = blank(round(2.4 * font_size), width)
    margin = max(2, font_size // 2)
    size = fitting(text, letters * font_size, max(1, width - 2 * margin))
    write(pixels, text, margin, len(pixels) // 2, size)
    return pixels


def keyboard(pitches: int, scale: int, width: int, colours: Pixels) -> Pixels:
    """Piano keys, (pitches * scale, width), the lowest at the bottom; black keys end before the roll."""
    white, black, seam = grey(colours, 228), grey(colours, 24), grey(colours, 150)
    keys = np.full((pitches, scale, width), white, np.uint8)
    short = round(width * BLACK_LENGTH)
    for pitch in range(pitches):
        key = keys[pitches - 1 - pitch]
        if pitch % 12 in BLACK_KEYS:
            if scale > 2:
                key[scale // 2, short:] = seam
            key[:, :short] = black
        elif scale > 2 and pitch % 12 in (0, 5):  # no black key below
            key[-1] = seam
    pixels = keys.reshape(pitches * scale, width)
    pixels[:, -1] = seam
    return pixels


def octave_names(pitches: int, scale: int, size: float) -> Pixels:
    """The names of the Cs, each beside its row, (pitches * scale, as wide as needed)."""
    size = min(size, 10 * scale)  # an octave has room for one line
    names = {pitch: pitch_name(pitch) for pitch in range(0, pitches, 12)}
    if scale < 2:
        del names[0]  # the lowest row has no room for a name beside it
    pixels = blank(pitches * scale, max([0, *(text_width(name, size) for name in names.values())]) + round(size / 2))
    for pitch, name in names.items():
        left = pixels.shape[1] - round(size / 4) - text_width(name, size)
        write(pixels, name, left, round((pitches - pitch - 0.5) * scale), size)
    return pixels


def bar_numbers(bars: Sequence[int], width: int, scale: int, size: float) -> Pixels:
    """The numbers of bars above their lines, as many as fit, (2 * size, width * scale)."""
    pixels = blank(round(1.6 * size), width * scale)
    needed = text_width(str(len(bars)), size) + round(size / 2)
    room = min((after - before for before, after in pairwise(bars)), default=width) * scale
    every = 1
    while every * room < needed:
        every *= 2
    for index in range(0, len(bars), every):
        left = bars[index] * scale
        if left + text_width(str(index + 1), size) <= pixels.shape[1]:
            write(pixels, str(index + 1), left, len(pixels) // 2, size)
    return pixels


def grid_lines(pitches: int, width: int, scale: int, bars: Sequence[int], colours: Pixels) -> Pixels:
    """Fine lines at the beginning of bars and below every C, (pitches * scale, width * scale), 0 elsewhere."""
    pixels = np.zeros((pitches * scale, width * scale), np.uint8)
    if scale > 2:  # a line below would fill a row of cells
        pixels[scale * pitches - 1 :: -12 * scale] = on_silence(colours, OCTAVE_LINE)
    pixels[:, [step * scale for step in bars if 0 < step < width]] = on_silence(colours, BAR_LINE)
    return pixels


def colour_bar(height: int, size: float, marks: Sequence[str], known: bool) -> Pixels:
    """The scale of the colours, the loudest at the top, with ``marks`` from bottom to top, (height, its width).

    Where cells are ``known`` their colours stand beside those of composed ones.
    """
    gap, bar = round(size / 2), max(4, round(size * 0.8))
    text_room = max(text_width(mark, size) for mark in marks)
    pixels = blank(height, gap + bar + gap // 2 + text_room + gap // 2)
    share = np.linspace(1, 0, height)[:, None]
    pixels[:, gap : gap + bar] = np.rint(share * ((KNOWN if known else RAMP) - 1))
    if known:
        pixels[:, gap + bar // 2 : gap + bar] = KNOWN + np.rint(share * (LINE - 1 - KNOWN))
    for index, mark in enumerate(marks):
        middle = round((height - 1) * (1 - index / (len(marks) - 1)))
        write(pixels, mark, gap + bar + gap // 2, middle, size)
    return pixels

"""What is written in pictures: pitch names, labels, and letters as pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fractalgen.config import RenderConfig
from fractalgen.music.chords import SHARPS
from fractalgen.music.measures import note_count, notes_per_bar, sounding_pitches
from fractalgen.trace.views import Frame

SMALLEST = 6.0  # pixels: what is smaller cannot be read


def pitch_name(pitch: int) -> str:
    """The name of a MIDI pitch; 60 is C4."""
    return f"{SHARPS[pitch % 12]}{pitch // 12 - 1}"


def label(frame: Frame, cfg: RenderConfig) -> str:
    """What the strip above a frame says."""
    parts = [frame.level_name]
    if cfg.gif_steps and frame.steps:
        parts.append(f"step {frame.step}/{frame.steps}")
    if cfg.gif_elapsed and frame.elapsed is not None:
        parts.append(f"{frame.elapsed:.1f} s")
    if cfg.gif_stats and frame.tokens is not None:
        parts.append(statistics(frame.tokens, frame.steps_per_bar))
    return "   ".join(parts)


def statistics(tokens: NDArray[np.uint8], steps_per_bar: int) -> str:
    """Number of notes, notes a bar and the range of pitches of a roll (128, T)."""
    pitches = sounding_pitches(tokens)
    spread = f", {pitch_name(int(pitches[0]))} to {pitch_name(int(pitches[-1]))}" if len(pitches) else ""
    return f"{note_count(tokens)} notes, {notes_per_bar(tokens, steps_per_bar):.1f} a bar{spread}"


def text_width(text: str, size: float) -> int:
    """Pixels that a line of text takes."""
    return int(np.ceil(font(size).getlength(text)))


def fitting(text: str, size: float, room: int) -> float:
    """The font size, at most ``size``, at which a line of text fits into so many pixels."""
    return max(SMALLEST, min(size, size * room / max(font(size).getlength(text), 1)))


def text_mask(text: str, size: float, height: int) -> NDArray[np.uint8]:
    """A line of text as coverage 0..255, (height, its width), in the middle of the height."""
    letters = font(size)
    top, bottom = (letters.getbbox("Hg")[side] for side in (1, 3))  # one base line, whatever the letters
    mask = Image.new("L", (max(1, text_width(text, size)), height))
    ImageDraw.Draw(mask).text((0, (height - (bottom - top)) // 2 - top), text, fill=255, font=letters)
    return np.asarray(mask)


@lru_cache
def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font: no file of the system is needed; where Pillow lacks FreeType it has one size only."""
    try:
        return ImageFont.load_default(size)
    except ImportError:
        return ImageFont.load_default()

"""The lane above the roll: sections, and under them chords."""

from __future__ import annotations

from collections.abc import Sequence

from fractalgen.music.plan import Span
from fractalgen.render.colours import INK, RAMP, Pixels
from fractalgen.render.furniture import blank, write
from fractalgen.render.text import fitting, text_width

BANDS = (0.28, 0.16)  # how far the bands of sections stand out from the paper, in turns
GAP = 1  # pixels between two bands


def lane_pixels(spans: Sequence[Span], width: int, scale: int, size: float) -> Pixels:
    """The lane, as high as it has rows of text and as wide as the roll of ``width`` steps.

    A name is written as small as it needs until the next one; where even that has no room, only its line stays.
    """
    height = round(1.6 * size)
    rows = sorted({span.row for span in spans})
    pixels = blank(height * len(rows), width * scale)
    shades = [RAMP + round(share * (INK - RAMP)) for share in BANDS]
    names: dict[str, int] = {}
    for span in spans:
        top = rows.index(span.row) * height
        left, right = span.start * scale, min(span.stop, width) * scale
        here = pixels[top : top + height, left : max(left, right - GAP)]
        if span.row == 0:
            here[: height - GAP] = shades[names.setdefault(span.text, len(names)) % len(shades)]
        else:
            here[:, :1] = shades[0]
        room = right - left - 2 * GAP
        fits = fitting(span.text, size, max(1, room))
        if text_width(span.text, fits) <= room:
            write(here, span.text, 2 * GAP if fits == size else GAP, height // 2, fits)
    return pixels

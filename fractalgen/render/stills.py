"""Still pictures: one roll or frame, numbered frames, and a poster of a piece and four stages of its making."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from fractalgen.config import RenderConfig, View
from fractalgen.files import replacing
from fractalgen.music.plan import Span
from fractalgen.render.animations import Film
from fractalgen.render.canvas import Canvas
from fractalgen.render.colours import RAMP, Pixels, coloured
from fractalgen.render.roll import Cells, Source
from fractalgen.trace import Trace
from fractalgen.trace.views import Frame

STAGES = 4


def image(source: Source, cfg: RenderConfig, known: Cells | None = None, lane: Sequence[Span] = ()) -> Image.Image:
    """Draw a finished roll or one frame.

    Args:
        source: a roll, a plane of velocities in 0..1 (128, T), or a frame, which brings its label strip along.
        cfg: size, colours and what stands around the roll.
        known: bool (128, T), cells that were given and not composed; a frame brings its own.
        lane: sections and chords to show above the roll; a frame brings its own.

    Returns:
        A palette picture (mode "P"): time to the right, pitch upward, ``gif_scale`` pixels a cell.
        ``numpy.asarray(picture.convert("RGB"))`` gives uint8 (height, width, 3).
    """
    canvas = Canvas(source, cfg, known, lane=lane)
    return coloured(canvas.draw(source), canvas.colours)


def save_png(
    source: Source, path: str | Path, cfg: RenderConfig, known: Cells | None = None, lane: Sequence[Span] = ()
) -> None:
    """Write :func:`image` as a PNG file."""
    _write(image(source, cfg, known, lane), path)


def poster(trace: Trace, cfg: RenderConfig, view: View = "hierarchical") -> Image.Image:
    """One picture (mode "P") of the finished roll, large, and four stages on the way to it, small."""
    return coloured(*poster_pixels(trace.frames(view), cfg))


def poster_pixels(
    frames: Sequence[Frame], cfg: RenderConfig, title: str | None = None, tinted: bool = False
) -> tuple[Pixels, Pixels]:
    """Palette indices (height, width) and colours (256, 3) of a poster; ``tinted`` as for :class:`Canvas`."""
    large = Canvas(frames[-1], replace(cfg, gif_title=title or cfg.gif_title), tinted=tinted)
    columns = min(STAGES, 1 << (cfg.gif_scale.bit_length() - 1))  # 4, or 2 or 1 where four would be wider than the roll
    small = RenderConfig(
        gif_scale=max(1, cfg.gif_scale // columns),
        gif_font_size=max(8, round(0.8 * cfg.gif_font_size)),
        gif_cmap=cfg.gif_cmap,
        gif_theme=cfg.gif_theme,
        gif_background=cfg.gif_background,
        no_gif_labels=cfg.no_gif_labels,
        no_gif_plan=True,  # the large picture shows it
    )
    gap = max(4, cfg.gif_font_size // 2)
    shown = stages(frames)
    pictures = [Canvas(frame, small, tinted=large.known is not None).draw(frame) for frame in shown]
    rows = [join(pictures[at : at + columns], gap) for at in range(0, len(pictures), columns)]
    return stack([large.draw(frames[-1]), *rows], gap), large.colours


def stages(frames: Sequence[Frame]) -> list[Frame]:
    """Up to four frames before the last: where a level ends, and else evenly spread."""
    last = len(frames) - 1
    depths = [frame.level for frame in frames]
    ends = [index for index in range(last) if depths[index] != depths[index + 1]][-STAGES:]
    spread = np.linspace(0, last, STAGES + 2).round().astype(int)[1:-1].tolist()
    chosen = {*ends, *[index for index in spread if index not in ends][: STAGES - len(ends)]}
    return [frames[index] for index in sorted(chosen - {last})]


def write_frames(pictures: Film, folder: str | Path) -> None:
    """Write every picture as ``frame_0000.png``, ...; numbered leftovers of a longer run are removed."""
    folder = Path(folder)
    for index, pixels in enumerate(pictures):
        save_pixels(pixels, pictures.colours, folder / f"frame_{index:04}.png")
    for old in folder.glob("frame_[0-9][0-9][0-9][0-9].png"):
        if int(old.stem[-4:]) >= pictures.length:
            old.unlink()


def write_last(pictures: Film, path: str | Path) -> None:
    """Write the last picture as a PNG file."""
    save_pixels(pictures.draw(pictures.length - 1), pictures.colours, path)


def join(pictures: Sequence[Pixels], gap: int) -> Pixels:
    """Pictures from left to right on paper, their tops in line."""
    height = max(len(picture) for picture in pictures)
    parts = [np.pad(p, ((0, height - len(p)), (0, gap)), constant_values=RAMP) for p in pictures]
    return np.concatenate(parts, axis=1)[:, :-gap]


def stack(pictures: Sequence[Pixels], gap: int) -> Pixels:
    """Pictures from top to bottom on paper."""
    width = max(picture.shape[1] for picture in pictures)
    parts = [np.pad(p, ((0, gap), (0, width - p.shape[1])), constant_values=RAMP) for p in pictures]
    return np.concatenate(parts)[:-gap]


def save_pixels(pixels: Pixels, colours: Pixels, path: str | Path) -> None:
    """Write palette indices (height, width) as a PNG file."""
    _write(coloured(pixels, colours), path)


def _write(picture: Image.Image, path: str | Path) -> None:
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")

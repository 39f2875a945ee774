"""Several traces in one animation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fractalgen.config import RenderConfig
from fractalgen.render.animations import Film, follow
from fractalgen.render.canvas import Canvas
from fractalgen.render.colours import Pixels
from fractalgen.render.furniture import blank, heading
from fractalgen.render.stills import join
from fractalgen.trace.views import Frame


def side_by_side(runs: Sequence[tuple[str, Sequence[Frame]]], cfg: RenderConfig, widest: int = 0) -> Film:
    """Runs from left to right under their names, all beginning and ending together.

    There are as many pictures as the run with most frames has; of every other run the frame that is as far along
    stands beside it.  ``widest``: the picture has at most so many pixels from left to right (0: no limit).
    """
    gap = max(8, cfg.gif_font_size)
    room = (widest - gap * (len(runs) - 1)) // len(runs) if widest else 0
    tinted = any(frames[-1].known is not None for _, frames in runs)
    canvases = [Canvas(frames[-1], replace(cfg, gif_title=name), widest=room, tinted=tinted) for name, frames in runs]
    drawers = [follow(frames, canvas) for (_, frames), canvas in zip(runs, canvases, strict=True)]
    length = max(len(frames) for _, frames in runs)
    width = sum(canvas.width for canvas in canvases) + gap * (len(runs) - 1)
    height = max(canvas.height for canvas in canvases)
    title = heading(cfg.gif_title, width, cfg.gif_font_size, 1.5) if cfg.gif_title else blank(0, width)

    def draw(index: int) -> Pixels:
        share = index / max(1, length - 1)
        parts = [one(round(share * (len(frames) - 1))) for one, (_, frames) in zip(drawers, runs, strict=True)]
        return np.concatenate([title, join(parts, gap)])

    return Film(cfg.gif_scale, canvases[0].colours, width, height + len(title), length, draw)


def names_of(paths: Sequence[str]) -> list[str]:
    """Names of traces: those of their files, with as many folders in front as it takes to tell them apart."""
    parts = [(*Path(path).parts[:-1], stem_of(path)) for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def stem_of(path: str) -> str:
    """The name of a trace file without its endings."""
    return Path(path).name.removesuffix(".npz").removesuffix(".trace")

"""Animations as files: GIF and APNG with indexed frames of what changed, and lossless WebP."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import GifImagePlugin, Image
from tqdm import tqdm

from fractalgen.config import RenderConfig
from fractalgen.errors import UserError
from fractalgen.files import replacing
from fractalgen.render.canvas import Canvas
from fractalgen.render.colours import SAME, Pixels
from fractalgen.trace.views import Frame

MAX_GIF_SIDE = 65535  # GIF stores its sides in 16 bits
MAX_WEBP_SIDE = 16383
LOOP_FOR_EVER = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"


@dataclass(frozen=True)
class Film:
    """Pictures that share a palette and a size, drawn when they are asked for; ``scale`` is pixels a cell."""

    scale: int
    colours: Pixels
    width: int
    height: int
    length: int
    draw: Callable[[int], Pixels]

    def __iter__(self) -> Iterator[Pixels]:
        for index in tqdm(range(self.length), desc="frames", unit="frame", dynamic_ncols=True, leave=False, delay=2):
            yield self.draw(index)


def film(frames: Sequence[Frame], cfg: RenderConfig, widest: int = 0) -> Film:
    """The pictures of some frames; wider ones than ``widest`` pixels show the part of the roll that changes."""
    canvas = Canvas(frames[-1], cfg, widest=widest)
    return Film(cfg.gif_scale, canvas.colours, canvas.width, canvas.height, len(frames), follow(frames, canvas))


def follow(frames: Sequence[Frame], canvas: Canvas) -> Callable[[int], Pixels]:
    """A way to draw frame by frame; where not all of the roll is seen, the middle of what changed is."""
    if canvas.view >= canvas.span:
        return lambda index: canvas.draw(frames[index])
    offset = 0

    def draw(index: int) -> Pixels:
        nonlocal offset
        frame = frames[index]
        if index:
            changed = np.flatnonzero((frame.output != frames[index - 1].output).any(axis=0))
            if len(changed):
                middle = int(changed.mean() * canvas.scale)
                offset = min(max(0, middle - canvas.view // 2), canvas.span - canvas.view)
        return canvas.draw(frame, offset)

    return draw


def delays(count: int, rate: float, unit: float) -> list[int]:
    """Durations of frames in ``1 / unit`` seconds, rounded so that their sum stays right."""
    return [round(unit * (index + 1) / rate) - round(unit * index / rate) for index in range(count)]


def write_gif(pictures: Film, path: str | Path, rate: float) -> None:
    """An animated GIF that loops for ever.

    Raises:
        UserError: the picture is too large for a GIF, or the file cannot be written.
    """
    _check_side(pictures, MAX_GIF_SIDE, "GIF")
    screen = struct.pack("<HHBBB", pictures.width, pictures.height, 0b1111_0111, 0, 0)  # a global table of 256 colours
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(b"GIF89a" + screen + pictures.colours.tobytes() + LOOP_FOR_EVER)
        before = None
        for pixels, delay in zip(pictures, delays(pictures.length, rate, 100), strict=True):
            part, top, left = what_changed(pixels, before)
            options = {"duration": 10 * delay, "disposal": 1, "transparency": SAME}
            file.write(b"".join(GifImagePlugin.getdata(Image.fromarray(part), (left, top), **options)))
            before = pixels
        file.write(b";")


def write_apng(pictures: Film, path: str | Path, rate: float) -> None:
    """An animated PNG that loops for ever (PNG specification, third edition, sections 11.3.6 and 12).

    Pillow would hold all frames in memory.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", pictures.width, pictures.height, 8, 3, 0, 0, 0))
        _chunk(file, b"PLTE", pictures.colours.tobytes())
        _chunk(file, b"tRNS", b"\xff" * SAME + b"\x00")
        _chunk(file, b"acTL", struct.pack(">II", pictures.length, 0))
        before, number = None, 0
        for pixels, delay in zip(pictures, delays(pictures.length, rate, 100), strict=True):
            part, top, left = what_changed(pixels, before)
            height, width = part.shape
            control = (number, width, height, left, top, delay, 100, 0, 1)  # leave it there; draw over what there is
            _chunk(file, b"fcTL", struct.pack(">IIIIIHHBB", *control))
            data = zlib.compress(np.pad(part, ((0, 0), (1, 0))).tobytes(), 6)  # filter 0 in front of every row
            if before is None:
                _chunk(file, b"IDAT", data)
            else:
                _chunk(file, b"fdAT", struct.pack(">I", number + 1) + data)
            number += 1 if before is None else 2
            before = pixels
        _chunk(file, b"IEND", b"")


def write_webp(pictures: Film, path: str | Path, rate: float) -> None:
    """A lossless animated WebP that loops for ever; equal frames in a row become one that lasts as long.

    Raises:
        UserError: the picture is too large for WebP, or the file cannot be written.
    """
    _check_side(pictures, MAX_WEBP_SIDE, "WebP")
    times = delays(pictures.length, rate, 1000)
    with replacing(path) as temporary:
        _Reel(pictures).save(
            temporary, format="WEBP", save_all=True, duration=times, loop=0, lossless=True, quality=50, method=1
        )


def what_changed(pixels: Pixels, before: Pixels | None) -> tuple[Pixels, int, int]:
    """The smallest part of a picture to draw over the one before, its unchanged pixels ``SAME``; its top and left."""
    if before is None:
        return pixels, 0, 0
    changed = pixels != before
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    if not len(rows):  # a frame without any change keeps its turn with a single transparent pixel
        return np.full((1, 1), SAME, np.uint8), 0, 0
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return np.where(changed[box], pixels[box], np.uint8(SAME)), int(rows[0]), int(columns[0])


class _Reel(Image.Image):
    """A film as Pillow sees animations: frames are drawn as it seeks, never held together."""

    def __init__(self, pictures: Film) -> None:
        super().__init__()
        self.pictures, self.n_frames, self.at = pictures, pictures.length, 0
        self._frames = iter(pictures)
        self._show(next(self._frames))

    def tell(self) -> int:
        """The frame that is shown."""
        return self.at

    def seek(self, frame: int) -> None:
        """Show the next frame; writers ask for them in order, and at the end for the first, which is not drawn."""
        if frame == self.at + 1:
            self.at = frame
            self._show(next(self._frames))

    def _show(self, pixels: Pixels) -> None:
        picture = Image.fromarray(self.pictures.colours[pixels])
        self._im, self._mode, self._size = picture.im, picture.mode, picture.size


def _check_side(pictures: Film, limit: int, name: str) -> None:
    side = max(pictures.width, pictures.height)
    if side > limit:
        raise UserError(f"--gif_scale {pictures.scale}: {side} pixels a side; a {name} has at most {limit}")


def _chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    """A part of a PNG file."""
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

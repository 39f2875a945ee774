"""Rolls and traces as pictures: PNG, GIF and MP4.

Everything is drawn as palette indices: a ramp of the colour map for velocities, a ramp for the text, and one index
that means "as in the frame before".  So pixels stay crisp, a GIF keeps every frame, and files stay small.

Where cells were given and not composed, their notes have a ramp of their own, in a muted tint, and a fine line runs
round what was composed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import GifImagePlugin, Image, ImageColor, ImageDraw, ImageFont

from fractalgen.config import RenderCommandConfig, RenderConfig
from fractalgen.errors import UserError
from fractalgen.files import replacing
from fractalgen.pianoroll import HOLD, ONSET, SILENCE, PianoRoll, velocities
from fractalgen.trace import Frame, Trace

Pixels: TypeAlias = NDArray[np.uint8]
Cells: TypeAlias = NDArray[np.bool_]
Source: TypeAlias = PianoRoll | Frame | NDArray[np.floating]

# The 256 colours: 0..223 velocity 0..1, 224..254 the label from its background to its ink, 255 transparent.
RAMP = 224
INK = 254
SAME = 255
# Where cells are known the 224 are shared: 0..127 velocity of composed notes, 128..222 of known ones, 223 the line.
KNOWN = 128
LINE = 223

# The tints of known notes, earthen and slate: a colour map lies far from one of them, even for a colour-blind viewer.
TINTS = ((158, 106, 76), (110, 146, 200))
FAINTEST = 0.8  # the share of the tint in the softest known note: soft ones would meet the colour map again

MAX_SIDE = 65535  # GIF stores its sides in 16 bits
MAX_GIF_FPS = 50.0  # GIF counts in 1/100 s, and browsers slow down delays below 2/100 s
HOLD_SHADE = 0.86  # held cells are a little darker than the cell that strikes: a note reads as one, restrikes show
LOOP_FOR_EVER = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"


def check_settings(cfg: RenderConfig) -> None:
    """Refuse settings that cannot be drawn, before any work is done.

    Raises:
        UserError: names the flag, its value and what is allowed.
    """
    for flag, value, low, high in (
        ("gif_fps", cfg.gif_fps, 0.01, MAX_GIF_FPS),
        ("gif_scale", cfg.gif_scale, 1, 64),
        ("gif_font_size", cfg.gif_font_size, 6, 200),
        ("gif_max_frames", cfg.gif_max_frames, 0, MAX_SIDE),
    ):
        if not low <= value <= high:
            raise UserError(f"--{flag} {value}: must be between {low} and {high}")
    palette(cfg.gif_cmap, cfg.gif_background)


def image(source: Source, cfg: RenderConfig, known: Cells | None = None) -> Image.Image:
    """Draw a finished roll or one frame.

    Args:
        source: a roll, a plane of velocities in 0..1 (128, T), or a frame, which brings its label strip along.
        cfg: size, colours and what the strip says.
        known: bool (128, T), cells that were given and not composed; a frame brings its own.

    Returns:
        A palette picture (mode "P"): time to the right, pitch upward, ``gif_scale`` pixels a cell.
        ``numpy.asarray(picture.convert("RGB"))`` gives uint8 (height, width, 3).
    """
    canvas = _Canvas(source, cfg, known)
    return canvas.picture(canvas.draw(source))


def save_png(source: Source, path: str | Path, cfg: RenderConfig, known: Cells | None = None) -> None:
    """Write :func:`image` as a PNG file."""
    picture = image(source, cfg, known)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def save_gif(frames: Sequence[Frame], path: str | Path, cfg: RenderConfig, fps: float | None = None) -> None:
    """Write an animation that loops for ever, one GIF frame per frame.

    Args:
        frames: at least one frame of one sample.
        path: the file.
        cfg: size, colours, labels.
        fps: frames a second (default: ``cfg.gif_fps``); delays are rounded to 1/100 s so that their sum stays right.

    Raises:
        UserError: the picture is too large for a GIF, or the file cannot be written.
    """
    rate = fps or cfg.gif_fps
    canvas = _Canvas(frames[-1], cfg)
    if max(canvas.width, canvas.height) > MAX_SIDE:
        raise UserError(f"--gif_scale {cfg.gif_scale}: {canvas.width} pixels a side; a GIF has at most {MAX_SIDE}")
    screen = struct.pack("<HHBBB", canvas.width, canvas.height, 0b1111_0111, 0, 0)  # a global table of 256 colours
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(b"GIF89a" + screen + canvas.colours.tobytes() + LOOP_FOR_EVER)
        before = None
        for index, frame in enumerate(frames):
            pixels = canvas.draw(frame)
            delay = round(100 * (index + 1) / rate) - round(100 * index / rate)
            file.write(_gif_frame(pixels, before, delay))
            before = pixels
        file.write(b";")


def save_mp4(frames: Sequence[Frame], path: str | Path, cfg: RenderConfig, fps: float | None = None) -> None:
    """Write an H.264 video; needs the optional package imageio-ffmpeg.

    Raises:
        UserError: the package is missing, or the file cannot be written.
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise UserError("MP4 needs imageio-ffmpeg: pip install 'fractalgen[mp4]'") from error
    canvas = _Canvas(frames[-1], cfg)
    # H.264 halves the colour planes: both sides must be even.
    padding = ((0, canvas.height % 2), (0, canvas.width % 2))
    size = (canvas.width + padding[1][1], canvas.height + padding[0][1])
    with replacing(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            str(temporary), size, fps=fps or cfg.gif_fps, codec="libx264", quality=8, macro_block_size=2
        )
        writer.send(None)
        try:
            for frame in frames:
                writer.send(canvas.colours[np.pad(canvas.draw(frame), padding, mode="edge")].tobytes())
        finally:
            writer.close()


def save_frames(frames: Sequence[Frame], folder: str | Path, cfg: RenderConfig) -> None:
    """Write every frame as ``frame_0000.png``, ...; numbered leftovers of a longer run are removed."""
    folder = Path(folder)
    canvas = _Canvas(frames[-1], cfg)
    for index, frame in enumerate(frames):
        with replacing(folder / f"frame_{index:04}.png") as temporary:
            canvas.picture(canvas.draw(frame)).save(temporary, format="PNG")
    for old in folder.glob("frame_[0-9][0-9][0-9][0-9].png"):
        if int(old.stem[-4:]) >= len(frames):
            old.unlink()


def run_render(cfg: RenderCommandConfig) -> None:
    """``fractalgen render``: draw a saved trace."""
    check_settings(cfg)
    trace = Trace.load(cfg.trace)
    frames = trace.frames(cfg.view, cfg.record_interval, cfg.gif_max_frames)
    write, ending = _FORMATS[cfg.format]
    stem = Path(cfg.trace).name.removesuffix(".npz").removesuffix(".trace")
    out = Path(cfg.out) if cfg.out else Path(cfg.trace).with_name(f"{stem}_{cfg.view}{ending}")
    write(frames, out, cfg)
    print(f"{out}: {len(frames)} frames")


def _save_last(frames: Sequence[Frame], path: str | Path, cfg: RenderConfig) -> None:
    """The still of an animation: its last frame."""
    save_png(frames[-1], path, cfg)


_FORMATS: dict[str, tuple[Callable[[Sequence[Frame], Path, RenderConfig], None], str]] = {
    "gif": (save_gif, ".gif"),
    "mp4": (save_mp4, ".mp4"),
    "png": (_save_last, ".png"),
    "frames": (save_frames, "_frames"),
}


class _Canvas:
    """The layout shared by all frames of one animation: label strip, roll, progress bar, from top to bottom."""

    def __init__(self, last: Source, cfg: RenderConfig, known: Cells | None = None) -> None:
        """Fit the strip to the longest label; that of the ``last`` frame is taken to be it, as are its known cells."""
        plane = _plane(last)
        if plane.ndim != 2:
            raise ValueError(f"one sample is drawn at a time: (128, T), not {plane.shape}")
        known = last.known if isinstance(last, Frame) else known
        if known is not None and known.shape != plane.shape:
            raise ValueError(f"known cells {known.shape} of a roll {plane.shape}")
        self.known = known if known is not None and known.any() else None
        self.colours = palette(cfg.gif_cmap, cfg.gif_background, known=self.known is not None)
        self.cfg = cfg
        self.width = plane.shape[1] * cfg.gif_scale
        self.roll_height = plane.shape[0] * cfg.gif_scale
        labelled = isinstance(last, Frame) and not cfg.no_gif_labels
        self.strip = 2 * round(0.95 * cfg.gif_font_size) if labelled else 0
        self.bar = max(3, cfg.gif_scale) if isinstance(last, Frame) and cfg.gif_progress_bar else 0
        self.height = self.strip + self.roll_height + self.bar
        self.margin = max(2, cfg.gif_font_size // 2)
        self.font_size = float(cfg.gif_font_size)
        if isinstance(last, Frame) and labelled:
            room = max(1, self.width - 2 * self.margin)
            needed = _font(self.font_size).getlength(_text(last, cfg))
            self.font_size = max(6.0, min(self.font_size, self.font_size * room / max(needed, 1)))

    def draw(self, source: Source) -> Pixels:
        """Palette indices, uint8 (height, width)."""
        pixels = np.full((self.height, self.width), RAMP, np.uint8)
        pixels[self.strip : self.strip + self.roll_height] = _roll_pixels(source, self.cfg.gif_scale, self.known)
        if isinstance(source, Frame):
            if self.strip:
                pixels[: self.strip] = self._label(_text(source, self.cfg))
            if self.bar:
                pixels[self.height - self.bar + 1 :, : round(self.width * source.progress)] = (RAMP + 2 * INK) // 3
        return pixels

    def picture(self, pixels: Pixels) -> Image.Image:
        """Palette indices as a Pillow image."""
        picture = Image.fromarray(pixels).convert("P")
        picture.putpalette(self.colours.tobytes())
        return picture

    def _label(self, text: str) -> Pixels:
        mask = Image.new("L", (self.width, self.strip))
        draw = ImageDraw.Draw(mask)
        draw.text((self.margin, self.strip / 2), text, fill=255, font=_font(self.font_size), anchor="lm")
        return (RAMP + np.asarray(mask).astype(np.uint16) * (INK - RAMP) // 255).astype(np.uint8)


def _plane(source: Source) -> NDArray[np.floating]:
    """Velocities in 0..1, (128, T)."""
    if isinstance(source, PianoRoll):
        return velocities(source.tokens, source.velocity_bins)
    return source.output if isinstance(source, Frame) else source


def _roll_pixels(source: Source, scale: int, known: Cells | None) -> Pixels:
    """The roll itself, pitch 0 at the bottom; where the tokens are at hand a note struck again shows a fine gap."""
    plane = _plane(source)
    tokens = None if isinstance(source, np.ndarray) else source.tokens
    shade = np.clip(plane if tokens is None else np.where(tokens == HOLD, plane * HOLD_SHADE, plane), 0, 1)
    if known is None:
        cells = np.rint(shade * (RAMP - 1)).astype(np.uint8)
    else:
        given = KNOWN + np.rint(shade * (LINE - 1 - KNOWN))
        cells = np.where(known & (shade > 0), given, np.rint(shade * (KNOWN - 1))).astype(np.uint8)
    height, width = cells.shape
    pixels = np.broadcast_to(cells[::-1, None, :, None], (height, scale, width, scale)).copy()
    if scale > 2:
        fine = max(1, scale // 6)
        if tokens is not None:
            struck_again = np.zeros(cells.shape, bool)
            struck_again[:, 1:] = (tokens[:, 1:] >= ONSET) & (tokens[:, :-1] != SILENCE)
            pixels[..., :fine] *= ~struck_again[::-1, None, :, None]
        if known is not None:
            _draw_boundary(pixels, known, ~known & (cells == 0), fine)
    return pixels.reshape(height * scale, width * scale)


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


def _text(frame: Frame, cfg: RenderConfig) -> str:
    """What the strip says."""
    parts = [frame.level_name]
    if cfg.gif_elapsed and frame.elapsed is not None:
        parts.append(f"{frame.elapsed:.1f} s")
    if cfg.gif_stats and frame.tokens is not None:
        notes = int((frame.tokens >= ONSET).sum())
        parts.append(f"{notes} notes, {(frame.tokens != SILENCE).mean():.1%} sounding")
    return "   ".join(parts)


def _gif_frame(pixels: Pixels, before: Pixels | None, delay: int) -> bytes:
    """One GIF frame: only the rectangle that changed, and in it only the pixels that changed."""
    top, left = 0, 0
    if before is not None:
        changed = pixels != before
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        # A frame without any change keeps its turn with a single transparent pixel.
        top, bottom = (rows[0], rows[-1] + 1) if len(rows) else (0, 1)
        left, right = (columns[0], columns[-1] + 1) if len(columns) else (0, 1)
        box = (slice(top, bottom), slice(left, right))
        pixels = np.where(changed[box], pixels[box], np.uint8(SAME))
    options = {"duration": 10 * delay, "disposal": 1, "transparency": SAME}
    return b"".join(GifImagePlugin.getdata(Image.fromarray(pixels), (int(left), int(top)), **options))


@lru_cache
def palette(cmap: str, background: str = RenderConfig.gif_background, known: bool = False) -> Pixels:
    """The 256 colours, uint8 (256, 3), with room for ``known`` notes or without.

    Raises:
        UserError: a colour map or a colour that does not exist.
    """
    import matplotlib  # takes a third of a second to load

    try:
        ramp = matplotlib.colormaps[cmap](np.linspace(0, 1, KNOWN if known else RAMP), bytes=True)[:, :3]
    except KeyError as error:
        raise UserError(f"--gif_cmap {cmap}: matplotlib has no such colour map (try viridis, magma, gray)") from error
    try:
        paper = np.array(ImageColor.getrgb(background)[:3], float)
    except ValueError as error:
        raise UserError(f"--gif_background {background}: not a colour (try black, white, #202020)") from error
    if known:
        ramp = np.concatenate([ramp, _known_colours(ramp.astype(float))])
    share = np.linspace(0, 1, INK - RAMP + 1)[:, None]
    label = paper + share * (_ink(paper) - paper)
    return np.concatenate([ramp, np.rint(label), [[0, 0, 0]]]).astype(np.uint8)


def _known_colours(ramp: NDArray[np.floating]) -> NDArray[np.floating]:
    """Colours of known notes and of the line, (LINE + 1 - KNOWN, 3), to go with the (KNOWN, 3) of composed ones."""
    silence, notes = ramp[0], ramp[KNOWN // 4 :]  # softer notes are rare, and near silence in any tint
    # How bright and how blue: the two differences that remain to those who confuse red and green.
    seen = np.array([[0.3, -0.5], [0.6, -0.5], [0.1, 1.0]])
    others = np.vstack([silence, notes]) @ seen
    tint = max(np.array(TINTS, float), key=lambda tint: float(np.linalg.norm(tint @ seen - others, axis=1).min()))
    share = np.linspace(FAINTEST, 1, LINE - KNOWN)[:, None]
    line = silence + 0.5 * (_ink(silence) - silence)
    return np.rint(np.vstack([silence + share * (tint - silence), line]))


def _ink(paper: NDArray[np.floating]) -> float:
    """The grey that is legible on a colour."""
    return 235.0 if paper @ (0.299, 0.587, 0.114) < 128 else 20.0


@lru_cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font: no file of the system is needed."""
    return ImageFont.load_default(size)

"""Settings of pictures, and of ``fractalgen render``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fractalgen.config.fields import View, setting


@dataclass(frozen=True)
class RenderConfig:
    """How rolls and their making are drawn."""

    gif_fps: float = setting(2.0, "frames a second")
    gif_max_frames: int = setting(0, "at most this many frames (0: all recorded)")
    gif_scale: int = setting(4, "pixels per cell")
    gif_cmap: str = setting("viridis", "any matplotlib colour map, or velocity")
    gif_font_size: int = setting(14, "label size in pixels")
    gif_theme: Literal["dark", "light"] = setting("dark", "light: a colour map turned round, on white")
    gif_background: str | None = setting(None, "colour behind text and keyboard (default: black, or white if light)")
    gif_title: str | None = setting(None, "a title above everything")
    no_gif_labels: bool = setting(False, "leave the label strip out")
    gif_steps: bool = setting(False, "add the number of the step to the label")
    gif_elapsed: bool = setting(False, "add the elapsed time to the label")
    gif_stats: bool = setting(False, "add note statistics to the label: notes, notes a bar, pitch range")
    gif_progress_bar: bool = setting(False, "draw a progress bar under the roll")
    gif_keyboard: bool = setting(False, "draw a piano keyboard at the left")
    gif_grid: bool = setting(False, "draw bar lines with their numbers and the names of the Cs")
    gif_color_bar: bool = setting(False, "draw the scale of the colours at the right")


@dataclass(frozen=True, kw_only=True)
class RenderCommandConfig(RenderConfig):
    """``fractalgen render``: draw a saved trace again, with other settings."""

    traces: tuple[str, ...] = field(metadata={"help": ".trace.npz files to draw, each into a file of its own"})
    view: View = setting(
        "process",
        "chronological; coarse to fine; the roll with the patches that are being filled beside it; or how sure the"
        " model was",
    )
    format: Literal["gif", "mp4", "webp", "apng", "png", "poster", "frames", "html"] = setting(
        "gif", "png: the last frame; poster: it and four stages; frames: numbered PNGs; html: a page that plays it"
    )
    side_by_side: bool = setting(False, "all traces in one animation, synchronised")
    silent: bool = setting(False, "mp4: without the music at the end")
    soundfont: str | None = setting(None, "mp4: a .sf2 or .sf3 file (default: a simple voice of its own)")
    out: str | None = setting(None, "file, or folder of frames, to write (default: beside the trace)")
    record_interval: int = setting(0, "AR patches between two frames (0: an eighth of the sequence)")

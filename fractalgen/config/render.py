"""Settings of pictures, and of ``fractalgen render``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from fractalgen.config.fields import Groups, View, setting

PICTURES = (
    *("gif_fps", "gif_max_frames", "gif_scale", "gif_cmap", "gif_theme", "gif_background", "gif_font_size"),
    *("gif_title", "no_gif_labels", "gif_steps", "gif_elapsed", "gif_stats"),
    *("gif_progress_bar", "gif_keyboard", "gif_grid", "gif_color_bar", "no_gif_plan"),
)


@dataclass(frozen=True)
class RenderConfig:
    """How rolls and their making are drawn."""

    # GIF counts in 1/100 s, and browsers slow down delays below 2/100 s
    gif_fps: float = setting(2.0, "frames per second", low=0.01, high=50)
    gif_max_frames: int = setting(0, "maximum number of frames (0: all recorded ones)", low=0, high=65535)
    gif_scale: int = setting(4, "pixels per cell", low=1, high=64)
    gif_cmap: str = setting("viridis", "any matplotlib colour map, or velocity")
    gif_font_size: int = setting(14, "size of the text in pixels", low=6, high=200)
    gif_theme: Literal["dark", "light"] = setting("dark", "light: white background, reversed colour map")
    gif_background: str | None = setting(
        None, "colour behind text and keyboard (default: black, or white with --gif_theme light)"
    )
    gif_title: str | None = setting(None, "title above the picture")
    no_gif_labels: bool = setting(False, "omit the line of text above the roll")
    gif_steps: bool = setting(False, "show the number of the step")
    gif_elapsed: bool = setting(False, "show the elapsed time")
    gif_stats: bool = setting(False, "show note statistics: notes, notes per bar, pitch range")
    gif_progress_bar: bool = setting(False, "draw a progress bar under the roll")
    gif_keyboard: bool = setting(False, "draw a piano keyboard at the left")
    gif_grid: bool = setting(False, "draw bar lines, bar numbers and the names of the Cs")
    gif_color_bar: bool = setting(False, "draw the colour scale at the right")
    no_gif_plan: bool = setting(False, "omit the lane of chords and form above the roll")
    record_interval: int = setting(0, "AR models: patches between two frames (0: an eighth of all patches)", low=0)
    soundfont: str | None = setting(None, "sound: a .sf2 or .sf3 file (default: a sampled piano)")
    page_piano: Literal["small", "full"] = setting(
        "small", "sound of the page: small adds about 0.3 MB to it; full: the samples of --save_wav, about 2 MB"
    )


@dataclass(frozen=True, kw_only=True)
class RenderCommandConfig(RenderConfig):
    """``fractalgen render``: draw a saved trace again, with other settings."""

    groups: ClassVar[Groups] = {
        "what to draw": ("traces", "view", "format", "out", "side_by_side", "record_interval"),
        "sound": ("silent", "soundfont", "page_piano"),
        "pictures": PICTURES,
    }

    traces: tuple[str, ...] = field(metadata={"help": ".trace.npz files; each is drawn into a file of its own"})
    view: View = setting(
        "process",
        "process: in order of time; hierarchical: coarse to fine; levels: with the patches that are being filled;"
        " density: the probability of each cell",
    )
    format: Literal["gif", "mp4", "webp", "apng", "png", "poster", "frames", "html"] = setting(
        "gif",
        "png: the last frame; poster: the last frame and four stages; frames: numbered PNG files; html: a page that"
        " plays the piece",
    )
    side_by_side: bool = setting(False, "draw all traces in one animation")
    silent: bool = setting(False, "omit the music at the end")
    out: str | None = setting(None, "file to write, or folder of frames (default: beside the trace)")

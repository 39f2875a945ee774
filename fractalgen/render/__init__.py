"""Rolls and traces as pictures: PNG, GIF, APNG, WebP and MP4.

Everything is drawn as palette indices: a ramp of the colour map for velocities, a ramp for text and furniture, and one
index that means "as in the frame before".  So pixels stay crisp, a GIF keeps every frame, and files stay small.

Where cells were given and not composed, their notes have a ramp of their own, in a muted tint, and a fine line runs
round what was composed.

All of these take frames of one sample (at least one), where the file goes, and settings.  Animations loop for
ever.  Each raises ``UserError`` where a file cannot be written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fractalgen.config import RenderConfig
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.render.animations import film, write_gif
from fractalgen.render.command import run_render
from fractalgen.render.settings import check_settings
from fractalgen.render.stills import image, poster, save_png, write_frames
from fractalgen.render.video import WIDEST, write_mp4, write_music_mp4
from fractalgen.trace.views import Frame


def save_gif(frames: Sequence[Frame], path: str | Path, cfg: RenderConfig) -> None:
    """Write an animated GIF; delays are rounded to 1/100 s so that their sum stays right."""
    write_gif(film(frames, cfg), path, cfg.gif_fps)


def save_mp4(frames: Sequence[Frame], path: str | Path, cfg: RenderConfig, *, roll: PianoRoll | None = None) -> None:
    """Write an H.264 video; needs the optional package imageio-ffmpeg.

    With a ``roll``, the finished piece, its music follows (AAC, by ``cfg.soundfont`` or the sampled piano), and a
    playhead moves over the last frame.  Wide pieces show what changes, or is played, in a window of 1,920 pixels.
    """
    if roll is None:
        write_mp4(film(frames, cfg, WIDEST), path, cfg.gif_fps)
    else:
        write_music_mp4(frames, path, cfg, roll)


def save_frames(frames: Sequence[Frame], folder: str | Path, cfg: RenderConfig) -> None:
    """Write every frame as ``frame_0000.png``, ...; numbered leftovers of a longer run are removed."""
    write_frames(film(frames, cfg), folder)

"""Animations read back with Pillow and ffmpeg."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from PIL import Image


def decoded(path: Path) -> tuple[list[np.ndarray], list[int], int]:
    """RGB frames, durations in milliseconds and the loop count of a GIF, an APNG or a WebP."""
    with Image.open(path) as file:
        pictures, durations = [], []
        for index in range(file.n_frames):  # type: ignore[attr-defined]
            file.seek(index)
            file.load()
            pictures.append(np.asarray(file.convert("RGB")))
            durations.append(round(file.info["duration"]))
        return pictures, durations, file.info["loop"]


def ffmpeg(path: Path, *options: str) -> bytes:
    """What ffmpeg writes of a file."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), *options, "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def video(path: Path, width: int, height: int) -> np.ndarray:
    """The frames of a video, uint8 (n, height, width, 3)."""
    raw = ffmpeg(path, "-f", "rawvideo", "-pix_fmt", "rgb24")
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def sound(path: Path) -> np.ndarray:
    """The sound of a video, left and right mixed, at 44,100 Hz."""
    return np.frombuffer(ffmpeg(path, "-f", "f32le", "-ac", "1", "-ar", "44100"), np.float32)

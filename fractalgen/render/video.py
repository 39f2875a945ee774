"""MP4: the process, and then the music with a playhead that moves over the finished roll."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fractalgen.config import RenderConfig
from fractalgen.errors import UserError, missing
from fractalgen.files import replacing
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.render.animations import Film, delays, film
from fractalgen.render.canvas import Canvas
from fractalgen.render.colours import Pixels, on_silence
from fractalgen.trace.views import Frame

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import ModuleType

Words: TypeAlias = NDArray[np.uint32]

WIDEST = 1920  # pixels: wider pieces scroll
FRAME_RATE = 25.0  # a playhead that moves evenly; the process shows each of its frames several times


def write_mp4(pictures: Film, path: str | Path, rate: float) -> None:
    """An H.264 video of an animation, without sound.

    Raises:
        UserError: imageio-ffmpeg is missing, or the file cannot be written.
    """
    packed = _packed(pictures.colours)
    with _encoder(path, pictures, rate) as encoder:
        for pixels in pictures:
            encoder.send(_coloured(pixels, packed))


def write_music_mp4(
    frames: Sequence[Frame],
    path: str | Path,
    cfg: RenderConfig,
    roll: PianoRoll,
) -> None:
    """An H.264 video with AAC sound: an animation, and when it has ended, the music of its last frame.

    Memory does not grow with the piece, sound apart.

    Raises:
        UserError: imageio-ffmpeg is missing, a soundfont cannot be used, or the file cannot be written.
    """
    from fractalgen.render.sound import TAIL, save_wav

    check_ffmpeg()
    canvas, rate = Canvas(frames[-1], cfg, widest=WIDEST), cfg.gif_fps
    pictures = film(frames, cfg, WIDEST)
    packed = _packed(pictures.colours)
    video_rate = max(FRAME_RATE, rate)
    repeats = delays(pictures.length, rate, video_rate)
    start = sum(repeats) / video_rate
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "music.wav"
        save_wav(roll, sound, cfg.soundfont)
        with _encoder(path, pictures, video_rate, sound, start) as encoder:
            for pixels, count in zip(pictures, repeats, strict=True):
                picture = _coloured(pixels, packed)
                for _ in range(count):
                    encoder.send(picture)
            for pixels in _playing(canvas, frames[-1], roll, roll.seconds + TAIL, video_rate):
                encoder.send(_coloured(pixels, packed))


def _playing(canvas: Canvas, last: Frame, roll: PianoRoll, seconds: float, rate: float) -> Iterator[Pixels]:
    """The finished roll with a playhead, frame by frame."""
    last = replace(last, blocks=(), open=None, elapsed=None, steps=0)
    finished = canvas.roll(last)
    steps = np.arange(roll.width + 1)
    times = roll.time_of(steps)
    count = round(seconds * rate)
    colour = on_silence(canvas.colours, 1.0)
    thick = max(1, canvas.scale // 2)
    for index in tqdm(range(count), desc="music", unit="frame", dynamic_ncols=True, leave=False, delay=2):
        now = index / rate
        place = round(float(np.interp(now, times, steps)) * canvas.scale)
        offset = min(max(0, place - canvas.view // 2), canvas.span - canvas.view)
        here = f"{_clock(min(now, roll.seconds))} / {_clock(roll.seconds)}"
        pixels = canvas.assemble(replace(last, level_name=here, progress=place / canvas.span), finished, offset)
        left = canvas.columns.start + min(place - offset, canvas.view - thick)
        pixels[canvas.rows, left : left + thick] = colour
        yield pixels


def _clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _packed(colours: Pixels) -> Words:
    """The palette with four bytes a colour, which numpy looks up several times as fast as three."""
    return np.pad(colours, ((0, 0), (0, 1))).view(np.uint32)[:, 0]


def _coloured(pixels: Pixels, packed: Words) -> Words:
    """Colours of a picture with even sides, as H.264 needs them: it halves the planes of colour."""
    height, width = pixels.shape
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2)), mode="edge")
    return packed.take(pixels)


def check_ffmpeg() -> ModuleType:
    """The library that brings the encoder (UserError where it is missing)."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise missing("MP4", "imageio-ffmpeg", "mp4") from error
    return imageio_ffmpeg


@contextmanager
def _encoder(
    path: str | Path, pictures: Film, rate: float, sound: Path | None = None, start: float = 0.0
) -> Iterator[Generator[None, Words, None]]:
    """Takes pictures, four bytes a pixel; the sound begins after ``start`` seconds."""
    size = (pictures.width + pictures.width % 2, pictures.height + pictures.height % 2)
    options = ["-preset", "veryfast", "-tune", "animation", "-movflags", "+faststart"]
    if sound:
        options += ["-af", f"adelay={round(1000 * start)}:all=1", "-b:a", "192k"]
    library = check_ffmpeg()
    with replacing(path) as temporary:
        temporary.touch()  # a file that cannot be written is reported by name, not by the encoder
        encoder = library.write_frames(
            str(temporary),
            size,
            pix_fmt_in="rgb0",
            fps=rate,
            codec="libx264",
            quality=8,
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=options,
            audio_path=str(sound) if sound else None,
            audio_codec="aac" if sound else None,
        )
        encoder.send(None)
        try:
            yield encoder
        except OSError as error:  # its message is the whole command
            raise UserError(f"{path}: ffmpeg stopped while the video was written (is the disk full?)") from error
        finally:
            encoder.close()
        if not temporary.stat().st_size:
            raise UserError(f"{path}: ffmpeg wrote no video")

"""Pictures: what is in the files is what was in the frames."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fractalgen import render
from fractalgen.config import RenderCommandConfig, RenderConfig
from fractalgen.errors import UserError
from fractalgen.pianoroll import PianoRoll
from tests.test_trace import made_up

PLAIN = RenderConfig()


def decoded(path: Path) -> tuple[list[np.ndarray], list[int], int]:
    """RGB frames, durations in milliseconds and the loop count of a GIF."""
    with Image.open(path) as gif:
        pictures, durations = [], []
        for index in range(gif.n_frames):  # type: ignore[attr-defined]
            gif.seek(index)
            pictures.append(np.asarray(gif.convert("RGB")))
            durations.append(gif.info["duration"])
        return pictures, durations, gif.info["loop"]


def levels(picture: np.ndarray, cfg: RenderConfig, rows: int) -> np.ndarray:
    """Ramp positions 0..1 of each cell's middle, pitch upward; the roll is the lowest part of the picture."""
    scale = cfg.gif_scale
    roll = picture[-rows * scale :][scale // 2 :: scale, scale // 2 :: scale][::-1].astype(int)
    ramp = render.palette(cfg.gif_cmap)[: render.RAMP].astype(int)
    return np.abs(roll[:, :, None] - ramp).sum(-1).argmin(-1) / (render.RAMP - 1)


@pytest.mark.parametrize("kind", ["ar", "mar"])
@pytest.mark.parametrize("view", ["process", "hierarchical"])
def test_a_decoded_gif_equals_the_trace_cell_by_cell(kind: str, view: str, tmp_path: Path) -> None:
    frames = made_up(kind=kind).frames(view=view, record_interval=1)  # type: ignore[arg-type]
    path = tmp_path / "a.gif"
    render.save_gif(frames, path, PLAIN)
    pictures, durations, loop = decoded(path)
    assert len(pictures) == len(frames)
    assert loop == 0
    assert durations == [500] * len(frames)
    for picture, frame in zip(pictures, frames, strict=True):
        expected = np.asarray(render.image(frame, PLAIN).convert("RGB"))
        assert np.array_equal(picture[-16 * 4 :], expected[-16 * 4 :])
        held = frame.tokens == 1 if frame.tokens is not None else np.zeros_like(frame.output, bool)
        wanted = np.where(held, frame.output * render.HOLD_SHADE, frame.output)
        # neighbouring steps of the ramp may share a colour
        assert np.abs(levels(picture, PLAIN, 16) - wanted).max() <= 1.0 / (render.RAMP - 1)


def test_speed_and_labels_are_settings(tmp_path: Path) -> None:
    frames = made_up().frames()
    render.save_gif(frames, tmp_path / "a.gif", PLAIN, fps=5.0)
    assert set(decoded(tmp_path / "a.gif")[1]) == {200}
    render.save_gif(frames, tmp_path / "b.gif", dataclasses.replace(PLAIN, gif_fps=3.0))
    durations = decoded(tmp_path / "b.gif")[1]
    assert abs(sum(durations) / 1000 - len(frames) / 3) < 0.01
    labelled = render.image(frames[-1], PLAIN)
    bare = render.image(frames[-1], dataclasses.replace(PLAIN, no_gif_labels=True))
    assert bare.size == (64, 64)
    assert labelled.size[1] > 64
    strip = np.asarray(labelled.convert("RGB"))[: labelled.size[1] - 64]
    assert strip.max() > 100  # there is text on the black strip
    other = np.asarray(render.image(frames[1], PLAIN).convert("RGB"))[: labelled.size[1] - 64]
    assert not np.array_equal(strip, other)


def test_every_setting_changes_the_picture() -> None:
    frame = made_up(width=64).frames()[-1]
    plain = np.asarray(render.image(frame, PLAIN).convert("RGB"))
    changes: tuple[dict[str, Any], ...] = (
        {"gif_scale": 2},
        {"gif_cmap": "magma"},
        {"gif_font_size": 9},
        {"gif_background": "white"},
        {"no_gif_labels": True},
        {"gif_progress_bar": True},
        {"gif_elapsed": True},
        {"gif_stats": True},
    )
    for change in changes:
        picture = np.asarray(render.image(frame, dataclasses.replace(PLAIN, **change)).convert("RGB"))
        assert not np.array_equal(picture, plain), change


def test_pitch_goes_up_and_time_to_the_right() -> None:
    tokens = np.zeros((128, 16), np.uint8)
    tokens[0, 0], tokens[127, 15] = 33, 17
    picture = np.asarray(render.image(PianoRoll(tokens), PLAIN).convert("RGB"))
    assert picture.shape == (512, 64, 3)
    top = render.palette("viridis")[render.RAMP - 1]
    assert np.abs(picture[-1, 0].astype(int) - top).max() < 12  # the loudest bin's middle, nearly yellow
    silence = render.palette("viridis")[0]
    assert np.array_equal(picture[0, 0], silence)
    assert not np.array_equal(picture[0, -1], silence)


def test_a_held_note_is_one_and_a_repeated_one_is_two() -> None:
    tokens = np.zeros((128, 16), np.uint8)
    tokens[60, 0], tokens[60, 1:4] = 22, 1
    tokens[70, 0:4:2], tokens[70, 1:4:2] = 22, 1
    picture = np.asarray(render.image(PianoRoll(tokens), PLAIN).convert("RGB"))
    held, struck = picture[4 * (127 - 60) + 2, :16], picture[4 * (127 - 70) + 2, :16]
    silence = render.palette("viridis")[0]
    assert not (held == silence).all(-1).any()
    assert (struck == silence).all(-1).sum() == 1


def test_png_and_frames(tmp_path: Path) -> None:
    frames = made_up().frames()
    render.save_png(frames[-1], tmp_path / "a.png", PLAIN)
    with Image.open(tmp_path / "a.png") as picture:
        assert np.array_equal(
            np.asarray(picture.convert("RGB")), np.asarray(render.image(frames[-1], PLAIN).convert("RGB"))
        )
    folder = tmp_path / "frames"
    render.save_frames(frames, folder, PLAIN)
    assert sorted(path.name for path in folder.iterdir()) == [f"frame_{k:04}.png" for k in range(len(frames))]
    render.save_frames(frames[:2], folder, PLAIN)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.skipif(importlib.util.find_spec("imageio_ffmpeg") is None, reason="imageio-ffmpeg is not installed")
def test_mp4(tmp_path: Path) -> None:
    import imageio_ffmpeg

    frames = made_up().frames()
    render.save_mp4(frames, tmp_path / "a.mp4", dataclasses.replace(PLAIN, gif_scale=5))
    count, _ = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "a.mp4"))
    assert count == len(frames)


@pytest.mark.parametrize("form", ["gif", "png", "frames"])
def test_the_render_command(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up().save(tmp_path / "piece.trace.npz")
    render.run_render(RenderCommandConfig(trace=str(tmp_path / "piece.trace.npz"), format=form, view="hierarchical"))  # type: ignore[arg-type]
    ending = {"gif": ".gif", "png": ".png", "frames": "_frames"}[form]
    assert (tmp_path / f"piece_hierarchical{ending}").exists()
    assert "9 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gif_cmap": "rainbows"}, "--gif_cmap rainbows"),
        ({"gif_background": "blackish"}, "--gif_background blackish"),
        ({"gif_fps": 0.0}, "--gif_fps 0.0"),
        ({"gif_fps": 99.0}, "--gif_fps 99.0"),
        ({"gif_scale": 0}, "--gif_scale 0"),
        ({"gif_font_size": 1}, "--gif_font_size 1"),
        ({"gif_max_frames": -1}, "--gif_max_frames -1"),
    ],
)
def test_settings_that_cannot_be_drawn(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        render.check_settings(dataclasses.replace(PLAIN, **change))  # type: ignore[arg-type]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        render.save_gif(made_up().frames(), tmp_path / "folder.gif", PLAIN)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.gif"]

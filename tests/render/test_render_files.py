"""Files of animations: what Pillow and ffmpeg read from them is what was drawn, as long and as often."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractalgen import render
from fractalgen.config import RenderConfig
from fractalgen.errors import UserError
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.render import animations, stills, video
from fractalgen.render.canvas import Canvas
from fractalgen.trace import Trace
from tests import decoding
from tests.decoding import decoded
from tests.render.test_render import frame_of
from tests.trace.test_trace import made_up

PLAIN = RenderConfig()
WRITE = {"gif": animations.write_gif, "apng": animations.write_apng, "webp": animations.write_webp}
needs_ffmpeg = pytest.mark.skipif(
    importlib.util.find_spec("imageio_ffmpeg") is None, reason="imageio-ffmpeg is not installed"
)


def with_chances(kind: str = "ar", known: int = 0) -> Trace:
    """A trace for every view."""
    trace = made_up(kind=kind, known_until=known)
    chances = np.where(trace.known, 0, np.arange(256).reshape(16, 16)).astype(np.uint8)
    return dataclasses.replace(trace, chances=chances)


@pytest.mark.parametrize("form", WRITE)
@pytest.mark.parametrize(
    ("view", "kind"), [("process", "mar"), ("hierarchical", "ar"), ("levels", "ar"), ("density", "ar")]
)
def test_files_hold_what_was_drawn(form: str, view: Any, kind: str, tmp_path: Path) -> None:
    """Frame by frame and pixel by pixel, labels included."""
    frames = with_chances(kind).frames(view=view, record_interval=1)
    WRITE[form](animations.film(frames, PLAIN), tmp_path / "a", 2.0)
    canvas = Canvas(frames[-1], PLAIN)
    expected = [canvas.colours[canvas.draw(frame)] for frame in frames]
    if form == "webp":  # equal frames become one
        expected = [p for at, p in enumerate(expected) if at == 0 or not np.array_equal(p, expected[at - 1])]
    pictures, durations, loop = decoded(tmp_path / "a")
    assert len(pictures) == len(expected)
    for picture, wanted in zip(pictures, expected, strict=True):
        assert np.array_equal(picture, wanted)
    assert loop == 0
    assert sum(durations) == 500 * len(frames)


@pytest.mark.parametrize("form", WRITE)
def test_durations_add_up(form: str, tmp_path: Path) -> None:
    frames = made_up(width=64).frames()
    film = animations.film(frames, PLAIN)
    WRITE[form](film, tmp_path / "a", 5.0)
    assert decoded(tmp_path / "a")[1] == [200] * len(frames)
    WRITE[form](film, tmp_path / "b", 3.0)
    durations = decoded(tmp_path / "b")[1]
    assert set(durations) <= {330, 340, 333, 334}
    assert abs(sum(durations) - 1000 * len(frames) / 3) < 10
    WRITE[form](dataclasses.replace(film, length=2), tmp_path / "c", 0.01)
    assert decoded(tmp_path / "c")[1] == [100_000] * 2


@pytest.mark.parametrize("form", WRITE)
def test_a_frame_that_changes_nothing_keeps_its_turn(form: str, tmp_path: Path) -> None:
    frame = made_up().frames()[-1]
    other = dataclasses.replace(frame, output=1 - frame.output, tokens=None)
    WRITE[form](animations.film([frame, frame, other, frame], PLAIN), tmp_path / "a", 2.0)
    pictures, durations, _ = decoded(tmp_path / "a")
    assert durations == ([1000, 500, 500] if form == "webp" else [500] * 4)
    assert np.array_equal(pictures[0], pictures[-1])
    assert not np.array_equal(pictures[0], pictures[-2])


def test_a_film_is_drawn_once_and_in_order(tmp_path: Path) -> None:
    """Nothing holds more than a frame or two, however long it is."""
    film = animations.film(made_up(width=128).frames(record_interval=1), PLAIN)
    for write in (animations.write_gif, animations.write_apng, animations.write_webp):
        seen: list[int] = []

        def draw(index: int, seen: list[int] = seen) -> Any:
            seen.append(index)
            return film.draw(index)

        write(dataclasses.replace(film, draw=draw), tmp_path / "a", 2.0)
        assert seen == list(range(film.length))


def test_pictures_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = animations.film(made_up(width=64).frames(), PLAIN)
    for name, write in (("MAX_GIF_SIDE", animations.write_gif), ("MAX_WEBP_SIDE", animations.write_webp)):
        monkeypatch.setattr(animations, name, 200)
        with pytest.raises(UserError, match=r"--gif_scale 4: 256 pixels a side; a .* has at most 200"):
            write(film, tmp_path / "a", 2.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", WRITE)
def test_a_failed_write_leaves_nothing(form: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        WRITE[form](animations.film(made_up().frames(), PLAIN), tmp_path / "folder", 2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_frames_of_a_longer_run_go_away(tmp_path: Path) -> None:
    frames = made_up().frames()
    for shown in (frames, frames[:2]):
        render.save_frames(shown, tmp_path, PLAIN)
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"frame_{k:04}.png" for k in range(len(shown))]


@pytest.mark.parametrize(("scale", "columns"), [(4, 4), (3, 2), (1, 1)])
def test_a_poster_has_the_piece_and_four_stages(scale: int, columns: int) -> None:
    trace, cfg = made_up(width=64), RenderConfig(gif_scale=scale, no_gif_labels=True)
    frames = trace.frames(view="hierarchical")
    stages = stills.stages(frames)
    assert [frame.level_name for frame in stages] == ["L0 step 3/4", "L0 step 4/4", "L1 step 2/2", "L2 step 2/2"]
    picture = np.asarray(render.poster(trace, cfg))
    assert np.array_equal(picture[: 16 * scale, : 64 * scale], np.asarray(render.image(frames[-1], cfg)))
    small = dataclasses.replace(cfg, gif_scale=max(1, scale // columns))
    gap, side = 7, 64 * small.gif_scale
    for index, stage in enumerate(stages):
        top = 16 * scale + gap + (index // columns) * (16 * small.gif_scale + gap)
        left = (index % columns) * (side + gap)
        seen = picture[top : top + 16 * small.gif_scale, left : left + side]
        assert np.array_equal(seen, np.asarray(render.image(stage, small)))


def test_stages_of_a_process_are_evenly_spread() -> None:
    frames = made_up(width=128).frames(record_interval=2)  # Init, and sixteen
    assert [frame.step for frame in stills.stages(frames)] == [6, 12, 20, 26]
    assert len(stills.stages(frames[:3])) == 2
    assert stills.stages(frames[:1]) == []


def test_a_window_follows_what_changes() -> None:
    """Four patches to see out of 32 columns of them: the newest is in the middle, where the edges allow it."""
    trace = made_up(width=256)
    frames = trace.frames(record_interval=1)
    canvas = Canvas(frames[-1], PLAIN, widest=128)
    assert (canvas.width, canvas.span) == (128, 1024)
    draw = animations.follow(frames, canvas)
    whole = Canvas(frames[-1], PLAIN)
    for index, left in ((0, 0), (1, 0), (2, 0)):
        assert np.array_equal(draw(index)[canvas.rows], whole.draw(frames[index])[canvas.rows, left : left + 128])
    for index in range(3, 60):
        seen = draw(index)[canvas.rows]
    changed = np.flatnonzero((frames[59].output != frames[58].output).any(axis=0))
    left = int(changed.mean() * 4) - 64
    assert np.array_equal(seen, whole.draw(frames[59])[canvas.rows, left : left + 128])


@needs_ffmpeg
def test_mp4_has_the_colours_of_known_notes(tmp_path: Path) -> None:
    cfg = RenderConfig(gif_scale=16, no_gif_labels=True)
    tokens = np.zeros((4, 4), np.uint8)
    tokens[:2] = 33  # large areas, which video keeps
    frame = frame_of(tokens, np.array([[True, True, False, False]] * 4))
    render.save_mp4([frame] * 3, tmp_path / "a.mp4", cfg)
    picture = decoding.video(tmp_path / "a.mp4", 64, 64)[-1].astype(int)
    wanted = np.asarray(render.image(frame, cfg).convert("RGB")).astype(int)
    for row, column in ((56, 8), (56, 56), (8, 8)):  # a known note, a composed one, silence
        assert np.abs(picture[row, column] - wanted[row, column]).max() < 40


@needs_ffmpeg
@pytest.mark.parametrize("widest", [1920, 64])
def test_mp4_plays_the_music_after_the_process(widest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds of music (16 steps at 120) from one and a half seconds on, with a playhead; scrolled or not."""
    monkeypatch.setattr(video, "WIDEST", widest)
    tokens = np.zeros((128, 16), np.uint8)
    tokens[60, 0], tokens[60, 1:8] = 33, 1
    trace = made_up()
    trace = dataclasses.replace(trace, tokens=tokens[56:72])
    cfg = RenderConfig(gif_cmap="gray", gif_scale=8, no_gif_labels=True)
    frames = trace.frames(max_frames=3)
    render.save_mp4(frames, tmp_path / "a.mp4", cfg, roll=PianoRoll(tokens))
    pictures = decoding.video(tmp_path / "a.mp4", min(widest, 128), 128)
    heard = decoding.sound(tmp_path / "a.mp4")
    start = round(1.5 * 44_100)
    assert np.abs(heard[: start - 2000]).max() < 1e-3
    assert np.abs(heard[start : start + 4000]).max() > 0.01
    begin = round(1.5 * video.FRAME_RATE)
    assert len(pictures) >= begin + 2 * video.FRAME_RATE
    assert len(pictures) / video.FRAME_RATE == pytest.approx(len(heard) / 44_100, abs=0.1)
    offset = 0 if widest > 128 else 64
    for seconds, column in ((0.5, 32), (1.0, 64), (1.5, 96), (1.75, 112)):
        row = pictures[begin + round(seconds * video.FRAME_RATE)][4, :, 1]  # a pitch at which nothing sounds
        place = column if not offset else 32 if column <= 96 and column >= 32 else column - offset
        assert abs(int(row.argmax()) - place) <= 4
        assert row.max() > 150
        assert np.median(row) < 30


def test_mp4_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    for roll in (None, made_up().roll):
        with pytest.raises(UserError, match="MP4 needs imageio-ffmpeg: pip install"):
            render.save_mp4(made_up().frames(), tmp_path / "a.mp4", PLAIN, roll=roll)
    assert not list(tmp_path.iterdir())

"""What stands around the roll: in its place, right, and never on a note."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont

from fractalgen import render
from fractalgen.config import RenderConfig
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.render import furniture, text
from fractalgen.render.canvas import Canvas
from fractalgen.render.colours import INK, LINE, LUMA, RAMP, coloured, on_silence, palette
from fractalgen.render.roll import outline, roll_pixels
from fractalgen.trace import Trace
from fractalgen.trace.views import Frame
from tests import tiny
from tests.render.test_render_files import with_chances
from tests.trace.test_trace import made_up

PLAIN = RenderConfig()
ALL: dict[str, Any] = {
    "gif_title": "A title",
    "gif_steps": True,
    "gif_elapsed": True,
    "gif_stats": True,
    "gif_progress_bar": True,
    "gif_keyboard": True,
    "gif_grid": True,
    "gif_color_bar": True,
}
GOLDEN = Path(__file__).parent / "golden"


def whole_keyboard(width: int = 64) -> Trace:
    """A trace of 128 pitches, notes everywhere, at the edges too."""
    tokens = np.zeros((128, width), np.uint8)
    tokens[[0, 1, 12, 60, 126, 127]] = 25
    tokens[:, [0, 16, width - 1]] = 33
    tokens[60, 1:16] = 1
    return tiny.trace(tokens, (128, 1), moments=1)


@pytest.mark.parametrize(
    "change",
    [
        {"gif_scale": 2},
        {"gif_cmap": "magma"},
        {"gif_cmap": "velocity"},
        {"gif_font_size": 9},
        {"gif_background": "navy"},
        {"gif_theme": "light"},
        {"no_gif_labels": True},
        *({name: value} for name, value in ALL.items()),
    ],
)
def test_every_setting_changes_the_picture(change: dict[str, Any]) -> None:
    frame = made_up(width=64).frames()[-1]
    plain = np.asarray(render.image(frame, PLAIN).convert("RGB"))
    picture = np.asarray(render.image(frame, dataclasses.replace(PLAIN, **change)).convert("RGB"))
    assert not np.array_equal(picture, plain)
    if next(iter(change)) in ("gif_steps", "gif_elapsed", "gif_stats"):  # they only add words
        assert np.array_equal(picture[-64:], plain[-64:])


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_furniture_never_covers_notes(scale: int, theme: Any) -> None:
    """With everything switched on, each pixel of a note is as in the bare roll; silence has lines at most."""
    cfg = RenderConfig(gif_scale=scale, gif_theme=theme, **ALL)
    trace = whole_keyboard()
    for frame in trace.frames(view="levels"):
        canvas = Canvas(frame, cfg)
        drawn = canvas.draw(frame)[canvas.rows, canvas.columns]
        bare = roll_pixels(frame.output, frame.tokens, scale)
        notes = (frame.output > 0)[::-1].repeat(scale, 0).repeat(scale, 1)
        assert drawn.shape == bare.shape == notes.shape
        assert np.array_equal(drawn[notes], bare[notes])
        lines = [on_silence(canvas.colours, share) for share in (furniture.BAR_LINE, furniture.OCTAVE_LINE)]
        assert set(np.unique(drawn[~notes])) <= {0, *lines}


@pytest.mark.parametrize("view", ["process", "hierarchical", "levels", "density"])
@pytest.mark.parametrize("known", [0, 6])
def test_marks_on_the_roll_lie_behind_notes(view: Any, known: int) -> None:
    cfg = RenderConfig(**ALL)
    frames = with_chances(known=known).frames(view=view, record_interval=1)
    canvas = Canvas(frames[-1], cfg)
    for frame in frames:
        drawn = canvas.draw(frame)[canvas.rows, canvas.columns]
        bare = roll_pixels(frame.output, frame.tokens, 4, canvas.known)
        notes = (bare != 0) & (bare != LINE)
        assert np.array_equal(drawn[notes], bare[notes])
        assert notes.any() or not frame.output.any()


def test_places_do_not_overlap() -> None:
    """The picture's parts add up to it, and what lies outside them is paper."""
    frame = whole_keyboard().frames()[-1]
    canvas = Canvas(frame, RenderConfig(**ALL))
    picture = canvas.draw(frame)
    assert picture.shape == (canvas.height, canvas.width)
    assert canvas.strip.stop <= canvas.rows.start
    assert canvas.bar is not None
    assert canvas.rows.stop < canvas.bar.start
    assert canvas.rows.stop - canvas.rows.start == 512
    assert canvas.columns.stop - canvas.columns.start == 256
    assert (picture[: canvas.strip.start] != RAMP).any()  # the title
    assert (picture[canvas.strip] != RAMP).any()
    numbers = picture[canvas.strip.stop : canvas.rows.start]
    assert (numbers[:, : canvas.columns.start] == RAMP).all()
    assert (numbers[:, canvas.columns.stop :] == RAMP).all()


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_keys_stand_beside_their_rows(scale: int, theme: Any) -> None:
    canvas = Canvas(whole_keyboard().frames()[-1], RenderConfig(gif_scale=scale, gif_keyboard=True, gif_theme=theme))
    keys = canvas.base[canvas.rows, : canvas.columns.start]
    assert keys.shape[0] == 128 * scale
    assert keys.shape[1] >= 10
    brightness = canvas.colours[keys] @ LUMA
    for pitch in (0, 1, 11, 12, 60, 61, 66, 127):
        middle = brightness[(127 - pitch) * scale + scale // 2, 1]
        assert (middle < 60) == (pitch % 12 in (1, 3, 6, 8, 10)), pitch
        assert (middle > 180) != (middle < 60)


def test_bar_lines_stand_where_bars_begin() -> None:
    """A silent roll of 3/4, then of 4/4: lines at steps 12, 24 and 40, their numbers above them."""
    roll = PianoRoll(np.zeros((128, 48), np.uint8), time_signatures=((0, 3, 4), (24, 4, 4)))
    canvas = Canvas(roll, RenderConfig(gif_grid=True))
    drawn = canvas.draw(roll)
    line = on_silence(canvas.colours, furniture.BAR_LINE)
    columns = np.flatnonzero((drawn[canvas.rows, canvas.columns] == line).all(axis=0))
    assert columns.tolist() == [48, 96, 160]
    octaves = np.flatnonzero(drawn[canvas.rows, canvas.columns.start + 5] != 0)
    assert octaves.tolist() == [511 - 48 * octave for octave in reversed(range(11))]  # the lowest pixel of every C
    numbers = drawn[canvas.strip.stop : canvas.rows.start, canvas.columns] > RAMP
    for start in (0, 48, 96, 160):
        assert numbers[:, start : start + 8].any()
        assert not numbers[:, start + 20 : start + 40].any()


def test_bar_numbers_are_as_many_as_fit() -> None:
    for scale, size, seen in ((4, 8.0, 16), (1, 8.0, 16), (1, 14.0, 8)):
        numbers = furniture.bar_numbers(range(0, 256, 16), 256, scale, size)
        assert numbers.shape == (round(1.6 * size), 256 * scale)
        starts = [start for start in range(16) if (numbers[:, start * 16 * scale :][:, :6] > RAMP).any()]
        assert len(starts) == seen
        assert starts == list(range(0, 16, 16 // seen))
    assert furniture.bar_numbers([0], 16, 1, 8.0).shape == (13, 16)


def test_the_progress_bar_grows() -> None:
    frames = made_up(width=64).frames(record_interval=1)
    canvas = Canvas(frames[-1], RenderConfig(gif_progress_bar=True))
    assert canvas.bar is not None
    lengths = [int((canvas.draw(frame)[canvas.bar.start] != RAMP).sum()) for frame in frames]
    assert lengths == [round(256 * frame.progress) for frame in frames]


@pytest.mark.parametrize("known", [0, 6])
def test_the_colour_bar_is_the_ramp(known: int) -> None:
    trace = with_chances(known=known)
    frame = trace.frames()[-1]
    canvas = Canvas(frame, RenderConfig(gif_color_bar=True))
    bar = canvas.draw(frame)[canvas.rows, canvas.columns.stop :]
    composed = bar[:, round(10.5 / 2)]
    assert composed[0] == (127 if known else 223)
    assert composed[-1] == 0
    assert (np.diff(composed.astype(int)) <= 0).all()
    given = bar[:, round(10.5 / 2) + 7]
    assert (given[0], given[-1]) == ((222, 128) if known else (223, 0))
    assert furniture.colour_bar(64, 8.0, ("0", "1"), False).shape[0] == 64
    chance = Canvas(trace.frames(view="density")[-1], RenderConfig(gif_color_bar=True))
    assert chance.width != canvas.width or not np.array_equal(chance.base, canvas.base)  # other marks


def test_what_the_strip_says() -> None:
    tokens = np.zeros((128, 32), np.uint8)
    tokens[60, 0], tokens[60, 1:4], tokens[69, 8], tokens[36, 31] = 20, 1, 20, 20
    frame = Frame(0, 3, "AR L0 patch 3/4", (tokens / 33).astype(np.float32), tokens, elapsed=1.25, step=3, steps=4)
    assert text.label(frame, PLAIN) == "AR L0 patch 3/4"
    every = RenderConfig(gif_steps=True, gif_elapsed=True, gif_stats=True)
    assert text.label(frame, every) == "AR L0 patch 3/4   step 3/4   1.2 s   3 notes, 1.5 a bar, C2 to A4"
    assert text.statistics(np.zeros((128, 32), np.uint8), 16) == "0 notes, 0.0 a bar"
    assert text.statistics(tokens, 12).startswith("3 notes, 1.1 a bar")
    bare = dataclasses.replace(frame, tokens=None, elapsed=None, steps=0)
    assert text.label(bare, every) == "AR L0 patch 3/4"
    assert [text.pitch_name(pitch) for pitch in (0, 60, 61, 69, 127)] == ["C-1", "C4", "C#4", "A4", "G9"]


def test_letters_fit_into_the_strip() -> None:
    frame = dataclasses.replace(made_up().frames()[-1], level_name="a label far too long for so small a picture")
    canvas = Canvas(frame, RenderConfig(gif_font_size=30, gif_scale=16))
    assert canvas.draw(frame).shape == (57 - 1 + 256, 256)
    assert text.text_width(frame.level_name, canvas.font_size) <= 256
    longer = dataclasses.replace(frame, level_name=frame.level_name + " indeed")
    assert not np.array_equal(canvas.draw(longer)[canvas.strip], canvas.draw(frame)[canvas.strip])


@pytest.mark.parametrize("cmap", ["viridis", "gray_r", "Blues", "hot", "velocity"])
def test_silence_is_dark_or_light_as_the_theme_is(cmap: str) -> None:
    light = palette(cmap, light=True)
    assert light[0].tolist() == [255, 255, 255]
    assert light[RAMP].tolist() == [255, 255, 255]  # paper
    assert light[INK] @ LUMA < 30
    assert light[RAMP - 1] @ LUMA < 120  # the loudest note
    named = palette(cmap, "navy", light=True)
    assert named[RAMP].tolist() == [0, 0, 128]
    assert np.array_equal(named[:RAMP], light[:RAMP])
    assert palette(cmap)[RAMP].tolist() == [0, 0, 0]


def test_the_velocity_map_grows_brighter() -> None:
    brightness = palette("velocity")[:RAMP] @ LUMA
    assert brightness[0] == 0
    assert brightness[-1] > 230
    assert (np.diff(brightness) > -1).all()
    colours = palette("velocity").astype(int)
    assert colours[60, 2] > colours[60, 0]  # soft notes are cool
    assert colours[200, 0] > colours[200, 2]  # loud ones warm


def test_a_frame_round_a_square() -> None:
    pixels = np.zeros((5, 6), np.uint8)
    outline(pixels, (1, 2), (2, 2), 1, 9)
    assert pixels.tolist() == [
        [0, 9, 9, 9, 9, 0],
        [0, 9, 0, 0, 9, 0],
        [0, 9, 0, 0, 9, 0],
        [0, 9, 9, 9, 9, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    outline(pixels, (3, 4), (4, 4), 1, 7)  # cut at the edges
    assert pixels[2, 3:].tolist() == [7, 7, 7]
    assert pixels[2:, 3].tolist() == [7, 7, 7]


def test_pictures_without_freetype(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow then has a single font of one size, which must do."""
    bitmap = ImageFont.load_default_imagefont()

    def load_default(size: float | None = None) -> ImageFont.ImageFont:
        if size is not None:
            raise ImportError("The _imagingft C module is not installed")
        return bitmap

    monkeypatch.setattr(ImageFont, "load_default", load_default)
    text.font.cache_clear()
    try:
        frame = whole_keyboard().frames(view="levels")[-1]
        picture = Canvas(frame, RenderConfig(**ALL)).draw(frame)
        assert (picture[:20] != RAMP).any()
    finally:
        text.font.cache_clear()


@pytest.mark.parametrize("view", ["process", "hierarchical", "levels", "density"])
def test_pictures_look_as_they_did(view: Any) -> None:
    """Against pictures in ``tests/golden``, which a person has looked at (delete one to have it drawn anew).

    Letters may differ a little from one version of Pillow's font to the next, the roll may not.
    """
    trace = with_chances(known=6 if view == "hierarchical" else 0)
    frames = trace.frames(view=view, record_interval=1)
    cfg = RenderConfig(gif_scale=6, gif_font_size=10, gif_keyboard=True, gif_grid=True, gif_theme="dark")
    frame = frames[len(frames) * 2 // 3]
    canvas = Canvas(frame, cfg)
    picture = coloured(canvas.draw(frame), canvas.colours).convert("RGB")
    path = GOLDEN / f"{view}.png"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        picture.save(path, optimize=True)
        pytest.fail(f"{path} was missing and has been drawn: look at it")
    with Image.open(path) as file:
        golden = np.asarray(file.convert("RGB")).astype(int)
    seen = np.asarray(picture).astype(int)
    assert seen.shape == golden.shape
    assert np.array_equal(seen[canvas.rows, canvas.columns], golden[canvas.rows, canvas.columns])
    assert (np.abs(seen - golden).max(axis=2) > 60).mean() < 0.02

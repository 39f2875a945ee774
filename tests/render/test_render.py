"""Pictures: what is in the files is what was in the frames."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fractalgen import render
from fractalgen.config import RenderConfig
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import velocities
from fractalgen.render.colours import KNOWN, LINE, RAMP, TINTS, palette
from fractalgen.render.roll import HOLD_SHADE
from fractalgen.trace.views import Frame
from tests.decoding import decoded
from tests.trace.test_trace import made_up

PLAIN = RenderConfig()


def levels(picture: np.ndarray, cfg: RenderConfig, rows: int) -> np.ndarray:
    """Ramp positions 0..1 of each cell's middle, pitch upward; the roll is the lowest part of the picture."""
    scale = cfg.gif_scale
    roll = picture[-rows * scale :][scale // 2 :: scale, scale // 2 :: scale][::-1].astype(int)
    ramp = palette(cfg.gif_cmap)[:RAMP].astype(int)
    return np.abs(roll[:, :, None] - ramp).sum(-1).argmin(-1) / (RAMP - 1)


@pytest.mark.parametrize("view", ["process", "hierarchical"])
def test_a_decoded_gif_equals_the_trace_cell_by_cell(view: Any, tmp_path: Path) -> None:
    frames = made_up().frames(view=view, record_interval=1)
    render.save_gif(frames, tmp_path / "a.gif", PLAIN)
    for picture, frame in zip(decoded(tmp_path / "a.gif")[0], frames, strict=True):
        held = frame.tokens == 1 if frame.tokens is not None else np.zeros_like(frame.output, bool)
        wanted = np.where(held, frame.output * HOLD_SHADE, frame.output)
        # neighbouring steps of the ramp may share a colour
        assert np.abs(levels(picture, PLAIN, 16) - wanted).max() <= 1.0 / (RAMP - 1)


def test_pitch_goes_up_and_time_to_the_right() -> None:
    tokens = np.zeros((128, 16), np.uint8)
    tokens[0, 0], tokens[127, 15] = 33, 17
    picture = np.asarray(render.image(PianoRoll(tokens), PLAIN).convert("RGB"))
    assert picture.shape == (512, 64, 3)
    top = palette("viridis")[RAMP - 1]
    assert np.abs(picture[-1, 0].astype(int) - top).max() < 12  # the loudest bin's middle, nearly yellow
    silence = palette("viridis")[0]
    assert np.array_equal(picture[0, 0], silence)
    assert not np.array_equal(picture[0, -1], silence)


def test_a_held_note_is_one_and_a_repeated_one_is_two() -> None:
    tokens = np.zeros((128, 16), np.uint8)
    tokens[60, 0], tokens[60, 1:4] = 22, 1
    tokens[70, 0:4:2], tokens[70, 1:4:2] = 22, 1
    picture = np.asarray(render.image(PianoRoll(tokens), PLAIN).convert("RGB"))
    held, struck = picture[4 * (127 - 60) + 2, :16], picture[4 * (127 - 70) + 2, :16]
    silence = palette("viridis")[0]
    assert not (held == silence).all(-1).any()
    assert (struck == silence).all(-1).sum() == 1


def frame_of(tokens: np.ndarray, known: np.ndarray | None) -> Frame:
    """A finished frame of a small roll."""
    output = velocities(tokens, 32)
    return Frame(level=0, iteration=0, level_name="Done", output=output, tokens=tokens.astype(np.uint8), known=known)


def drawn(source: Frame | np.ndarray, scale: int, known: np.ndarray | None = None) -> np.ndarray:
    """Palette indices of the roll alone."""
    return np.asarray(render.image(source, RenderConfig(gif_scale=scale, no_gif_labels=True), known))


def test_a_picture_without_known_cells_is_what_it_was() -> None:
    digest = hashlib.sha256()
    for kind in ("ar", "mar"):
        for view in ("process", "hierarchical"):
            for frame in made_up(kind=kind).frames(view=view):
                pixels = drawn(frame, 4)
                nothing = dataclasses.replace(frame, known=np.zeros((16, 16), bool))
                assert np.array_equal(drawn(nothing, 4), pixels)
                digest.update(pixels.tobytes())
    # as they were drawn before known cells were told apart
    assert digest.hexdigest()[:16] == "f6b0b6207f27580f"
    frame = made_up().frames()[-1]
    nothing = dataclasses.replace(frame, known=np.zeros((16, 16), bool))
    assert render.image(nothing, PLAIN).getpalette() == render.image(frame, PLAIN).getpalette()


def test_known_notes_have_a_ramp_of_their_own() -> None:
    plane = np.array([[1.0, 0.0, 1.0, 0.0], [0.6, 0.0, 0.6, 0.01]], np.float32)
    known = np.array([[True, True, False, False]] * 2)
    middle = drawn(plane, 3, known)[1::3, 1::3]
    # pitch 0 is the lowest row; 128 + 0.6 * 94 = 184.4, 0.6 * 127 = 76.2, 0.01 * 127 = 1.27
    assert middle.tolist() == [[184, 0, 76, 1], [222, 0, 127, 0]]
    colours = palette("viridis", known=True)
    assert len(colours) == 256
    assert np.array_equal(colours[[0, 127]], palette("viridis")[[0, 223]])
    assert np.array_equal(colours[224:], palette("viridis")[224:])
    assert tuple(colours[222]) in TINTS


def test_known_and_composed_notes_share_their_holds_and_gaps() -> None:
    tokens = np.array([[33, 1, 33, 1, 33, 1, 33, 1]])
    known = np.array([[True] * 4 + [False] * 4])
    row = drawn(frame_of(tokens, known), 4)[1]
    struck, held = 0.5 + 31 / 64, HOLD_SHADE
    loud = velocities(tokens, 32)[0, 0]
    assert abs(loud - struck) < 0.01
    given, given_hold = (128 + round(94 * loud * shade) for shade in (1.0, held))
    own, own_hold = (round(127 * loud * shade) for shade in (1.0, held))
    expected = [given] * 4 + [given_hold] * 4 + [0] + [given] * 3 + [given_hold] * 4
    expected += [0] + [own] * 3 + [own_hold] * 4 + [0] + [own] * 3 + [own_hold] * 4
    assert row.tolist() == expected


RECTANGLE = (
    """
    ####
    #..#
    #..#
    ####
    """,
    """
    ............
    ............
    ............
    ...------...
    ...-....-...
    ...-....-...
    ...-....-...
    ...-....-...
    ...------...
    ............
    ............
    ............
    """,
)
RAGGED = (  # what lies under a melody: known notes and all above them
    """
    ####
    .##.
    ..#.
    """,
    """
    ............
    ............
    ............
    ---......---
    ..-......-..
    ..-......-..
    ...---...-..
    .....-...-..
    .....-...-..
    """,
)


def art(text: str, mark: str) -> np.ndarray:
    """Where a drawing has the mark."""
    return np.array([[letter == mark for letter in line] for line in text.split()])


@pytest.mark.parametrize(("cells", "picture"), [RECTANGLE, RAGGED])
def test_a_line_runs_round_what_was_composed(cells: str, picture: str) -> None:
    known = art(cells, "#")[::-1]
    silence = np.zeros(known.shape, np.float32)
    pixels = drawn(silence, 3, known)
    assert np.array_equal(pixels == LINE, art(picture, "-"))
    assert not pixels[pixels != LINE].any()
    for scale in (1, 2):
        assert not drawn(silence, scale, known).any()
    assert (drawn(silence, 12, known) == LINE).sum() > (drawn(silence, 6, known) == LINE).sum()


def test_the_line_lies_behind_the_notes() -> None:
    known = art(RECTANGLE[0], "#")
    plane = np.zeros((4, 4), np.float32)
    plane[1, 0:2] = 1.0  # a known note, and one that was composed next to it
    pixels = drawn(plane, 3, known)
    assert (pixels[6:9, 0:3] == 222).all()
    assert (pixels[6:9, 3:6] == 127).all()
    assert (pixels == LINE).sum() == 20 - 5


def test_a_roll_that_is_known_throughout() -> None:
    tokens = made_up().tokens
    pixels = drawn(frame_of(tokens, np.ones(tokens.shape, bool)), 4)
    assert set(np.unique(pixels)) <= {0, *range(KNOWN, LINE)}
    assert np.array_equal(pixels > 0, drawn(frame_of(tokens, None), 4) > 0)


@pytest.mark.parametrize("view", ["process", "hierarchical"])
def test_files_show_known_cells_as_the_pictures_do(view: Any, tmp_path: Path) -> None:
    known = np.zeros((16, 16), bool)
    known[:, :8] = True
    known[3:9, 2:6] = False
    trace = made_up(known=known)
    frames = trace.frames(view=view, record_interval=1)
    expected = [np.asarray(render.image(frame, PLAIN).convert("RGB")) for frame in frames]
    render.save_gif(frames, tmp_path / "a.gif", PLAIN)
    for picture, wanted in zip(decoded(tmp_path / "a.gif")[0], expected, strict=True):
        assert np.array_equal(picture[-64:], wanted[-64:])  # the label alone fits the longest of all
    render.save_frames(frames, tmp_path / "frames", PLAIN)
    for index, wanted in enumerate(expected):
        with Image.open(tmp_path / "frames" / f"frame_{index:04}.png") as file:
            assert np.array_equal(np.asarray(file.convert("RGB"))[-64:], wanted[-64:])
    # the same notes, known or not, in every frame
    seen = [drawn(frame, 4) for frame in frames]
    inside = np.kron(known[::-1], np.ones((4, 4), bool))
    assert all(np.array_equal(pixels[inside], seen[-1][inside]) for pixels in seen)
    assert (seen[-1] == LINE).any()
    # a finished roll, told which cells were given
    roll = np.zeros((128, 16), np.uint8)
    roll[:16] = trace.tokens
    mask = np.zeros((128, 16), bool)
    mask[:16] = known
    render.save_png(PianoRoll(roll), tmp_path / "a.png", PLAIN, known=mask)
    with Image.open(tmp_path / "a.png") as file:
        finished = np.asarray(file)[-64:]
        lower = known[::-1].repeat(4, 0).repeat(4, 1)
        assert np.array_equal(finished[lower], seen[-1][inside])
    with pytest.raises(ValueError, match="known cells"):
        render.image(PianoRoll(roll), PLAIN, known)


# What people see who lack one kind of cone: Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
VISION = {
    "usual": np.eye(3),
    "protan": np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
    "deutan": np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    "tritan": np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
}


def oklab(colours: np.ndarray, vision: np.ndarray) -> np.ndarray:
    """OKLab (Ottosson 2020) of sRGB colours, where distances are as people see them; about 0.02 is just noticed."""
    share = colours / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ vision.T
    cones = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
    axes = np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])
    return np.cbrt(np.clip(linear, 0, 1) @ cones.T) @ axes.T


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(
    "cmap", ["viridis", "magma", "gray", "inferno", "cividis", "gray_r", "Blues", "hot", "velocity"]
)
def test_known_notes_are_told_from_composed_ones(cmap: str, vision: str, light: bool) -> None:
    colours = oklab(palette(cmap, known=True, light=light).astype(float), VISION[vision])
    given, own, silence = colours[KNOWN:LINE], colours[40:KNOWN], colours[0]
    assert np.linalg.norm(given[:, None] - own, axis=-1).min() > 0.05
    assert np.linalg.norm(given - silence, axis=-1).min() > 0.15
    assert np.linalg.norm(colours[LINE] - silence) > 0.15
    if vision == "usual" and cmap not in ("gray", "gray_r"):  # muted: a map that has colours has stronger ones
        assert np.hypot(*given[:, 1:].T).max() < np.hypot(*own[:, 1:].T).max()

"""The lane of chords and form: its pixels, its place in pictures and pages, and pieces with short bars."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

from fractalgen.config import RenderConfig
from fractalgen.errors import UserError
from fractalgen.music.bars import BarLayout
from fractalgen.music.plan import Plan
from fractalgen.music.planning import piece_plan
from fractalgen.render import image
from fractalgen.render.colours import INK, RAMP
from fractalgen.render.lane import BANDS, lane_pixels
from fractalgen.render.page import page
from fractalgen.studio.document import Document, Note
from fractalgen.studio.exports import draw
from fractalgen.trace import Trace
from tests import tiny
from tests.browser import Tab
from tests.decoding import decoded
from tests.render.test_page import contents

WIDTH = 96


def made_up(**settings: Any) -> Trace:
    """A trace of six columns with a plan."""
    (trace,) = tiny.intermediates(tiny.tokens(0, WIDTH, 60)[None]).traces
    layout = BarLayout.plain(WIDTH, 16)
    plan = piece_plan(layout, 4, chords="C G/B | Am F", form="A2 B2 A2")
    return replace(trace, settings={"plan": plan.to_dict(), **settings})


def test_sections_are_bands_and_chords_stand_where_they_begin() -> None:
    spans = made_up().lane
    assert [(span.start, span.stop, span.text) for span in spans if span.row == 0] == [
        (0, 32, "A"),
        (32, 64, "B"),
        (64, 96, "A"),
    ]
    pixels = lane_pixels(spans, WIDTH, 4, 10.0)
    assert pixels.shape == (32, 4 * WIDTH)
    shades = [RAMP + round(share * (INK - RAMP)) for share in BANDS]
    assert [pixels[1, 4 * step + 60] for step in (0, 32, 64)] == [shades[0], shades[1], shades[0]]
    assert (pixels[16:, 32] == shades[0]).any()  # the line at which the second chord begins
    assert lane_pixels((), WIDTH, 4, 10.0).shape == (0, 4 * WIDTH)


def test_every_picture_has_the_lane_unless_it_is_not_wanted() -> None:
    trace, cfg = made_up(), RenderConfig()
    for view in ("process", "hierarchical", "levels"):
        frame = trace.frames(view)[-1]
        with_lane, without = image(frame, cfg), image(frame, replace(cfg, no_gif_plan=True))
        assert with_lane.height > without.height
    plain = trace.without_plan()
    assert plain.lane == ()
    assert [frame.level_name for frame in trace.frames("hierarchical")][:2] == ["Plan", "L0 step 1/8"]
    assert plain.frames("hierarchical")[0].level_name == "L0 step 1/8"
    assert not trace.frames("hierarchical")[0].output.any()


def test_a_piece_that_was_written_by_hand_has_its_lane_too(tmp_path: Path) -> None:
    plain = Document(2 * 1920, notes=(Note(0, 60, 0, 480, 90),))
    marked = replace(plain, chords=((0, "C"), (1920, "F")), sections=((0, "A"),))
    heights = []
    for document in (plain, marked):
        draw("gif", document, None, tmp_path / "a.gif")
        heights.append(len(decoded(tmp_path / "a.gif")[0][0]))
    assert heights[1] - heights[0] == 2 * round(1.6 * 0.75 * RenderConfig.gif_font_size)  # two rows of text
    draw("html", marked, None, tmp_path / "a.html")
    piece, _ = contents((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert piece["lane"] == [[0, 32, "A", 0], [0, 16, "C", 1], [16, 32, "F", 1]]


def test_bars_shorter_than_their_columns_leave_no_gap() -> None:
    trace = made_up(columns=[12, 16, 12, 16, 12, 16], meters=[[0, 3, 4]], steps_per_bar=12)
    assert trace.roll.width == 84
    for view in ("process", "hierarchical", "levels"):
        assert {frame.output.shape for frame in trace.frames(view)} == {(128, 84)}
    assert [span.start for span in trace.lane if span.row == 0] == [0, 28, 56]
    piece, _ = contents(page(trace, RenderConfig()))
    assert piece["columns"] == [0, 12, 28, 40, 56, 68]
    assert piece["shape"] == [128, 84]


@pytest.mark.parametrize(
    "settings",
    [
        {"columns": [16] * 5},
        {"columns": "all"},
        {"columns": [17] + [16] * 5},
        {"plan": Plan.free(5, 16).to_dict()},
        {"plan": {"chords": [9], "returns": [0], "left": [0]}},
        {"plan": 3},
    ],
)
def test_plans_that_do_not_fit_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    trace = made_up(**settings)
    trace.save(tmp_path / "a.trace.npz")
    with pytest.raises(UserError, match=r"a.trace.npz"):
        Trace.load(tmp_path / "a.trace.npz")


@pytest.mark.slow
def test_the_page_shows_the_lane(tmp_path: Path, browser: Browser) -> None:
    path = tmp_path / "piece.html"
    path.write_text(page(made_up(columns=[12, 16, 12, 16, 12, 16], meters=[[0, 3, 4]]), RenderConfig()), "utf-8")
    tab = Tab(browser)
    player = tab.open(path)
    player.click("[data-view=hierarchical]")
    player.evaluate("fractalgen.seek(0)")
    assert player.text_content("#step-text") == "Plan"
    player.evaluate("new Promise(requestAnimationFrame)")  # the page paints in the next frame
    pixels = np.array(
        player.evaluate("Array.from(document.querySelector('#roll').getContext('2d').getImageData(60, 22, 1, 10).data)")
    ).reshape(-1, 4)
    assert (np.ptp(pixels[:, :3], axis=1) > 4).any()  # the band of the first section is coloured
    tab.check()

"""The HTML player in a real browser: what it shows, says, plays and lets a person do."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import HOLD, ONSET, velocities
from fractalgen.render.page import PAPERS, page, save_html
from fractalgen.trace import Trace
from tests.browser import EAR, Tab, until
from tests.render.test_page import CONFIG, HOSTILE, LEVELS, contents, made_up, rgb


@pytest.fixture
def show(tab: Tab, tmp_path: Path) -> Iterator[Any]:
    """Opens the page of a trace; afterwards nothing may have been complained about or fetched."""

    windows = [tab]

    def opened(
        trace: Trace,
        *,
        title: str = "piece",
        dark: bool = True,
        calm: bool = False,
        window: Tab = tab,
        **options: Any,
    ) -> Page:
        path = tmp_path / "piece.html"
        path.write_text(page(trace, CONFIG, title=title, **options), encoding="utf-8")
        windows.append(window)
        window.page.emulate_media(
            color_scheme="dark" if dark else "light", reduced_motion="reduce" if calm else "no-preference"
        )
        return window.open(path)

    yield opened
    for window in windows:
        window.check()
        assert all(url.startswith(("file:", "data:", "blob:")) for url in window.requests), window.requests


def values(player: Page, width: int = 64) -> np.ndarray:
    """The roll as the page shows it: velocities (128, T)."""
    shown = json.loads(player.evaluate("JSON.stringify(fractalgen.values())"))  # as one text it comes much faster
    return np.array(shown, np.float32).reshape(128, width)


def state(player: Page, name: str) -> Any:
    return player.evaluate(f"fractalgen.state().{name}")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "known_until"), [("ar", 0), ("mar", 0), ("ar", 16)])
def test_the_process_is_that_of_the_trace(show: Any, kind: str, known_until: int) -> None:
    trace = made_up(kind, known_until=known_until)
    frames = trace.frames("process", record_interval=1)
    player = show(trace)
    np.testing.assert_array_equal(values(player), trace.velocities)  # it opens with the finished piece
    for done in (0, 1, len(trace.steps) // 2, len(trace.steps) - 1, len(trace.steps)):
        player.evaluate(f"fractalgen.seek({done})")
        np.testing.assert_array_equal(values(player), frames[done].output)
        assert player.text_content("#step-text") == frames[done].level_name
    player.evaluate("fractalgen.seek(0)")
    assert (values(player) > 0).sum() == (trace.tokens[:, :known_until] > 0).sum()


def test_within_a_step_the_levels_follow_each_other(show: Any) -> None:
    trace = made_up()
    finest = trace.frames("hierarchical")
    after = [finest[7].output, finest[11].output, finest[13].output, finest[14].output]  # what each level left
    busy = next(step for step in range(32) if trace.tokens[trace.decided[0] == step].any())
    player = show(trace)
    for level in range(LEVELS - 1):
        player.evaluate(f"fractalgen.seek({busy} + {level + 1} / {LEVELS})")
        wanted = np.where(trace.decided[0] < busy, trace.velocities, 0)
        wanted = np.where(trace.decided[0] == busy, after[level], wanted)
        np.testing.assert_allclose(values(player), wanted, atol=1e-6)
        assert player.text_content("#step-text") == f"AR L0 patch {busy + 1}/32 · L{level}"


@pytest.mark.parametrize("known_until", [0, 20])
def test_the_hierarchical_view_is_that_of_the_trace(show: Any, known_until: int) -> None:
    trace = made_up(known_until=known_until)
    player = show(trace, view="hierarchical")
    ticks, start, frames = player.evaluate("fractalgen.ticks"), 0, iter(trace.frames("hierarchical"))
    for level, count in enumerate(trace.num_iter_list):
        for step in range(count):
            player.evaluate(f"fractalgen.seek({start + (step + 1) * ticks[level] // count})")
            frame = next(frames)
            np.testing.assert_allclose(values(player), frame.output, atol=1e-6)
            assert player.text_content("#step-text") == frame.level_name
        start += ticks[level]


def test_pixels_match_cells(show: Any) -> None:
    trace = made_up(known_until=16)
    piece, _ = contents(page(trace, CONFIG))
    for dark, theme in ((True, "dark"), (False, "light")):
        player = show(trace, dark=dark)
        player.evaluate("fractalgen.seek(16)")  # half of the steps
        decided, washed = trace.known | (trace.decided[0] < 16), trace.decided[0] == 15  # the newest patch, faintly
        cells = [(pitch, step) for pitch in range(42, 78, 3) for step in range(0, 64, 4)]  # where notes may begin
        places = player.evaluate(f"{json.dumps(cells)}.map(([pitch, step]) => fractalgen.place(pitch, step))")
        picture = picture_of(player)
        papers = [list(PAPERS[theme]), rgb(colour(player, "--row"))]
        seen = {"onset": 0, "silence": 0, "later": 0, "known": 0}
        for (pitch, step), place in zip(cells, places, strict=True):
            pixel = picture[int(place["y"]), int(place["x"])]
            token = trace.tokens[pitch, step]
            if not decided[pitch, step] or not token:
                seen["later" if token else "silence"] += 1
                assert any(np.array_equal(pixel, paper) for paper in papers) or washed[pitch, step]
            elif token >= ONSET:
                shade = round(float(velocities(np.array([[token]]))[0, 0]) * 63)
                seen["known" if trace.known[pitch, step] else "onset"] += 1
                if trace.known[pitch, step]:  # four fifths of its tint
                    tint = np.array(rgb(piece["tints"][theme]))
                    mixed = [0.8 * tint + 0.2 * np.array(paper) for paper in papers]
                    assert min(np.abs(pixel - mix).max() for mix in mixed) < 2
                else:
                    assert pixel.tolist() == rgb(piece["ramps"][theme][shade])
        assert min(seen.values()) > 0, seen


def picture_of(player: Page) -> np.ndarray:
    """What the window shows, (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(player.screenshot())).convert("RGB"))


def colour(player: Page, name: str) -> str:
    """A colour of the style sheet."""
    value: str = player.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('{name}').trim()")
    return value


def test_flats_are_written_in_flat_keys(show: Any) -> None:
    for key, name in (("C minor", "E♭4"), ("E minor", "D♯4")):
        player = show(dataclasses.replace(made_up(), settings={"key": key}))
        assert player.evaluate("fractalgen.pitchName(63)") == name


def test_pointing_at_a_cell_tells_about_it(show: Any) -> None:
    trace = dataclasses.replace(made_up(), settings={"key": "A minor"})
    pitch, step = (int(n) for n in np.argwhere((trace.tokens >= ONSET) & (np.arange(64) >= 20))[0])
    names = ["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"]
    name = f"{names[pitch % 12]}{pitch // 12 - 1}"
    velocity = round(float(trace.velocities[pitch, step]) * 127)
    player = show(trace)

    def hover(pitch: int, step: int) -> list[str]:
        place = player.evaluate(f"fractalgen.place({pitch}, {step})")
        assert player.evaluate(f"fractalgen.cellAt({place['x']}, {place['y']})") == {"pitch": pitch, "step": step}
        player.mouse.move(place["x"], place["y"])
        assert player.evaluate("document.getElementById('tip').hidden") is False
        return player.text_content("#tip").split("\n")

    ranks = [int(plane[pitch, step]) + 1 for plane in trace.decided[:3]]
    time = f"bar {step // 16 + 1} : beat {step % 16 // 4 + 1} : step {step % 4 + 1}"
    places = f"{ranks[0]}/32 › {ranks[1]}/16 › {ranks[2]}/16"
    assert hover(pitch, step) == [
        f"{name} · velocity {velocity}",
        time,
        "struck, 3 steps long",
        f"decided at L3 (AR), step {places}",
    ]
    assert hover(pitch, step + 1)[2] == "held, 3 steps long"
    player.evaluate(f"fractalgen.seek({ranks[0] - 1})")
    later = [f"{name} · not decided yet", time, f"begins at L0 (AR), step {ranks[0]}/32"]
    assert hover(pitch, step) == later  # and not a word on what it will be
    assert hover(60, 2)[0] == "C4 · velocity 64" if trace.decided[0][60, 2] < ranks[0] - 1 else "C4 · not decided yet"
    player.mouse.move(5, 5)
    assert player.evaluate("document.getElementById('tip').hidden") is True


@pytest.mark.slow
def test_keys_and_buttons(show: Any) -> None:
    player = show(made_up())
    for keys, name, wanted in (
        ("h", "view", "hierarchical"),
        ("2", "label", "L1 step 4/4"),
        ("p", "view", "process"),
        ("Home", "label", "Init"),
        ("ArrowRight ArrowRight ArrowLeft", "label", "AR L0 patch 1/32"),
        ("+", "speed", 2),
        ("d", "view", "process"),  # this trace has no chances
        ("Space", "playing", True),
    ):
        for key in keys.split():
            player.keyboard.press(key)
        assert state(player, name) == wanted
    assert player.evaluate("document.querySelector('[data-view=density]').hidden") is True
    until(player, "fractalgen.state().position > 12")
    player.keyboard.press(" ")
    assert state(player, "playing") is state(player, "sounding") is False  # composing makes no sound of its own
    player.keyboard.press("?")
    assert player.evaluate("document.getElementById('help-panel').open") is True
    player.keyboard.press("Escape")
    until(player, "!document.getElementById('help-panel').open")
    player.click("#views [data-view=hierarchical]")
    assert state(player, "view") == "hierarchical"
    for level, label in ((1, "L1 step 4/4"), (0, "L0 step 8/8")):
        player.click(f"#levels [data-level='{level}']")
        assert state(player, "label") == label
        assert player.evaluate(f"document.querySelector('[data-level=\"{level}\"]').ariaPressed") == "true"
    before = player.evaluate("document.documentElement.dataset.theme")
    player.keyboard.press("t")
    assert {before, player.evaluate("document.documentElement.dataset.theme")} == {"dark", "light"}


@pytest.mark.slow
def test_all_pitches_and_wider_steps(show: Any) -> None:
    player = show(made_up())
    assert player.evaluate("fractalgen.place(127, 0).y < document.querySelector('main').offsetTop")  # cropped away
    player.keyboard.press("a")
    top = player.evaluate("fractalgen.place(127, 0)")
    assert player.evaluate(f"fractalgen.cellAt({top['x']}, {top['y']})") == {"pitch": 127, "step": 0}
    width = "fractalgen.place(60, 1).x - fractalgen.place(60, 0).x"
    fitting = player.evaluate(width)
    for key, factor in (("]", 1.5), ("[", 1)):
        player.keyboard.press(key)
        assert player.evaluate(width) == pytest.approx(factor * fitting, abs=1)


@pytest.mark.slow
def test_the_process_plays_to_its_end_and_starts_again(show: Any) -> None:
    player = show(made_up("mar"))
    player.click("#play")  # at the end: from the beginning
    until(player, "fractalgen.state().playing && fractalgen.state().position < 12")
    for _ in range(3):
        player.keyboard.press("+")
    until(player, "!fractalgen.state().playing")
    assert state(player, "label") == "Iter 4 batch 2"


@pytest.mark.slow
@pytest.mark.parametrize("calm", [False, True])
def test_little_motion_means_whole_steps(show: Any, calm: bool) -> None:
    player = show(made_up(), calm=calm)
    player.evaluate("fractalgen.seek(0)")
    player.evaluate(
        "window.seen = new Set(); (function look() {"
        "seen.add(fractalgen.state().position); requestAnimationFrame(look) })()"
    )
    for _ in range(2):
        player.keyboard.press("+")
    player.keyboard.press(" ")
    until(player, "fractalgen.state().position > 15")
    player.keyboard.press(" ")
    between = player.evaluate("[...seen].filter((position) => position % 4).length")
    assert (between == 0) == calm


@pytest.mark.slow
def test_the_music_plays_by_itself(show: Any) -> None:
    trace = made_up()
    player = show(trace)
    position = state(player, "position")
    player.keyboard.press("m")
    until(player, "fractalgen.state().music > 0.2")
    assert state(player, "sounding") is True
    assert state(player, "position") == position
    player.keyboard.press("m")
    assert state(player, "sounding") is False
    player.evaluate("document.activeElement.blur()")
    for _ in range(5):
        player.keyboard.press("Shift+ArrowRight")
    assert state(player, "music") == pytest.approx(64 * 60 / 90 / 4, abs=1e-3)
    player.keyboard.press("Shift+ArrowLeft")
    assert state(player, "music") == pytest.approx(48 * 60 / 90 / 4, abs=1e-3)
    assert player.text_content("#time-text") == "0:08 / 0:10"


# Which frequency is the strongest one.
PITCH = """
window.pitch = () => {
  const strength = new Float32Array(ear.frequencyBinCount);
  ear.getFloatFrequencyData(strength);
  return strength.indexOf(Math.max(...strength)) * ear.context.sampleRate / ear.fftSize;
};
"""


@pytest.mark.slow
def test_the_music_can_be_heard(show: Any, tab: Tab) -> None:
    tokens = np.zeros((128, 64), np.uint8)
    tokens[69] = HOLD
    tokens[69, 0] = ONSET + 24  # one long A above middle C: 440 Hz
    tab.page.add_init_script(EAR + PITCH)
    player = show(made_up(tokens=tokens))
    player.keyboard.press("m")
    until(player, "fractalgen.state().music > 0.5")
    assert 0.02 < player.evaluate("peak()") < 1
    assert player.evaluate("pitch()") == pytest.approx(440, abs=6)
    player.keyboard.press("m")
    until(player, "peak() < 0.001")


def test_the_download_is_the_midi_file(show: Any, tmp_path: Path) -> None:
    trace = made_up()
    PianoRoll(trace.tokens, tempos=((0, 90.0),)).to_midi(tmp_path / "wanted.mid")
    player = show(trace, title="my/piece 1")
    with player.expect_download() as saved:
        player.click("#midi")
    assert saved.value.suggested_filename == "my_piece 1.mid"
    assert saved.value.path().read_bytes() == (tmp_path / "wanted.mid").read_bytes()


def test_hostile_strings_stay_text(show: Any, tab: Tab) -> None:
    player = show(made_up(checkpoint=HOSTILE, settings={HOSTILE: HOSTILE}), title=HOSTILE)
    assert player.text_content("h1") == player.evaluate("document.title") == HOSTILE
    player.keyboard.press("i")
    assert player.text_content("#facts dd") == HOSTILE
    assert player.evaluate("typeof window.pwned") == "undefined"
    # The policy lets no other script run, even one that found its way into the page.
    player.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"window.pwned = 1\">')"
    )
    player.wait_for_timeout(100)
    assert any("script-src" in problem for problem in tab.problems)
    assert player.evaluate("typeof window.pwned") == "undefined"
    tab.problems.clear()


def test_density_shows_chances_as_they_are_decided(show: Any) -> None:
    trace = made_up(chances=np.full((128, 64), 128, np.uint8))
    player = show(trace, view="density")
    assert state(player, "view") == "density"
    place = player.evaluate("fractalgen.place(60, 40)")

    def pixel() -> list[int]:
        return picture_of(player)[int(place["y"]), int(place["x"])].tolist()

    after = pixel()
    player.mouse.move(place["x"], place["y"])
    assert player.text_content("#tip").endswith("chance to sound 50 %")
    player.mouse.move(5, 5)
    player.evaluate("fractalgen.seek(0)")
    assert pixel() != after
    assert tuple(pixel()) in (PAPERS["dark"], PAPERS["light"])


def test_a_phone_is_wide_enough(show: Any, browser: Browser) -> None:
    trace = made_up(width=2400, notes=2000)
    phone = Tab(browser, width=390, height=844, has_touch=True, is_mobile=True, device_scale_factor=2)
    player = show(trace, window=phone)
    assert player.evaluate("document.documentElement.scrollWidth") == 390
    assert player.evaluate("document.documentElement.scrollHeight") == 844
    assert player.evaluate("document.querySelector('main').scrollWidth") > 2400 * 4
    player.evaluate("fractalgen.seek(900)")  # the window follows the process
    step = 900 * 16 // 8 - 16  # of the 900th patch, eight to a column
    place = player.evaluate(f"fractalgen.place(60, {step})")
    assert 0 < place["x"] < 390
    player.evaluate("fractalgen.seek(1200)")
    pitch, step = (int(n) for n in np.argwhere(trace.tokens[:, 2390:] >= ONSET)[0] + (0, 2390))
    place = player.evaluate(f"fractalgen.place({pitch}, {step})")
    player.touchscreen.tap(place["x"], place["y"])
    until(player, "!document.getElementById('tip').hidden")
    assert f"bar 150 : beat {step % 16 // 4 + 1}" in player.text_content("#tip")


@pytest.mark.parametrize("dark", [True, False])
def test_the_page_follows_the_system_unless_told_otherwise(show: Any, tab: Tab, dark: bool, tmp_path: Path) -> None:
    player = show(made_up(), dark=dark)
    wanted = "dark" if dark else "light"
    assert colour(player, "--roll") == "#{:02x}{:02x}{:02x}".format(*PAPERS[wanted])
    path = tmp_path / "light.html"
    save_html(made_up(), path, dataclasses.replace(CONFIG, gif_theme="light"))
    tab.open(path)
    assert colour(player, "--roll") == "#{:02x}{:02x}{:02x}".format(*PAPERS["light"])
    assert player.text_content("h1") == "light"  # the name of the file

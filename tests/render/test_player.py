"""The HTML player in a real browser: what it shows, says, plays and lets a person do."""

from __future__ import annotations

import dataclasses
import http.server
import io
import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from fractalgen.files import ASSETS
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import HOLD, ONSET, midi_velocity, velocities
from fractalgen.render.page import PAPERS, page, save_html
from fractalgen.trace import Trace
from tests.browser import EAR, Tab, until
from tests.render.test_page import CONFIG, HOSTILE, LEVELS, contents, made_up, rgb
from tests.render.test_sound import RATE, begins, loudness, mono, peak_frequency, roll


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Tab:
    """One window for all tests of this file."""
    return Tab(browser)


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
    return np.array(player.evaluate("fractalgen.values()"), np.float32).reshape(128, width)


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
        decided = trace.known | (trace.decided[0] < 16)
        cells = [(pitch, step) for pitch in range(42, 78, 3) for step in range(0, 64, 4)]  # where notes may begin
        places = player.evaluate(f"{json.dumps(cells)}.map(([pitch, step]) => fractalgen.place(pitch, step))")
        picture = np.asarray(Image.open(io.BytesIO(player.screenshot())).convert("RGB"))
        papers = [list(PAPERS[theme]), rgb(colour(player, "--row"))]
        seen = {"onset": 0, "silence": 0, "later": 0, "known": 0}
        for (pitch, step), place in zip(cells, places, strict=True):
            pixel = picture[int(place["y"]), int(place["x"])]
            token = trace.tokens[pitch, step]
            if not decided[pitch, step] or not token:
                seen["later" if token else "silence"] += 1
                assert any(np.array_equal(pixel, paper) for paper in papers) or in_current_patch(trace, pitch, step)
            elif token >= ONSET:
                shade = round(float(velocities(np.array([[token]]))[0, 0]) * 63)
                known = trace.known[pitch, step]
                seen["known" if known else "onset"] += 1
                if known:  # four fifths of its tint
                    tint = np.array(rgb(piece["tints"][theme]))
                    mixed = [0.8 * tint + 0.2 * np.array(paper) for paper in papers]
                    assert min(np.abs(pixel - mix).max() for mix in mixed) < 2
                else:
                    assert pixel.tolist() == rgb(piece["ramps"][theme][shade])
        assert min(seen.values()) > 0, seen


def colour(player: Page, name: str) -> str:
    """A colour of the style sheet."""
    value: str = player.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('{name}').trim()")
    return value


def in_current_patch(trace: Trace, pitch: int, step: int) -> bool:
    """Whether a cell lies in the patch of step 16, the one before the seventeenth, which has a faint wash."""
    return bool(trace.decided[0][pitch, step] == 15)


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

    def state(name: str) -> Any:
        return player.evaluate(f"fractalgen.state().{name}")

    player.keyboard.press("h")
    assert state("view") == "hierarchical"
    player.keyboard.press("2")
    assert state("label") == "L1 step 4/4"
    assert player.evaluate("document.querySelector('[data-level=\"1\"]').ariaPressed") == "true"
    player.keyboard.press("p")
    player.keyboard.press("Home")
    assert (state("view"), state("label")) == ("process", "Init")
    player.keyboard.press("ArrowRight")
    player.keyboard.press("ArrowRight")
    player.keyboard.press("ArrowLeft")
    assert state("label") == "AR L0 patch 1/32"
    player.keyboard.press("+")
    assert state("speed") == 2
    player.keyboard.press("d")  # this trace has no chances
    assert state("view") == "process"
    assert player.evaluate("document.querySelector('[data-view=density]').hidden") is True
    player.keyboard.press(" ")
    assert state("playing") is True
    until(player, "fractalgen.state().position > 12")
    player.keyboard.press(" ")
    assert state("playing") is False
    assert state("sounding") is False  # composing makes no sound of its own
    player.keyboard.press("?")
    assert player.evaluate("document.getElementById('help-panel').open") is True
    player.keyboard.press("Escape")
    until(player, "!document.getElementById('help-panel').open")
    assert player.evaluate("fractalgen.place(127, 0).y < document.querySelector('main').offsetTop")  # cropped away
    player.keyboard.press("a")
    top = player.evaluate("fractalgen.place(127, 0)")
    assert player.evaluate(f"fractalgen.cellAt({top['x']}, {top['y']})") == {"pitch": 127, "step": 0}
    width = "fractalgen.place(60, 1).x - fractalgen.place(60, 0).x"
    fitting = player.evaluate(width)
    player.keyboard.press("]")
    assert player.evaluate(width) == pytest.approx(1.5 * fitting, abs=1)
    player.keyboard.press("[")
    assert player.evaluate(width) == pytest.approx(fitting, abs=1)
    player.click("#views [data-view=hierarchical]")
    assert state("view") == "hierarchical"
    player.click("#levels [data-level='0']")
    assert state("label") == "L0 step 8/8"
    before = player.evaluate("document.documentElement.dataset.theme")
    player.keyboard.press("t")
    assert {before, player.evaluate("document.documentElement.dataset.theme")} == {"dark", "light"}


@pytest.mark.slow
def test_the_process_plays_to_its_end_and_starts_again(show: Any) -> None:
    player = show(made_up("mar"))
    player.click("#play")  # at the end: from the beginning
    until(player, "fractalgen.state().playing && fractalgen.state().position < 12")
    for _ in range(3):
        player.keyboard.press("+")
    until(player, "!fractalgen.state().playing")
    assert player.evaluate("fractalgen.state().label") == "Iter 4 batch 2"


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
    position = player.evaluate("fractalgen.state().position")
    player.keyboard.press("m")
    until(player, "fractalgen.state().music > 0.2")
    assert player.evaluate("fractalgen.state().sounding") is True
    assert player.evaluate("fractalgen.state().position") == position
    player.keyboard.press("m")
    assert player.evaluate("fractalgen.state().sounding") is False
    player.evaluate("document.activeElement.blur()")
    for _ in range(5):
        player.keyboard.press("Shift+ArrowRight")
    assert player.evaluate("fractalgen.state().music") == pytest.approx(64 * 60 / 90 / 4, abs=1e-3)
    player.keyboard.press("Shift+ArrowLeft")
    assert player.evaluate("fractalgen.state().music") == pytest.approx(48 * 60 / 90 / 4, abs=1e-3)
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


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder that is served, the package's modules and samples in it, and its address."""
    folder = tmp_path_factory.mktemp("served")
    for name in ("player", "piano"):
        (folder / name).symlink_to(ASSETS / name)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_the_joined_script_does_what_the_modules_do(show: Any, tab: Tab, address: tuple[Path, str]) -> None:
    folder, url = address

    def seen() -> list[Any]:
        found = []
        for key in ("p", "h", "Home", "ArrowRight", "p", "ArrowLeft", "3", "End"):
            player.keyboard.press(key)
            words = [
                player.text_content(selector) for selector in ("#about", "#says", "#step-text", "#time-text", "#facts")
            ]
            found.append((player.evaluate("fractalgen.state()"), player.evaluate("fractalgen.stages()"), words))
        player.mouse.move(640, 400)
        return [*found, player.text_content("#tip"), player.screenshot()]

    trace = made_up(known_until=16)
    player = show(trace, calm=True)  # no button is on its way to another colour
    seen_joined = seen()
    modules = re.sub(r"<meta http-equiv.*?>", "", page(trace, CONFIG, title="piece"))
    modules, count = re.subn(
        r'<script type="module">.*</script>',
        '<script type="module" src="player/player.js"></script>',
        modules,
        flags=re.S,
    )
    assert count == 1
    (folder / "modules.html").write_text(modules, encoding="utf-8")
    player.goto(f"{url}/modules.html")
    until(player, "Boolean(window.fractalgen)")
    assert any(request.endswith("player/trace.js") for request in tab.requests)
    assert seen() == seen_joined
    tab.requests.clear()  # these were allowed


RENDER = """
window.render = async (source, notes, seconds, stop) => {
  const { Piano } = await import("/player/piano.js");
  const context = new OfflineAudioContext(1, 44100 * seconds, 44100), piano = new Piano(context);
  await piano.load(source);
  for (const [pitch, velocity, start, end] of notes) piano.strike({ pitch, velocity }, start, end ?? undefined);
  if (stop) context.suspend(stop).then(() => (piano.stopAll(), context.resume()));
  return Array.from((await context.startRendering()).getChannelData(0));
};
"""


@pytest.fixture
def render(tab: Tab, address: tuple[Path, str]) -> Any:
    """Renders notes (pitch, velocity, start, end in seconds) as piano.js plays them, both channels as one."""
    folder, url = address
    (folder / "empty.html").write_text(f"<link rel=icon href='data:,'><script>{RENDER}</script>", encoding="utf-8")
    tab.problems.clear()
    tab.page.goto(f"{url}/empty.html")

    def rendered(*notes: Any, seconds: float = 2, stop: float = 0, source: Any = "/piano/") -> np.ndarray:
        arguments = ", ".join(map(json.dumps, (source, notes, seconds, stop)))
        sound = np.array(json.loads(tab.page.evaluate(f"render({arguments}).then(JSON.stringify)")), np.float32)
        tab.check()
        return sound

    return rendered


@pytest.mark.slow
@pytest.mark.parametrize("source", ["/piano/", "/piano/small"])
def test_the_piano_plays_pitch_loudness_and_length(render: Any, source: str) -> None:
    soft, loud = (render((61, velocity, 0.5, 1.0), source=source) for velocity in (0.3, 0.9))
    for sound in (soft, loud):
        assert begins(sound) == pytest.approx(0.5, abs=0.003)
        wanted = 440 * 2 ** (-8 / 12)
        heard = peak_frequency(sound, 0.55, 1.0, 0.9 * wanted, 1.1 * wanted)
        assert 1200 * np.log2(heard / wanted) == pytest.approx(0, abs=10)
        assert loudness(sound, 0.9, 1.0) > 10 * loudness(sound, 1.5, 1.6) > 0  # the damper, then the room
        assert np.abs(sound[round(1.9 * RATE) :]).max() < 2e-3
    assert 4 < loudness(loud, 0.5, 1) / loudness(soft, 0.5, 1) < 8
    bright = [np.square(np.abs(np.fft.rfft(sound)))[6000:].sum() / np.square(sound).sum() for sound in (soft, loud)]
    assert bright[1] > 4 * bright[0]  # what lies above 3 kHz


@pytest.mark.slow
def test_the_page_and_the_sound_file_are_alike(render: Any) -> None:
    """The same keys, relative to one of them: the page adds a small room."""

    def levels(sounds: list[np.ndarray]) -> np.ndarray:
        found = 20 * np.log10([loudness(sound, 0.01, 0.5) for sound in sounds])
        return found - found[0]

    keys = [(60, 15), (60, 28), (45, 15), (73, 22), (90, 15)]
    bins = [midi_velocity(np.array([velocity]), 32)[0] / 127 for _, velocity in keys]
    page_sounds = [
        render((pitch, float(force), 0, 0.5), seconds=1) for (pitch, _), force in zip(keys, bins, strict=True)
    ]
    file_sounds = [mono(roll((pitch, 0, 4, velocity))) for pitch, velocity in keys]
    np.testing.assert_allclose(levels(page_sounds), levels(file_sounds), atol=2)


@pytest.mark.slow
def test_the_piano_neither_clips_nor_rings_when_stopped(render: Any) -> None:
    many = [(pitch, 1.0, 0.1, None) for pitch in range(36, 84, 2)]
    assert 0.7 < np.abs(render(*many)).max() < 1
    later = [*many, (60, 1.0, 1.2, 1.8)]  # what is yet to begin is stopped, too
    stopped = render(*later, stop=0.5, seconds=3)
    assert loudness(stopped, 0.4, 0.5) > 0.1
    assert np.abs(stopped[round(1.5 * RATE) :]).max() < 1e-3


@pytest.mark.slow
def test_missing_samples_are_told(render: Any, tab: Tab) -> None:
    said = tab.page.evaluate("render('/nowhere', [], 1).catch((error) => error.message)")
    assert said == "/nowhere/samples.json: 404 File not found"
    tab.problems.clear()


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
    assert player.evaluate("fractalgen.state().view") == "density"
    place = player.evaluate("fractalgen.place(60, 40)")

    def pixel() -> list[int]:
        picture = np.asarray(Image.open(io.BytesIO(player.screenshot())).convert("RGB"))
        return picture[int(place["y"]), int(place["x"])].tolist()

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

"""The piano of the page, in a real browser: pitch, loudness and length of its tones, beside those of sound files."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractalgen.files import ASSETS
from fractalgen.music.tokens import midi_velocity
from tests.browser import Tab
from tests.render.test_sound import RATE, begins, loudness, mono, peak_frequency, roll


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
    """The same keys, one every two seconds, relative to the first: the page adds a small room."""

    def levels(sound: np.ndarray) -> np.ndarray:
        found = 20 * np.log10([loudness(sound, 2 * number + 0.01, 2 * number + 0.5) for number in range(len(keys))])
        return found - found[0]

    keys = [(60, 15), (60, 28), (45, 15), (73, 22), (90, 15)]
    notes = [
        (pitch, int(midi_velocity(velocity)) / 127, 2 * number, 2 * number + 0.5)
        for number, (pitch, velocity) in enumerate(keys)
    ]
    in_file = roll(*((pitch, 16 * number, 4, velocity) for number, (pitch, velocity) in enumerate(keys)), width=80)
    np.testing.assert_allclose(levels(render(*notes, seconds=10)), levels(mono(in_file)), atol=2)


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

"""What is heard: while it composes, in a loop, with metronome and pedal, and from a keyboard that is played."""

from __future__ import annotations

import pytest

from fractalgen.studio.document import Document, Note
from tests.studio.e2e.conftest import Opener
from tests.studio.e2e.driver import BAR, song

pytestmark = pytest.mark.slow


def test_listening_may_begin_while_it_composes_and_stop_keeps_what_is_there(open_studio: Opener) -> None:
    tab = open_studio(sound=True)
    tab.fill("Bars", "64")
    tab.button("Compose 64 bars").click()
    tab.until("studio.composing && studio.shown.notes.length > 4")
    tab.press("Space")
    tab.until("studio.cursor > 0 && studio.playing")
    assert tab.js("studio.cursor <= studio.live.limit")
    tab.hear()
    tab.button("Stop", within="#go").click()
    tab.rest()
    assert tab.js("studio.project.states.get(studio.project.head).label").endswith("(stopped)")
    assert tab.document()["notes"]


def test_a_selection_is_looped(open_studio: Opener) -> None:
    tab = open_studio(song(8), sound=True)
    tab.page.locator("footer").get_by_label("Tempo").fill("400")
    tab.press("Enter")
    tab.mark(3, 3)
    tab.button("Loop the region").click()
    tab.until("studio.playing && studio.cursor > 2.5 * 1920")
    tab.hear()
    tab.js(
        "new Promise((after) => { window.seen = []; (function look() { seen.push(studio.cursor);"
        " seen.length > 2 && seen.at(-1) < seen.at(-2) - 900 ? after() : requestAnimationFrame(look); })(); })"
    )
    assert tab.js("seen.every((tick) => tick >= 2 * 1920 && tick <= 3 * 1920)")
    tab.press("l", "Space")
    tab.press("Space")
    tab.until("studio.cursor > 3 * 1920")


# A second after the key was let go: whether it is shown, and whether it is heard.
SOON_AFTER = """
new Promise((after) => (function look() {
  if (studio.cursor > 500) after([studio.sounding.has(60), peak() > 0.002]);
  else requestAnimationFrame(look);
})())
"""


def test_the_metronome_and_the_pedal(open_studio: Opener) -> None:
    tab = open_studio(Document(64 * BAR, ((0, 60.0),), notes=(Note(0, 60, 0, 60, 100, 0),)), sound=True)
    tab.page.mouse.click(*tab.lane(BAR, 14))  # the second bar, where no note is
    tab.press("Space")
    tab.until("studio.cursor > 1.1 * 1920")
    assert tab.js("peak()") < 0.001
    tab.press("m")
    tab.hear()
    tab.press("m", "Space")
    for pedal in (False, True):
        tab.until("peak() < 0.0005")
        tab.press("Home", "Space")
        assert tab.js(SOON_AFTER) == [pedal, pedal]
        tab.press("Space", "p")


# A keyboard that Web MIDI finds: `play(status, pitch, velocity)`.
KEYBOARD = """
const device = { name: "Keys", onmidimessage: null };
navigator.requestMIDIAccess = async () => ({ inputs: new Map([["1", device]]) });
window.play = (...data) => device.onmidimessage({ data });
null;
"""


def test_a_midi_keyboard_is_played_and_recorded(open_studio: Opener) -> None:
    tab = open_studio(sound=True)
    tab.js(KEYBOARD)
    tab.button("Record a MIDI keyboard").click()
    tab.page.get_by_text("Connected: Keys").wait_for()
    tab.until("studio.playing && studio.cursor > 240")
    tab.js("play(0x90, 64, 101)")
    tab.hear()
    tab.until("studio.cursor > 720")
    tab.js("play(0x80, 64, 0)")
    tab.button("Record a MIDI keyboard").click()
    ((_, pitch, start, duration, velocity, *_),) = tab.document()["notes"]
    assert (pitch, velocity) == (64, 101)
    assert start >= 240
    assert start + duration >= 720
    tab.press("Control+z")
    assert tab.document()["notes"] == []

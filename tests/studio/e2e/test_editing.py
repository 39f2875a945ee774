"""Editing and saving: with the mouse and the keys, undone and redone, over reloads and without the server."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.studio.e2e.conftest import Opener
from tests.studio.e2e.driver import BAR, SLOW_SERVER, StudioTab, places, song
from tests.studio.server import Server

pytestmark = pytest.mark.slow


def edits(tab: StudioTab) -> None:
    """One edit of each kind, with the mouse and the keys."""
    tab.press("2")
    tab.drag(tab.place(130, 84), tab.place(470, 84))
    tab.press("1")
    tab.drag(tab.place(240, 84), tab.place(240 + 480, 81))
    tab.press("Shift+ArrowRight", "Alt+ArrowUp", "Shift+ArrowUp", "k", "Control+c", "Control+v", "Delete")
    tab.page.mouse.click(*tab.lane(BAR + 10, 60))
    tab.page.keyboard.type("F#m7b5")
    tab.press("Enter")
    tab.page.mouse.click(*tab.lane(10, 38))
    tab.page.keyboard.type("Verse")
    tab.press("Enter")
    tab.page.locator("footer").get_by_label("Tempo").fill("90")
    tab.press("Enter")
    tab.page.get_by_label("Meter from this bar on").select_option("3/4")


def test_bars_where_the_meter_changes(open_studio: Opener) -> None:
    """3/4 from the start, 4/4 from bar 5 on."""
    waltz = 3 * 480
    piece = replace(song(6), meters=((0, 3, 4), (4 * waltz, 4, 4)), sections=((0, "A"), (4 * waltz, "B")))
    tab = open_studio(piece)
    tab.page.mouse.click(*tab.lane(4 * waltz + 10, 14))
    tab.edit("Insert 4 bars to fill")
    after = tab.document()
    assert after["length"] == piece.length + 4 * waltz
    assert after["meters"][1] == [8 * waltz, 4, 4]
    assert tab.js("[studio.region.start, studio.region.end]") == [4 * waltz, 8 * waltz]
    end = 1.5 * waltz
    tab.js(f"studio.setRegion({{ start: 0, end: {end}, low: 0, high: 128 }})")
    tab.edit("End the piece here")
    short = tab.document()
    assert short["length"] == end
    assert all(note[2] + note[3] <= end for note in short["notes"])
    assert len(short["notes"]) == sum(note.start < end for note in piece.notes)
    assert [lane for name in ("chords", "sections", "meters") for lane in short[name] if lane[0] >= end] == []
    tab.press("Escape")
    tab.page.mouse.click(*tab.place(0.5 * waltz, 60), button="right")
    tab.page.get_by_role("menuitem", name="End the piece here").click()
    assert tab.document()["length"] == waltz


def test_what_is_pasted_twice_stands_behind_one_another(open_studio: Opener) -> None:
    tab = open_studio(song(1))
    tab.press("Control+a", "Control+c", "Control+v", "Control+v")
    wanted = {(pitch, start + bar * BAR, *rest) for pitch, start, *rest in places(song(1).to_json()) for bar in (0, 1)}
    after = tab.document()
    assert places(after) == wanted
    assert len(after["notes"]) == 3 * len(song(1).notes)


def test_the_field_of_a_chord_stays_when_the_roll_moves(open_studio: Opener) -> None:
    tab = open_studio(song(16))
    for _ in range(3):
        tab.press("+")
    tab.js("studio.roll.reveal(0)")
    tab.page.mouse.click(*tab.lane(10, 60))
    tab.page.keyboard.type("C")
    tab.js("studio.roll.reveal(12 * 1920)")
    tab.page.wait_for_timeout(100)
    assert tab.js("document.querySelector('#lane-editor').offsetLeft") >= 56  # the keys are not covered
    tab.page.keyboard.type("maj7")
    tab.press("Enter")
    assert tab.document()["chords"][0] == [0, "Cmaj7"]
    assert len(tab.document()["notes"]) == len(song(16).notes)


def test_a_drag_at_the_edge_goes_on_behind_it(open_studio: Opener) -> None:
    tab = open_studio(song(16))
    tab.press(*"+++", "Home")
    tab.page.mouse.move(*tab.lane(0.2 * BAR, 14))
    tab.page.mouse.down()
    left = tab.js("studio.roll.canvas.getBoundingClientRect().left + studio.roll.width")
    tab.page.mouse.move(left - 6, tab.lane(0, 14)[1])
    tab.until("studio.roll.x(0) < -200")
    tab.page.mouse.up()
    assert tab.js("studio.region.start === 0 && studio.roll.x(studio.region.end) > studio.roll.width - 30")


def test_undo_goes_back_to_the_start_and_redo_to_the_end(open_studio: Opener) -> None:
    tab = open_studio()
    start = tab.document()
    tab.fill("Bars", "4")
    tab.compose()
    edits(tab)
    tab.mark(2, 2)
    tab.compose("Recompose the region")
    end = tab.document()
    assert [name for _, name in end["chords"]].count("F#m7b5") == 1
    assert end["meters"] != start["meters"]
    seen = [end]
    while tab.js("studio.project.canUndo"):
        tab.press("Control+z")
        seen.append(tab.document())
    assert len(seen) > 11
    assert seen[-1] == start
    assert all(one != other for one, other in pairwise(seen))
    for wanted in reversed(seen[:-1]):
        tab.press("Control+y")
        assert tab.document() == wanted
    mouse = tab.page.mouse
    note = min(end["notes"], key=lambda note: abs(note[1] - 66))  # the view shows the middle of the pitches
    mouse.move(*tab.place(note[2] + note[3] / 2, note[1]))
    mouse.down()
    mouse.move(*tab.place(note[2] + note[3] / 2, note[1] + 5))
    tab.until("studio.drafting")
    tab.press("Control+z")  # takes back the drag alone
    mouse.up()
    assert tab.document() == end
    expect(tab.button("Undo")).to_be_enabled()
    expect(tab.button("Redo")).to_be_disabled()
    tab.button("History").click()
    states = tab.page.locator("#states button")
    expect(states).to_have_count(len(seen))
    states.last.click()  # the empty page
    assert tab.document() == start


def test_the_page_is_reloaded(open_studio: Opener) -> None:
    tab = open_studio(song(4))
    start = tab.document()
    tab.page.locator("#volume").click()
    assert tab.js("document.activeElement === document.body")  # the keys are those of the music again
    samples = tab.page.locator("#samples")
    samples.select_option("3")
    tab.page.locator("#roll-box").focus()
    tab.press("Control+a", "ArrowUp")
    tab.page.reload()  # at once: what is not saved yet is kept by the browser
    tab.ready()
    after = tab.document()
    assert places(after) == {(pitch + 1, *rest) for pitch, *rest in places(start)}
    expect(samples).to_have_value("3")
    samples.select_option("1")  # later pages keep it
    tab.page.locator("#roll-box").focus()
    tab.press("Control+z")
    assert tab.document() == start
    tab.press("Control+y")
    assert tab.document() == after


def test_the_page_is_reloaded_while_alternatives_are_composed(open_studio: Opener) -> None:
    tab = open_studio(song(4))
    tab.mark(2, 3)
    region = tab.js("studio.region")
    tab.button("3 ways").click()
    tab.until("studio.live")
    tab.page.reload()
    tab.ready()
    expect(tab.page.get_by_role("article")).to_have_count(3)
    assert tab.js("studio.region") == region
    expect(tab.button("Recompose bars 2-3")).to_be_visible()


def test_nothing_is_lost_while_the_page_waits_for_the_server(open_studio: Opener) -> None:
    tab = open_studio(song(4))
    tab.press("Control+a", "ArrowUp")
    after = tab.document()
    tab.page.reload()
    tab.ready()
    tab.js(SLOW_SERVER)
    tab.press("Control+z", "Control+z")  # the page does not have the piece before the edit yet
    assert tab.document()["notes"] == []
    tab.press("Control+y", "Control+y")
    assert tab.document() == after
    tab.js("window.asked = studio.project.refresh(), null")
    tab.press("Control+a", "k")
    tab.rest()
    tab.js("asked")  # the answer is older than the edit
    assert all(note[-1] for note in tab.document()["notes"])
    assert tab.js("studio.piece.notes.every(({ locked }) => locked)")


def test_an_edit_comes_before_what_was_to_be_undone(open_studio: Opener) -> None:
    tab = open_studio(song(4))
    for _ in range(2):
        tab.press("Control+a", "ArrowUp")
        tab.rest()
    before = tab.document()
    tab.page.reload()
    tab.ready()
    tab.js(SLOW_SERVER)
    tab.press("Control+z", "Control+z", "Control+a", "k")
    tab.rest()
    assert places(tab.document()) == places(before)
    assert tab.js("studio.piece.notes.every(({ locked }) => locked)")


@pytest.fixture
def own_server(server: Server, tmp_path: Path) -> Any:
    """A studio that may be killed."""
    running = Server(tmp_path, *server.command[-4:])
    running.warm()
    yield running
    running.kill()


def test_the_server_is_killed_and_the_composer_goes_on(browser: Browser, own_server: Server) -> None:
    tab = StudioTab(browser, own_server)
    tab.fill("Bars", "4")
    tab.compose()
    composed = tab.document()
    own_server.kill()
    tab.page.get_by_text("The server does not answer").wait_for()
    tab.page.mouse.click(*tab.lane(10, 60))
    tab.page.keyboard.type("zz")  # no chord, but the server is not there to say so
    tab.press("Enter", "Control+a", "ArrowRight")
    tab.page.get_by_text("2 edits are kept here").wait_for()
    message = tab.page.locator(".toast.error")
    tab.button("Take away").click()
    tab.page.locator("#take-mid").click()
    expect(message).to_contain_text("nothing can be taken away now")
    message.get_by_role("button", name="Close").click()
    tab.press("Control+Enter")
    tab.page.get_by_text("Waiting for the model").wait_for()
    tab.press("Escape")  # nothing is composed then, also not later
    tab.until("studio.job === null")
    own_server.start()
    tab.until("document.querySelector('#banner').hidden")
    after = tab.document()
    expect(message).to_contain_text("zz")
    message.get_by_role("button", name="Close").click()
    assert after["chords"] == composed["chords"] == [[tick, name] for tick, name in tab.js("studio.piece.chords")]
    assert places(after) == {(pitch, start + 120, *rest) for pitch, start, *rest in places(composed)}
    tab.mark(1, 1)
    tab.compose("Recompose the region")
    assert tab.document() != after
    for _ in range(3):
        tab.press("Control+z")
    assert tab.document()["notes"] == []
    tab.problems[:] = [one for one in tab.problems if not re.search("ERR_CONNECTION_REFUSED|status of 400", one)]
    tab.close()

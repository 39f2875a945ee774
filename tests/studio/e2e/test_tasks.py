"""What a composer does in the studio, done as a composer does it: with buttons, keys and drags."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from fractalgen.studio.document import Document
from fractalgen.studio.midi_file import read_document, write_document
from tests.studio.e2e.conftest import Opener
from tests.studio.e2e.driver import BAR, SLOW_SERVER, Server, StudioTab, places, song

pytestmark = pytest.mark.slow


def test_from_opening_the_page_to_hearing_the_first_piece(open_studio: Opener) -> None:
    tab = open_studio(sound=True)
    expect(tab.page.get_by_role("heading", name="An empty page")).to_be_visible()
    tab.button("Compose", within="#welcome").click()
    tab.until("studio.shown.notes.length > 0")  # while it composes, or then
    tab.rest()
    assert tab.page.locator("#welcome").is_hidden()
    tab.press("Space")
    tab.hear()
    tab.until("studio.cursor > 480")
    assert tab.js("[...studio.player.sounding].every((pitch) => studio.piece.notes.some((n) => n.pitch === pitch))")
    tab.stop()
    tab.until("peak() < 0.001")
    assert tab.document()["notes"]


def test_bars_5_to_8_are_composed_anew(open_studio: Opener) -> None:
    piece = song(12)
    tab = open_studio(piece)
    tab.mark(5, 8)
    assert tab.js("studio.region") == {"start": 4 * BAR, "end": 8 * BAR, "low": 0, "high": 128}
    expect(tab.page.locator("#says")).to_have_text("40 notes selected")
    tab.compose("Recompose the region")
    before, after = places(piece.to_json()), places(tab.document())
    inside = {note for note in before if 4 * BAR <= note[1] < 8 * BAR}
    assert before - inside == {note for note in after if not 4 * BAR <= note[1] < 8 * BAR}
    assert after != before
    assert tab.js("studio.project.states.get(studio.project.head).label") == "compose bars 5-8"


def test_a_rectangle_of_pitches_and_a_hand(open_studio: Opener) -> None:
    piece = song(8)
    tab = open_studio(piece)
    tab.drag(tab.place(2 * BAR + 20, 60), tab.place(4 * BAR - 20, 52))  # nothing is there yet
    assert tab.js("studio.region") == {"start": 2 * BAR, "end": 4 * BAR, "low": 52, "high": 61}
    tab.press("r")
    tab.rest()
    after = places(tab.document())
    assert places(piece.to_json()) <= after
    assert all(52 <= note[0] <= 60 and 2 * BAR <= note[1] < 4 * BAR for note in after - places(piece.to_json()))
    tab.press("Control+z")
    tab.mark(3, 4)
    tab.page.get_by_label("Hand", exact=True).select_option("left")
    tab.compose("Recompose bars 3-4")
    kept = {note[1:5] for note in piece.notes if note.hand == 0 or not 2 * BAR <= note.start < 4 * BAR}
    assert kept <= places(tab.document())


def test_locked_notes_stay(open_studio: Opener) -> None:
    tab = open_studio(song(4))
    tab.page.mouse.click(*tab.place(120, 69))
    tab.press("k")
    tab.press("Control+a")
    tab.mark(1, 4)
    tab.compose("Recompose the region")
    assert (69, 0, 240, 70) in places(tab.document())


def test_one_of_three_alternatives_is_chosen(open_studio: Opener) -> None:
    tab = open_studio(song(8), sound=True)
    before = tab.document()
    tab.mark(3, 4)
    tab.button("3 ways").click()
    tab.rest()
    cards = tab.page.get_by_role("article")
    assert [card.get_attribute("aria-label") for card in cards.all()] == [f"Alternative {letter}" for letter in "ABC"]
    tab.button("Listen to B").click()
    tab.until("studio.playing && studio.cursor > 1920")
    tab.hear()
    tab.stop()
    assert tab.document() == before  # nothing is taken yet
    shown = {
        tuple(note) for note in tab.js("studio.shown.notes.map((n) => [n.pitch, n.start, n.duration, n.velocity])")
    }
    tab.button("Put A away").click()
    expect(cards).to_have_count(2)
    tab.page.get_by_role("article", name="Alternative A").get_by_role("button", name="Take alternative A").click()
    tab.rest()
    expect(cards).to_have_count(0)
    assert places(tab.document()) == shown
    tab.press("Control+z")
    tab.until("document.querySelectorAll('#strip article').length === 2")
    tab.button("Show alternative B").click()
    tab.until("studio.strip.shown !== null")
    tab.server.client.put(f"/api/projects/{tab.project}/head", json={"state": 0})  # another page goes back
    tab.until("studio.editable && studio.shown.notes.length === 0")


def test_bars_are_inserted_and_filled(open_studio: Opener) -> None:
    piece = song(4)
    tab = open_studio(piece)
    tab.page.mouse.click(*tab.lane(2 * BAR + 10, 14))
    tab.edit("Insert 4 bars to fill")
    assert tab.js("[studio.region.start, studio.region.end]") == [2 * BAR, 6 * BAR]
    tab.compose("Recompose bars 3-6")
    given = {(pitch, start + 4 * BAR * (start >= 2 * BAR), *rest) for pitch, start, *rest in places(piece.to_json())}
    after = places(tab.document())
    assert given < after
    assert all(2 * BAR <= start < 6 * BAR for _, start, *_ in after - given)


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


def test_a_region_behind_the_end_makes_the_piece_longer(open_studio: Opener) -> None:
    tab = open_studio(song(2))
    tab.press("-")  # else the bars behind the end are out of sight
    tab.mark(3, 4)
    tab.compose("Recompose the region")
    after = tab.document()
    assert after["length"] == 4 * BAR
    assert places(song(2).to_json()) <= places(after)


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


def test_a_midi_file_is_dropped_and_accompanied(open_studio: Opener, tmp_path: Path) -> None:
    melody = Document(4 * BAR, notes=tuple(note for note in song(4).notes if note.hand == 0))
    write_document(melody, tmp_path / "My tune.mid")
    tab = open_studio()
    tab.drop("My tune.mid", (tmp_path / "My tune.mid").read_bytes())
    assert places(tab.document()) == places(melody.to_json())
    tab.page.get_by_role("radio", name="Accompany").click()
    tab.compose("Accompany")
    after = places(tab.document())
    assert places(melody.to_json()) < after
    assert tab.js("studio.project.states.get(studio.project.head).label").startswith("accompany")


def test_scores_chords_and_projects_are_opened_too(open_studio: Opener, tmp_path: Path) -> None:
    tab = open_studio(song(4))
    score = tab.server.client.get(f"/api/projects/{tab.project}/states/1/musicxml").content
    file = tab.server.client.get(f"/api/projects/{tab.project}/file").content
    tab.drop("chords.txt", b"| C | F G7 | Am | C |")
    assert tab.document()["chords"] == [[0, "C"], [BAR, "F"], [BAR + 960, "G7"], [2 * BAR, "Am"], [3 * BAR, "C"]]
    tab.drop("score.musicxml", score)
    assert {note[:2] for note in places(tab.document())} == {note[:2] for note in places(song(4).to_json())}
    tab.js("studio.strip.show(1)")
    tab.page.set_input_files("#file", {"name": "a.fractalgen", "mimeType": "application/zip", "buffer": file})
    tab.until(f"studio.project.id !== '{tab.project}'")
    tab.project = tab.js("studio.project.id")
    assert places(tab.document()) == places(song(4).to_json())
    tab.mark(1, 2)
    expect(tab.page.locator("#region-bar")).to_be_visible()


def test_chords_are_given(open_studio: Opener) -> None:
    tab = open_studio()
    tab.fill("Chords", "| Am | F | C G | E7 |")
    tab.fill("Bars", "4")
    tab.compose()
    wanted = [[0, "Am"], [BAR, "F"], [2 * BAR, "C"], [2 * BAR + 960, "G"], [3 * BAR, "E7"]]
    assert tab.document()["chords"] == wanted
    tab.fill("Chords", "")
    tab.page.mouse.click(*tab.lane(10, 60))  # the lane says otherwise now
    for name in ("Dm", "Gm"):
        tab.page.keyboard.type(name)
        tab.press("Tab")
    tab.press("Escape")
    tab.mark(1, 2)
    expect(tab.page.get_by_label("Follow the chord lane")).to_be_checked()
    tab.compose("Recompose the region")
    assert tab.document()["chords"] == [[0, "Dm"], [BAR, "Gm"], *wanted[2:]]


def take(tab: StudioTab, kind: str) -> tuple[str, bytes]:
    """Take a file away: its name and its content."""
    tab.button("Take away").click()
    with tab.page.expect_download() as download:
        tab.page.locator(f"#take-{kind}").click()
    return download.value.suggested_filename, download.value.path().read_bytes()


def test_the_piece_is_taken_away(open_studio: Opener, tmp_path: Path) -> None:
    piece = song(4)
    tab = open_studio(piece)
    tab.page.get_by_label("Name of the project").fill("A/B: my piece")
    tab.press("Enter")
    expect(tab.page).to_have_title(re.compile("A/B"))
    name, content = take(tab, "mid")
    assert name == "A_B_ my piece.mid"
    (tmp_path / "a.mid").write_bytes(content)
    found = read_document(tmp_path / "a.mid")[0]
    assert places(found.to_json()) == places(piece.to_json())
    assert (found.chords, found.tempos, found.key) == (piece.chords, piece.tempos, piece.key)
    assert {note.hand for note in found.notes} == {0, 1}
    signs = {"musicxml": b"<?xml", "wav": b"RIFF", "gif": b"GIF8", "html": b"<!DOCTYPE html>", "project": b"PK"}
    for kind, sign in signs.items():
        name, content = take(tab, kind)
        assert name == f"A_B_ my piece.{'fractalgen' if kind == 'project' else kind}"
        assert content.startswith(sign), kind
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        lines = file.read(next(entry for entry in file.namelist() if entry.endswith("history.jsonl"))).splitlines()
    assert any(json.loads(line).get("document") == piece.to_json() for line in lines)
    tab.mark(2, 3)
    (tmp_path / "b.mid").write_bytes(take(tab, "mid-region")[1])
    assert read_document(tmp_path / "b.mid")[0].length == 2 * BAR


def test_a_midi_file_is_dragged_out_of_the_page(open_studio: Opener, tmp_path: Path) -> None:
    tab = open_studio(song(4))
    tab.mark(2, 3)
    tab.js(
        "document.addEventListener('dragstart', ({ dataTransfer }) => "
        "(window.dragged = dataTransfer.getData('DownloadURL')))"
    )
    box = tab.page.locator("#region-drag").bounding_box()
    assert box is not None
    tab.drag((box["x"] + 8, box["y"] + 8), (640, 500))
    kind, name, address = tab.js("dragged").split(":", 2)
    assert (kind, name) == ("audio/midi", "A piece bars 2-3.mid")
    (tmp_path / "a.mid").write_bytes(tab.server.client.get(address).content)
    wanted = {(note.pitch, note.start - BAR) for note in song(4).notes if BAR <= note.start < 3 * BAR}
    assert {note[:2] for note in places(read_document(tmp_path / "a.mid")[0].to_json())} == wanted


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


# Three edits of notes, each on the one before, which the server does not take.
REFUSED_THRICE = """
for (const start of [0, 120, 240])
  studio.commit("move", { ...studio.piece, notes: [{ ...studio.piece.notes[0], start, velocity: 0 }] }, { n: 1 });
null;
"""


def test_a_mistake_gets_one_line_and_the_studio_goes_on(open_studio: Opener) -> None:
    tab = open_studio()
    tab.fill("Chords", "H")
    tab.button("Compose 4 bars").click()
    message = tab.page.locator(".toast.error")
    message.wait_for()
    assert "--chords" in str(message.text_content())
    message.get_by_role("button", name="Close").click()
    tab.page.set_input_files("#file", {"name": "x.mid", "mimeType": "audio/midi", "buffer": b"MThd but no music"})
    message.wait_for()
    assert "x.mid" in str(message.text_content())
    message.get_by_role("button", name="Close").click()
    tab.problems.clear()  # the browser tells of each answer that is an error
    tab.fill("Chords", "| C | F G | Am | C | F |")
    expect(tab.button("Compose 5 bars")).to_be_visible()
    tab.fill("Chords", "  ")
    tab.fill("Form", "Verse4 A'")
    expect(tab.button("Compose 12 bars")).to_be_visible()
    tab.fill("Form", "")
    tab.compose()
    assert tab.document()["notes"]
    tab.page.mouse.click(*tab.lane(10, 60))
    tab.page.keyboard.type("zz")
    tab.press("Enter")
    message.wait_for()
    field = tab.page.get_by_label("Chord", exact=True)
    expect(field).to_be_focused()
    expect(field).to_have_value("zz")
    assert field.get_attribute("aria-invalid") == "true"
    tab.page.keyboard.type("Dm")
    tab.press("Enter")
    assert tab.document()["chords"][0] == [0, "Dm"]
    message.get_by_role("button", name="Close").click()
    tab.problems.clear()
    before = tab.document()
    tab.js(REFUSED_THRICE)
    assert tab.document() == before
    message.get_by_role("button", name="Close").click()  # there is one, for all three
    tab.problems.clear()

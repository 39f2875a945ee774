"""What a composer does in the studio, done as a composer does it: with buttons, keys and drags."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import expect

from fractalgen.studio.document import Document
from fractalgen.studio.midi_file import read_document, write_document
from tests.studio.e2e.conftest import Opener
from tests.studio.e2e.driver import BAR, StudioTab, places, song

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


def test_a_region_behind_the_end_makes_the_piece_longer(open_studio: Opener) -> None:
    tab = open_studio(song(2))
    tab.press("-", "-")  # else the bars behind the end are out of sight, and the drag scrolls
    tab.mark(3, 4)
    tab.compose("Recompose the region")
    after = tab.document()
    assert after["length"] == 4 * BAR
    assert places(song(2).to_json()) <= places(after)


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

"""Scores: written, read again, opened by MuseScore, and hostile ones."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
import zipfile
from itertools import cycle
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fractalgen.errors import UserError
from fractalgen.music.chords import NO_CHORD, QUALITIES, Chord, parse_chord, spelled
from fractalgen.music.lead_sheet import chord_markers, melody_track
from fractalgen.music.midi import read_midi
from fractalgen.music.midi_events import read_file
from fractalgen.music.midi_parser import decode
from fractalgen.music.musicxml_writer import write_musicxml
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import NOTE, merge_notes, tokens_from_notes, whole_bars
from fractalgen.music.voices import LEFT, RIGHT

MUSESCORE = next(
    (name for name in ("mscore", "mscore3", "musescore3", "mscore4", "musescore") if shutil.which(name)), ""
)
METERS = ((4, 4), (3, 4), (2, 4), (6, 8), (5, 4), (7, 8), (12, 8), (2, 2), (3, 8))


def roll_of(*notes: tuple[int, int, int, int], width: int | None = None, **changes: object) -> PianoRoll:
    """A roll of (pitch, start, duration, velocity bin)."""
    rows = np.array(list(notes), NOTE)
    return PianoRoll.from_notes(rows[np.lexsort((rows["pitch"], rows["start"]))], width, **changes)


def again(roll: PianoRoll, folder: Path, **options: object) -> PianoRoll:
    """The roll that its score is read as."""
    write_musicxml(roll, folder / "a.musicxml", **options)  # type: ignore[arg-type]
    return PianoRoll.from_midi(folder / "a.musicxml", roll.steps_per_quarter, roll.velocity_bins)


def whole(roll: PianoRoll) -> PianoRoll:
    """The roll with its last bar completed, as it is written."""
    width = whole_bars(roll.time_signatures, roll.width, roll.steps_per_quarter)
    tokens = np.pad(roll.tokens, ((0, 0), (0, width - roll.width)))
    return PianoRoll(tokens, roll.steps_per_quarter, roll.velocity_bins, roll.tempos, roll.time_signatures)


@st.composite
def rolls(draw: st.DrawFn) -> PianoRoll:
    """Pieces of several meters, each from a bar line on, whose notes overlap and cross bar lines as they like."""
    spq = draw(st.sampled_from([4, 4, 4, 12]))
    meters: list[tuple[int, int, int]] = []
    start = 0
    for beats, unit in draw(st.lists(st.sampled_from(METERS), min_size=1, max_size=3)):
        if not meters or meters[-1][1:] != (beats, unit):
            meters.append((start, beats, unit))
        start += draw(st.integers(1, 2)) * 4 * spq * beats // unit
    note = st.tuples(st.integers(0, 127), st.integers(0, start - 1), st.integers(1, 3 * spq), st.integers(0, 31))
    rows = np.array(draw(st.lists(note, min_size=1, max_size=24)), np.int64)
    notes = merge_notes(rows[:, 0], rows[:, 1], np.minimum(rows[:, 1] + rows[:, 2], start), rows[:, 3])
    tempos = draw(st.lists(st.tuples(st.integers(0, start - 1), st.floats(20, 300)), max_size=3))
    return PianoRoll(tokens_from_notes(notes, 0, start), spq, 32, tuple(tempos), tuple(meters))


@given(rolls(), st.sampled_from([None, "C major", "Gb major", "Ab minor", "B minor"]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_a_score_says_all_that_a_roll_says(tmp_path: Path, roll: PianoRoll, key: str | None) -> None:
    found = again(roll, tmp_path, key=key)
    assert np.array_equal(found.tokens, roll.tokens)
    assert found.tempos == roll.tempos
    assert np.array_equal(found.downbeats(), roll.downbeats())


@pytest.mark.parametrize(
    "roll",
    [
        roll_of((60, 3, 40, 9), (48, 0, 16, 30), width=48),  # over bar lines
        roll_of((60, 0, 12, 9), (62, 24, 3, 9), width=36, time_signatures=((0, 3, 4),)),
        roll_of((60, 0, 30, 9), (67, 22, 6, 9), width=44, time_signatures=((0, 4, 4), (16, 3, 4), (28, 4, 4))),
        roll_of((60, 0, 4, 9), (62, 4, 16, 9), width=36, time_signatures=((0, 1, 4), (4, 4, 4))),  # an upbeat
        roll_of((60, 0, 4, 9), (62, 4, 4, 9), (64, 8, 4, 9), width=48, steps_per_quarter=12),  # triplets
        roll_of((60, 0, 3, 9), (64, 0, 5, 9), (67, 0, 16, 9), (72, 2, 7, 9), (71, 1, 1, 9), width=16),
        roll_of((21, 0, 16, 0), (108, 0, 16, 31), width=16),
        roll_of((60, 0, 1, 9), width=5),
    ],
    ids=["ties", "three-four", "meters", "upbeat", "triplets", "overlaps", "ends", "short"],
)
def test_shapes_of_music_come_back(tmp_path: Path, roll: PianoRoll) -> None:
    assert again(roll, tmp_path) == whole(roll)


def test_a_silent_score_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no notes"):
        again(PianoRoll(np.zeros((128, 20), np.uint8)), tmp_path)


def test_the_same_piece_gives_the_same_file(tmp_path: Path) -> None:
    roll = roll_of((60, 0, 4, 9), (64, 0, 4, 9), width=16)
    for name in "ab":
        write_musicxml(roll, tmp_path / name, markers=[(0, "[A]"), (0, "C")], title="Piece", key="C major")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_chord_symbol_comes_back(tmp_path: Path) -> None:
    roots = cycle((0, 1, 6, 10))
    chords = [Chord(next(roots), quality, bass) for quality in range(len(QUALITIES)) for bass in (0, 4, 5)]
    changes = tuple((4 * beat, code) for beat, code in enumerate([*(chord.code for chord in chords), NO_CHORD]))
    roll = roll_of((60, 0, 4, 9), width=4 * len(changes))
    write_musicxml(roll, tmp_path / "a.musicxml", markers=[(step, spelled(code)) for step, code in changes])
    assert chord_markers(tmp_path / "a.musicxml", 4) == changes


def test_chord_symbols_stand_as_they_were_written(tmp_path: Path) -> None:
    texts = {"G7(b9,#11)": "7(b9,#11)", "C6/9/E": "6/9", "Bbbm7": "m7", "F♯sus": "sus", "C/C": "", "C13sus/Bb": "13sus"}
    roll = roll_of((60, 0, 4, 9), width=16 * len(texts))
    write_musicxml(roll, tmp_path / "a.musicxml", markers=[(16 * bar, text) for bar, text in enumerate(texts)])
    symbols = list(ElementTree.parse(tmp_path / "a.musicxml").getroot().iter("harmony"))
    assert [symbol.find("kind").get("text", "") for symbol in symbols] == list(texts.values())  # type: ignore[union-attr]
    assert [symbol.findtext("root/root-alter") for symbol in symbols] == [None, None, "-2", "1", None, None]
    changes = dict(chord_markers(tmp_path / "a.musicxml", 4))
    assert list(changes.values()) == [parse_chord(text) for text in texts]


def test_what_stands_in_a_score(tmp_path: Path) -> None:
    """Two staves by the hands that are told, key, meter, tempo, section, chord, dynamics, accidentals by the chord."""
    roll = roll_of((61, 0, 8, 9), (60, 0, 4, 9), (66, 16, 16, 31), width=32, tempos=((0, 92.0), (17, 93.0)))
    hands = np.array([LEFT, RIGHT, RIGHT], np.uint8)
    markers = [(0, "[Verse]"), (0, "A7"), (8, "C6/9/E"), (16, "Eb7/G")]
    write_musicxml(roll, tmp_path / "a.musicxml", markers=markers, key="D minor", title="Evening", hands=hands)
    root = ElementTree.parse(tmp_path / "a.musicxml").getroot()
    assert root.findtext("movement-title") == "Evening"
    assert root.findtext(".//key/fifths") == "-1"
    assert root.findtext(".//staves") == "2"
    assert root.findtext(".//rehearsal") == "Verse"
    assert [mark.text for mark in root.iter("per-minute")] == ["92"]  # a small change is only played
    assert len(root.findall(".//sound[@tempo]")) == 2
    assert [symbol.findtext("root/root-step") for symbol in root.iter("harmony")] == ["A", "C", "E"]
    assert [next(iter(mark)).tag for mark in root.iter("dynamics")] == ["pp", "ff"]
    notes = [note for note in root.iter("note") if note.find("pitch") is not None]
    names = {(note.findtext("pitch/step"), note.findtext("pitch/alter"), note.findtext("staff")) for note in notes}
    # C# is the third of A7 and no note of Eb7/G is F sharp: it has the name it has in D minor
    assert names == {("C", "1", "1"), ("C", None, "2"), ("F", "1", "1")}


def test_ends_are_rounded_on_paper_only(tmp_path: Path) -> None:
    """Short notes before gaps are eighths, a legato is no overlap; all is played as before."""
    roll = roll_of((72, 0, 1, 9), (74, 2, 1, 9), (76, 4, 5, 9), (77, 8, 8, 9), width=16)
    write_musicxml(roll, tmp_path / "a.musicxml")
    root = ElementTree.parse(tmp_path / "a.musicxml").getroot()
    upper = [note for note in root.iter("note") if note.findtext("staff") == "1"]
    assert all(note.find("rest") is None for note in upper)
    assert [note.findtext("type") for note in upper] == ["eighth", "eighth", "quarter", "half"]
    assert PianoRoll.from_midi(tmp_path / "a.musicxml") == roll


def packed(score: bytes, name: str = "score.xml") -> bytes:
    """A .mxl archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "META-INF/container.xml", f'<container><rootfiles><rootfile full-path="{name}"/></rootfiles></container>'
        )
        archive.writestr(name, score)
    return file.getvalue()


@pytest.fixture
def score(tmp_path: Path) -> bytes:
    """A bar of music."""
    write_musicxml(roll_of((60, 0, 4, 9), width=16), tmp_path / "score.musicxml")
    return (tmp_path / "score.musicxml").read_bytes()


@pytest.mark.parametrize("name", ["a.mxl", "a.xml", "piece.mid"])
def test_packed_and_otherwise_encoded_scores_are_read(tmp_path: Path, score: bytes, name: str) -> None:
    content = {"a.mxl": packed(score, "../../escape.xml")}.get(name, score)
    if name == "a.xml":
        content = score.decode().replace("utf-8", "utf-16").encode("utf-16")
    (tmp_path / name).write_bytes(content)
    assert PianoRoll.from_midi(tmp_path / name).notes()["pitch"].tolist() == [60]
    assert not (tmp_path.parent.parent / "escape.xml").exists()


LAUGHS = b"<!DOCTYPE a [<!ENTITY a 'ha'>" + b"".join(b"<!ENTITY a%d '%s'>" % (i, b"&a;" * 10) for i in range(9)) + b"]>"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("a.xml", lambda score: LAUGHS + b"<score-partwise>&a8;</score-partwise>", "declares the entity a"),
        ("a.xml", lambda score: b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "the entity x"),
        ("a.mxl", lambda score: packed(score + b" " * (40 << 20)), "more than 16,777,216 bytes unpacked"),
        ("a.xml", lambda score: score + b" " * (9 << 20), "more than 8,388,608 bytes"),
        ("a.xml", lambda score: b"<a>" * 100_000, "inside each other"),
        ("a.xml", lambda score: b"<a>" + b"<b/>" * 500_000 + b"</a>", "more than 400,000 elements"),
        ("a.xml", lambda score: score.replace(b"<beats>4<", b"<beats>30000000<"), "<beats> 30000000: at most 64"),
        ("a.xml", lambda score: score.replace(b"<fifths>", b"<fifths>-9999999"), "<fifths> -9999999"),
        ("a.xml", lambda score: score[: len(score) // 2], "damaged XML"),
        ("a.xml", lambda score: score.replace(b"<divisions>10080<", b"<divisions>many<"), "damaged MusicXML"),
        ("a.xml", lambda score: b"<html><body/></html>", "but <html>"),
        ("a.mxl", lambda score: packed(score)[:300], "damaged archive"),
        ("a.mxl", lambda score: packed(score, "readme.txt").replace(b"readme.txt", b"readme.doc"), "no score"),
        ("a.mxl", lambda score: packed(b"<a/>", "x.xml").replace(b"\x08\x00", b"\x0e\x00"), "packed in a way"),
    ],
)
def test_hostile_scores_get_one_line(tmp_path: Path, score: bytes, name: str, change, message: str) -> None:
    (tmp_path / name).write_bytes(change(score))
    began = time.perf_counter()
    with pytest.raises(UserError) as caught:
        read_midi(tmp_path / name)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert time.perf_counter() - began < 5


@pytest.mark.slow
def test_damaged_scores_are_read_or_refused(tmp_path: Path, score: bytes) -> None:
    draw = np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(score)
        for place in draw.integers(0, len(score) // 2, 3).tolist():
            if draw.random() < 0.5:
                content[place] = draw.integers(256)
            else:
                del content[place : place + int(draw.integers(1, 200))]
        (tmp_path / "a.xml").write_bytes(content)
        try:
            read_midi(tmp_path / "a.xml")
        except UserError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017


def test_without_the_library_one_line_says_what_to_install(
    tmp_path: Path, score: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "music21", None)
    for use in (
        lambda: read_midi(tmp_path / "score.musicxml"),
        lambda: write_musicxml(roll_of((60, 0, 4, 9)), tmp_path / "b.xml"),
    ):
        with pytest.raises(UserError, match=r"music21: pip install 'fractalgen-piano\[score\]'"):
            use()
    assert not (tmp_path / "b.xml").exists()


def test_a_staff_with_chord_symbols_is_the_melody(tmp_path: Path) -> None:
    """So a piano score with chords is a lead sheet; its meter, key and section come along."""
    roll = roll_of((72, 0, 16, 9), (48, 0, 16, 9), (74, 16, 16, 9), width=32)
    path = tmp_path / "sheet.musicxml"
    write_musicxml(roll, path, markers=[(0, "[A]"), (0, "Dm7"), (16, "G7")], key="C major")
    assert melody_track(path) == "track:Melody"
    assert [decode(text) for _, text in read_file(path).meta(0x06)] == ["[A]", "Dm7", "G7"]
    write_musicxml(roll, path, key="F major")
    events = read_midi(path)
    assert events.voices.tolist() == [RIGHT, RIGHT, LEFT]
    assert events.key == (-1, False)


SONG = """<?xml version="1.0"?>
<score-partwise version="4.0"><part-list>
<score-part id="P1"><part-name>Clarinet</part-name></score-part>
<score-part id="P2"><part-name>Drums</part-name></score-part>
</part-list>
<part id="P1"><measure number="1" implicit="yes"><attributes><divisions>6</divisions><time><beats>4</beats>
<beat-type>4</beat-type></time><transpose><diatonic>-1</diatonic><chromatic>-2</chromatic></transpose></attributes>
<direction><direction-type><metronome><beat-unit>half</beat-unit><per-minute>50</per-minute></metronome></direction-type>
</direction><direction><direction-type><dynamics><ff/></dynamics></direction-type></direction>
<note><pitch><step>D</step><octave>4</octave></pitch><duration>6</duration><type>quarter</type></note></measure>
<measure number="2"><barline location="left"><repeat direction="forward"/></barline>
<harmony><root><root-step>F</root-step><root-alter>1</root-alter></root><kind>minor-ninth</kind></harmony>
<note><grace/><pitch><step>A</step><octave>4</octave></pitch><type>eighth</type></note>
<note><pitch><step>E</step><octave>4</octave></pitch><duration>12</duration><type>half</type></note>
<note><pitch><step>F</step><octave>4</octave></pitch><duration>2</duration><type>eighth</type><time-modification>
<actual-notes>3</actual-notes><normal-notes>2</normal-notes></time-modification></note>
<note><rest/><duration>4</duration></note>
<note><pitch><step>G</step><octave>4</octave></pitch><duration>6</duration><tie type="start"/>
<type>quarter</type></note>
</measure><measure number="3">
<note><pitch><step>G</step><octave>4</octave></pitch><duration>24</duration><tie type="stop"/><type>whole</type></note>
<barline location="right"><repeat direction="backward" times="1000000"/></barline></measure></part>
<part id="P2"><measure number="1"><attributes><divisions>1</divisions></attributes><note><unpitched>
<display-step>E</display-step><display-octave>4</display-octave></unpitched><duration>1</duration></note></measure></part>
</score-partwise>"""


def test_a_foreign_score(tmp_path: Path) -> None:
    """Transposing instrument, upbeat, grace note, triplet, tie, repeat, drums, half notes a minute, dynamics."""
    path = tmp_path / "song.xml"
    path.write_text(SONG)
    events = read_midi(path)
    assert events.pitch.tolist() == [60, 62, 63, 65]
    assert events.onset.tolist() == pytest.approx([0, 4, 12, 16])
    assert (events.end - events.onset).tolist() == pytest.approx([4, 8, 4 / 3, 20])
    assert set(events.velocity.tolist()) == {112}
    assert events.meters == ((0, 1, 4), (4, 4, 4))
    assert events.tempos == ((0, 100.0),)
    assert events.width == 36
    assert [(step, spelled(code)) for step, code in chord_markers(path, 4)] == [(4, "Em7")]


@pytest.mark.skipif(not MUSESCORE, reason="MuseScore is not installed")
@pytest.mark.slow
def test_musescore_plays_what_was_written(tmp_path: Path) -> None:
    """Its MIDI file has the notes of the roll, lengths and velocities too; it opens the score without complaint."""
    draw = np.random.default_rng(1)
    start = np.repeat(np.arange(0, 64, 2), 2)
    notes = merge_notes(
        draw.choice([48, 50, 53, 57, 60, 64, 69, 72], 64),
        start,
        start + draw.choice([2, 4, 6], 64),
        draw.integers(8, 30, 64),
    )
    roll = PianoRoll.from_notes(notes, 72, time_signatures=((0, 4, 4), (32, 3, 4)), tempos=((0, 90.0),))
    source, target = tmp_path / "a.musicxml", tmp_path / "a.mid"
    write_musicxml(roll, source, markers=[(0, "[A]"), (0, "Dm7"), (16, "G7/B")], key="D minor")
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [MUSESCORE, "-o", target, source], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert "error" not in (done.stdout + done.stderr).lower()
    played = read_midi(target)
    assert np.array_equal(PianoRoll.from_events(played).notes(), roll.notes())
    assert played.meters == roll.time_signatures
    assert [tempo for _, tempo in played.tempos] == [pytest.approx(90, abs=0.001)]
    assert played.key is not None
    assert played.key[0] == -1

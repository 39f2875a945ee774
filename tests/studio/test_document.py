"""The piece as plain data: what is refused, and what MIDI keeps of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fractalgen import PianoRoll
from fractalgen.errors import UserError
from fractalgen.studio.document import Document, Note, taken_over, with_chords
from fractalgen.studio.exports import given
from fractalgen.studio.midi_file import read_document, write_document
from tests.midi_files import delta, meter, midi, off, on
from tests.studio.conftest import BAR


def test_midi_keeps_everything(piece: Document, tmp_path: Path) -> None:
    write_document(piece, tmp_path / "a.mid")
    found, remarks = read_document(tmp_path / "a.mid")
    assert remarks == []
    plain = [note._replace(id=0) for note in piece.notes]
    assert [note._replace(id=0) for note in found.notes] == plain
    assert replace(found, notes=()) == replace(piece, notes=())
    assert Document.from_json(json.loads(json.dumps(piece.to_json()))) == piece


@pytest.mark.parametrize(
    "document",
    [
        Document(0),
        Document(3 * 480, meters=((0, 3, 4),)),
        Document(BAR, key="C major"),
        Document(BAR + 100, notes=(Note(7, 0, 3, 5, 1), Note(8, 127, BAR, 100, 127, 1))),
        Document(2 * BAR, meters=((0, 6, 8), (3 * 480, 4, 4)), key="F# minor", notes=(Note(0, 60, 0, 1, 9),)),
    ],
)
def test_odd_lengths_come_back(document: Document, tmp_path: Path) -> None:
    write_document(document, tmp_path / "a.mid")
    found, _ = read_document(tmp_path / "a.mid")
    assert (found.length, found.meters, found.key) == (document.length, document.meters, document.key)
    assert [note[1:6] for note in found.notes] == [note[1:6] for note in document.notes]


def test_a_key_struck_again_while_it_sounds_is_cut(tmp_path: Path) -> None:
    notes = (
        Note(0, 60, 0, 900, 50),
        Note(1, 60, 480, 100, 60),
        Note(2, 60, 480, 300, 40),
        Note(3, 60, 500, 400, 70, 1),
    )
    write_document(Document(BAR, notes=notes), tmp_path / "a.mid")
    found, _ = read_document(tmp_path / "a.mid")
    assert [note[1:5] for note in found.notes] == [(60, 0, 480, 50), (60, 480, 300, 60), (60, 500, 400, 70)]
    assert found.notes[2].hand == 1


def pedal(wait: int, value: int) -> bytes:
    return delta(wait) + bytes([0xB0, 64, value])


def test_files_of_others_say_what_is_left_out(tmp_path: Path) -> None:
    head = meter(0, 3, 2) + b"\x00\xff\x59\x02\x00\x00"  # C major, which many write where there is no key
    track = on(0, 60, 80) + pedal(10, 127) + off(100, 60) + on(0, 36, 90, 9) + off(10, 36, 9) + pedal(900, 0)
    (tmp_path / "a.mid").write_bytes(midi(head, track))
    found, remarks = read_document(tmp_path / "a.mid")
    assert [note[1:5] for note in found.notes] == [(60, 0, 1020, 80)]
    assert (found.length, found.key) == (3 * 480, None)
    assert remarks == ["drums are left out (1 notes)", "the pedal lengthens 1 notes"]


GOOD: dict[str, Any] = {
    "length": BAR,
    "tempos": [[0, 120]],
    "meters": [[0, 4, 4]],
    "notes": [[0, 60, 0, 480, 80, 0, 0]],
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": -1}, "length: a whole number"),
        ({"length": 1e9}, "length: a whole number"),
        ({"extra": 1}, "an object with"),
        ({"tempos": [[0, math.nan]]}, "tempos: 3.6 to"),
        ({"tempos": [[0, 120], [0, 100]]}, "tempos: two at tick 0"),
        ({"tempos": [0]}, "tempos: lists of 2"),
        ({"meters": [[0, 0, 4]]}, "meters: beats"),
        ({"meters": [[0, 4, 3]]}, "a beat is 1, 2, 4"),
        ({"key": "H moll"}, "key 'H moll'"),
        ({"key": 3}, "key 3"),
        ({"chords": [[0, "Xyz"]]}, "'Xyz' is no chord"),
        ({"sections": [[0, ""]]}, "a name of 1 to 60"),
        ({"sections": [[0, "a\nb"]]}, "a name of 1 to 60"),
        ({"notes": {}}, "notes: a list"),
        ({"notes": [[0, 60, 0, 480, 80, 0]]}, "lists of 7"),
        ({"notes": [[0, 128, 0, 480, 80, 0, 0]]}, "notes: pitch"),
        ({"notes": [[0, 60, 0, 0, 80, 0, 0]]}, "notes: duration"),
        ({"notes": [[0, 60, 0, 480, 0, 0, 0]]}, "notes: velocity"),
        ({"notes": [[0, 60, 0, 480, 80, 0, True]]}, "notes: locked"),
        ({"notes": [[0, 60, BAR - 1, 2, 80, 0, 0]]}, "ends at tick 1,921"),
        ({"notes": [[0, 60, 0, 1, 80, 0, 0], [0, 61, 0, 1, 80, 0, 0]]}, "two have the same number"),
    ],
)
def test_damaged_documents_are_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    Document.from_json(GOOD)
    with pytest.raises(UserError, match=r"^document: ") as caught:
        Document.from_json({**GOOD, **changes})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_chords_are_read_back_as_they_are_written(piece: Document, tmp_path: Path) -> None:
    names = ("C9", "F#m7b5", "D#m/A#", "Cbmaj7", "N.C.")
    chords = tuple((480 * number, name) for number, name in enumerate(names))
    write_document(replace(piece, key="Eb minor", chords=chords), tmp_path / "a.mid")
    assert read_document(tmp_path / "a.mid")[0].chords == chords


def test_parts_have_what_holds_there(piece: Document) -> None:
    part = piece.part("2-3")
    assert part.length == 2 * BAR
    assert part.tempos == ((0, 132.5),)
    assert part.chords == ((0, "Gm7"), (BAR, "A7"))
    assert part.sections == ((0, "A"), (BAR, "B"))
    assert [note.start for note in part.notes][:3] == [0, 13, 253]
    assert max(note.end for note in part.notes) <= part.length
    for wrong in ("0", "3-2", "4-5", "x", "1-99999999"):
        with pytest.raises(UserError, match="bars"):
            piece.part(wrong)


def test_chords_of_a_text_lengthen_a_piece_that_is_too_short(piece: Document) -> None:
    found = with_chords(piece, "C | F G/B | ? | Am | Dm", "chords.txt")
    assert found.length == 5 * BAR
    assert found.chords == ((0, "C"), (BAR, "F"), (BAR + 960, "G/B"), (3 * BAR, "Am"), (4 * BAR, "Dm"))
    assert with_chords(piece, "C", "chords.txt").chords == ((0, "C"), *piece.chords[1:])
    with pytest.raises(UserError, match=r"chords\.txt: position 5"):
        with_chords(piece, "C | Q", "chords.txt")


def test_results_keep_numbers_hands_and_locks(piece: Document) -> None:
    locked = tuple(note._replace(locked=1) if note.id == 3 else note for note in piece.notes)
    new = Note(0, 90, 5, 100, 33)
    anonymous = [note._replace(id=i + 1, hand=-1, locked=0) for i, note in enumerate(locked)]
    result = replace(piece, notes=tuple(sorted([new, *anonymous], key=lambda note: (note.start, note.pitch))))
    found = taken_over(result, replace(piece, notes=locked), hand=1)
    assert set(locked) < set(found.notes)
    (fresh,) = set(found.notes) - set(locked)
    assert fresh[1:6] == (90, 5, 100, 33, 1)
    assert fresh.id > max(note.id for note in locked)


def test_the_length_is_that_of_the_roll(piece: Document, tmp_path: Path) -> None:
    write_document(piece, tmp_path / "a.mid")
    assert PianoRoll.from_midi(tmp_path / "a.mid").width == 64


@pytest.mark.parametrize(("apart", "grid"), [(120, 4), (160, 12)])
def test_pictures_have_a_grid_that_the_notes_lie_on(apart: int, grid: int) -> None:
    notes = tuple(Note(number, 60 + number, apart * number, apart, 80) for number in range(12))
    trace = given(Document(length=1920, notes=notes))
    roll = trace.roll
    assert roll.steps_per_quarter == trace.steps_per_quarter == grid
    assert [note[1] for note in roll.notes().tolist()] == [apart * grid // 480 * number for number in range(12)]

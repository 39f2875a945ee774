"""Voices by the names of tracks, hands by a rule, melodies beside chords."""

from __future__ import annotations

import numpy as np
import pytest

from fractalgen.music.tokens import NOTE, Notes
from fractalgen.music.voices import (
    ACCOMPANIMENT,
    BRIDGE,
    LEFT,
    MELODY,
    RIGHT,
    UNNAMED,
    hands,
    melody_beside_chords,
    merged_voices,
    named_voice,
    voice_plane,
    voices_of_tracks,
)


def notes(*rows: tuple[int, int, int]) -> Notes:
    """Notes from (pitch, start, duration), sorted."""
    made = np.zeros(len(rows), NOTE)
    for index, (pitch, start, duration) in enumerate(sorted(rows, key=lambda row: (row[1], row[0]))):
        made[index] = (pitch, start, duration, 10)
    return made


def test_names_of_tracks() -> None:
    names = {
        "MELODY": MELODY,
        "BRIDGE": BRIDGE,
        "PIANO": ACCOMPANIMENT,
        "Left Hand": LEFT,
        "rh": RIGHT,
        "violin": UNNAMED,
    }
    assert {name: named_voice(name) for name in names} == names
    tracks = np.array([1, 2, 1])
    assert voices_of_tracks(tracks, lambda _: "").tolist() == [RIGHT, LEFT, RIGHT]
    assert voices_of_tracks(tracks, lambda n: ("", "Melody", "x")[n]).tolist() == [MELODY, UNNAMED, MELODY]
    assert voices_of_tracks(np.array([1, 1]), lambda _: "Piano").tolist() == [UNNAMED, UNNAMED]


def test_the_lowest_code_wins_where_notes_are_merged() -> None:
    one = notes((60, 0, 4), (64, 0, 4))
    found = merged_voices(one, np.array([60, 60, 64]), np.array([0, 0, 0]), np.array([LEFT, MELODY, LEFT], np.uint8))
    assert found.tolist() == [MELODY, LEFT]


def test_a_hand_takes_what_it_reaches() -> None:
    wide = notes((36, 0, 16), (43, 0, 16), (64, 0, 4), (67, 0, 4), (72, 0, 4), (76, 4, 4), (48, 8, 4), (79, 8, 4))
    assert hands(wide).tolist() == [LEFT, LEFT, RIGHT, RIGHT, RIGHT, RIGHT, LEFT, RIGHT]
    alone = notes((84, 0, 4), (86, 4, 4), (88, 8, 4))
    assert hands(alone).tolist() == [RIGHT] * 3
    named = hands(notes((40, 0, 4), (72, 0, 4)), np.array([MELODY, LEFT], np.uint8))
    assert named.tolist() == [RIGHT, LEFT]
    assert hands(notes()).tolist() == []


def test_a_melody_is_what_is_not_struck_with_a_chord() -> None:
    sheet = notes(
        (48, 0, 16), (52, 0, 16), (55, 0, 16), (72, 0, 4), (74, 4, 4), (50, 16, 16), (53, 16, 16), (57, 16, 16)
    )
    assert sheet["pitch"][melody_beside_chords(sheet)].tolist() == [72, 74]
    chords = notes((60, 0, 4), (64, 0, 4), (67, 0, 4))
    assert chords["pitch"][melody_beside_chords(chords)].tolist() == [67]


CHORDS = ((36, 0, 16), (48, 0, 16), (52, 0, 16), (55, 0, 16), (41, 16, 16), (48, 16, 16), (53, 16, 16), (57, 16, 16))


@pytest.mark.parametrize(
    ("sung", "found"),
    [
        (((72, 0, 16), (74, 16, 8), (72, 24, 8)), [72, 74, 72]),  # the first as long as its chord
        (((72, 4, 12), (71, 16, 16)), [72, 71]),
        (((67, 4, 4), (55, 12, 4), (62, 16, 4)), [67, 55, 62]),  # cuts a note of the chord
        (((62, 8, 8),), [62]),  # no melody above the second chord
    ],
)
def test_a_melody_above_block_chords(sung: tuple[tuple[int, int, int], ...], found: list[int]) -> None:
    struck = {(pitch, start) for pitch, start, _ in sung}
    rows = [
        (pitch, start, min([length, *(at - start for other, at in struck if other == pitch and at > start)]))
        for pitch, start, length in CHORDS
    ]
    sheet = notes(*rows, *sung)
    assert sheet["pitch"][melody_beside_chords(sheet)].tolist() == found


def test_low_chords_alone_have_no_melody() -> None:
    low = notes(*((pitch - 12, start, length) for pitch, start, length in CHORDS))
    assert not melody_beside_chords(low).any()
    assert not melody_beside_chords(notes()).any()


def test_the_voice_of_each_cell() -> None:
    plane = voice_plane(notes((60, 2, 4), (64, 6, 4)), np.array([MELODY, LEFT], np.uint8), 4, 8)
    assert plane[60].tolist() == [MELODY, MELODY, 0, 0]
    assert plane[64].tolist() == [0, 0, LEFT, LEFT]

"""How music is written down: note values, names of pitches, dynamics."""

from __future__ import annotations

from fractions import Fraction

import pytest

from fractalgen.music.chords import QUALITIES
from fractalgen.music.notation import dynamics, periods, pieces, spelled_pitch


@pytest.mark.parametrize(
    ("start", "stop", "meter", "expected"),
    [
        (0, 4, (4, 4), [4]),
        (1, 3, (4, 4), [2]),  # a syncopation in the middle of the bar
        (0.5, 1.5, (4, 4), [1]),
        (1.5, 2.5, (4, 4), [0.5, 0.5]),  # over the middle
        (0.25, 0.75, (2, 4), [0.5]),
        (0.75, 2, (4, 4), [0.25, 1]),
        (0, 1.5, (6, 8), [1.5]),
        (1, 2, (6, 8), [0.5, 0.5]),
        (0, 2.5, (5, 4), [2, 0.5]),
    ],
)
def test_note_values_show_the_meter(start: float, stop: float, meter: tuple[int, int], expected: list[float]) -> None:
    found = pieces(Fraction(start), Fraction(stop), periods(*meter))
    assert [float(end - begin) for begin, end in found] == expected


@pytest.mark.parametrize(
    ("pitch", "sharps", "chord", "expected"),
    [
        (66, 0, "", ("F", 1, 4)),
        (70, 0, "", ("B", -1, 4)),
        (61, -5, "", ("D", -1, 4)),
        (59, -6, "", ("C", -1, 4)),  # an octave begins at C, whatever its sign
        (60, 7, "", ("B", 1, 3)),
        (61, -2, "A 7", ("C", 1, 4)),
        (68, 0, "E aug", ("G", 1, 4)),
        (72, 0, "E aug", ("B", 1, 4)),
    ],
)
def test_pitches_are_spelled_by_key_and_chord(
    pitch: int, sharps: int, chord: str, expected: tuple[str, int, int]
) -> None:
    root, _, quality = chord.partition(" ")
    assert spelled_pitch(pitch, sharps, False, root or None, QUALITIES[quality] if root else ()) == expected


def test_the_leading_note_of_a_minor_key_is_sharp() -> None:
    assert spelled_pitch(68, 0, True, None, ()) == ("G", 1, 4)


def test_dynamics_are_written_where_they_change() -> None:
    assert dynamics([66, 70, None, 60, 82, 84, 66, 110]) == ["mp", None, None, None, "mf", None, "mp", "ff"]

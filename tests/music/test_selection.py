"""Pitches, scales, bars and rectangles as users write them."""

from __future__ import annotations

import numpy as np
import pytest

from fractalgen.errors import UserError
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.selection import (
    bars_to_steps,
    parse_pitch,
    parse_pitch_classes,
    parse_pitch_range,
    parse_rectangle,
    time_span,
)


def test_pitches() -> None:
    texts = ("60", " C4 ", "c-1", "G9", "G#9", "128", "F#3", "Bb2", "bb2", "b2", "Cb4", "B#3", "A4")
    assert [parse_pitch(text) for text in texts] == [60, 60, 0, 127, 128, 128, 54, 46, 46, 47, 59, 60, 69]


@pytest.mark.parametrize("text", ["", "H4", "C", "4C", "129", "-1", "A9", "Cb-1", "C#b4", "6.5", "٤"])
def test_what_is_no_pitch(text: str) -> None:
    with pytest.raises(UserError, match="128"):
        parse_pitch(text)


def test_pitch_ranges() -> None:
    assert [parse_pitch_range(text) for text in ("C4:C5", " 60 : ", ":C4")] == [(60, 72), (60, 128), (0, 60)]
    reasons = {"C5:C4": "empty", "60": "no range", "60:200": "200", "x:60": "neither", "128:": "0:128"}
    for text, reason in reasons.items():
        with pytest.raises(UserError, match=rf"^--low {text}: .*{reason}"):
            parse_pitch_range(text, "--low")


WHITE = {0, 2, 4, 5, 7, 9, 11}


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        *((mode, WHITE) for mode in ("C major", "a MINOR", "D dorian", "e phrygian", "F lydian", "B locrian")),
        ("Bb major", {10, 0, 2, 3, 5, 7, 9}),
        ("F#-minor", {6, 8, 9, 11, 1, 2, 4}),
        ("A harmonic minor", {9, 11, 0, 2, 4, 5, 8}),
        ("A melodic_minor", {9, 11, 0, 2, 4, 6, 8}),
        ("A minor pentatonic", {0, 2, 4, 7, 9}),
        ("C blues", {0, 3, 5, 6, 7, 10}),
        ("C D E G A", {0, 2, 4, 7, 9}),
        ("c, eb,F#", {0, 3, 6}),
        ("B", {11}),
    ],
)
def test_scales(text: str, classes: set[int]) -> None:
    assert parse_pitch_classes(text) == classes


@pytest.mark.parametrize("text", ["", "H minor", "C minr", "C D X", "major", "minor A"])
def test_unknown_scales_are_refused_with_the_list(text: str) -> None:
    with pytest.raises(UserError, match=r"^--scale .*major, minor, harmonic minor, .*blues"):
        parse_pitch_classes(text)


def waltz() -> PianoRoll:
    """Two bars of 3/4, one of 4/4, and half a bar: 12 + 12 + 16 + 8 steps."""
    return PianoRoll(np.zeros((128, 48), np.uint8), time_signatures=((0, 3, 4), (24, 4, 4)))


@pytest.mark.parametrize(
    ("text", "pitches", "steps"),
    [
        ("time=4:12,pitch=60:72", (60, 72), (4, 12)),
        (" pitch = C4 : C5 , time = 4 : 12 ", (60, 72), (4, 12)),
        ("time=40:", (0, 128), (40, 48)),
        ("time=:", (0, 128), (0, 48)),
        ("pitch=:E4", (0, 64), (0, 48)),
        ("bars=0:1", (0, 128), (0, 12)),
        ("bars=1:3", (0, 128), (12, 40)),
        ("bars=2:,pitch=0:1", (0, 1), (24, 48)),
        ("bars=3:4", (0, 128), (40, 48)),
    ],
)
def test_rectangles(text: str, pitches: tuple[int, int], steps: tuple[int, int]) -> None:
    plane = parse_rectangle(text, waltz())
    expected = np.zeros((128, 48), np.bool_)
    expected[slice(*pitches), slice(*steps)] = True
    assert np.array_equal(plane, expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("time=4:4", "4:4 is an empty range"),
        ("time=9:4", "9:4 is an empty range"),
        ("time=40:49", "40:49 does not lie in the 48 steps"),
        ("time=48:", "48: does not lie in the 48 steps"),
        ("time=-4:8", "-4:8 does not lie in the 48 steps"),
        ("bars=2:5", "2:5 does not lie in the 4 bars"),
        ("pitch=60:129", "129"),
        ("pitch=C4:Q4", "'Q4' is neither"),
        ("time=a:8", "time=a:8 is no range of whole numbers"),
        ("time=8", "'8' is no range A:B"),
        ("tmie=0:8", "'tmie=0:8' is none of time=A:B, bars=A:B, pitch=A:B"),
        ("", "'' is none of"),
        ("time=0:8,time=8:16", "time is given twice, 0:8 and 8:16"),
        ("time=0:8,bars=1:2", "time=0:8 and bars=1:2 exclude each other"),
    ],
)
def test_wrong_rectangles_are_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_rectangle(text, waltz(), "--hole")
    assert str(caught.value).startswith(f"--hole {text}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_spans_and_bars() -> None:
    assert np.flatnonzero(time_span(waltz(), 3, 5).all(0)).tolist() == [3, 4]
    with pytest.raises(UserError, match="--mask_start 3 --mask_end 99: 3:99 does not lie in the 48 steps"):
        time_span(waltz(), 3, 99)
    with pytest.raises(UserError, match="--mask_start 9 --mask_end 5: 9:5 is an empty range"):
        time_span(waltz(), 9, 5)
    assert [bars_to_steps(waltz(), bars) for bars in (1, 2, 3, 4)] == [12, 24, 40, 48]
    for bars in (0, 5):
        with pytest.raises(UserError, match=f"--condition_bars {bars}: the piece has 4 bars"):
            bars_to_steps(waltz(), bars)

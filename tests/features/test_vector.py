"""Features of excerpts: finite for any roll, right for rolls written by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fractalgen.features.table import FEATURES
from fractalgen.features.vector import music_features
from tests import tiny
from tests.features import roll


def features(tokens: np.ndarray, steps_per_bar: int = 16) -> dict[str, float]:
    return {name: float(values[0]) for name, values in music_features(tokens, steps_per_bar).items()}


def test_every_feature_is_described() -> None:
    assert list(music_features(tiny.tokens(0))) == list(FEATURES)
    assert len({feature.label for feature in FEATURES.values()}) == len(FEATURES)
    assert all(feature.unit and feature.about for feature in FEATURES.values())


@pytest.mark.parametrize(("steps_per_bar", "width"), [(16, 24), (4, 16), (24, 1), (16, 16), (1, 8)])
def test_features_are_finite_in_any_roll(steps_per_bar: int, width: int) -> None:
    rolls = np.zeros((7, 128, width), np.uint8)
    rolls[1] = 20  # struck everywhere, at every step
    rolls[2] = 1  # held from before, everywhere
    rolls[3, 60, 0] = 2  # a single note of the lowest velocity
    rolls[4, 60, -1] = 33
    rolls[5, :, 0], rolls[5, :, 1:] = 20, 1
    rolls[6] = tiny.tokens(0, 40)[:, :width]
    for name, values in music_features(rolls, steps_per_bar).items():
        assert values.shape == (7,), name
        assert np.isfinite(values).all(), name


def test_a_set_is_the_sum_of_its_rolls() -> None:
    rolls = np.stack([np.zeros((128, 72), np.uint8), *(tiny.tokens(seed, 72, 30 * seed) for seed in range(1, 5))])
    together = music_features(rolls)
    apart = [music_features(tokens) for tokens in rolls]
    for name, values in together.items():
        np.testing.assert_allclose(values, [one[name][0] for one in apart], err_msg=name)


def test_transposition_changes_only_where_the_notes_are() -> None:
    tokens = tiny.tokens(3, 64, 60)
    low, high = features(tokens), features(np.roll(tokens, 3, axis=0))
    changed = {name for name in FEATURES if low[name] != pytest.approx(high[name])}
    registers = {"notes_low", "notes_middle", "notes_high", "melody_pitch", "bass_pitch", "bass_bars"}
    hands = {"hands", "wide_grips"}  # the rule knows where hands are
    assert {"melody_pitch", "bass_pitch"} <= changed <= registers | hands


def test_features_by_hand() -> None:
    """Two bars: chords of C and F below a melody, the second bar a third as full; two bars of silence."""
    tokens = roll(
        *((36, 0, 16, 5), (64, 0, 4, 9), (67, 0, 4, 9), (72, 0, 4, 21)),
        *((74, 4, 2, 19), (76, 6, 2, 17), (72, 8, 9, 17)),
        *((41, 16, 8, 5), (69, 16, 4, 9), (81, 22, 1, 25)),
    )
    found = features(tokens)
    expected = {
        "notes": 10 / 4,
        "notes_spread": np.std([7, 3, 0, 0]),
        "notes_first": 7,
        "notes_last": 0,
        "notes_low": 2 / 4,
        "notes_middle": 3 / 4,
        "notes_high": 5 / 4,
        "empty_bars": 1 / 2,
        "silence_before": 0,
        "silence_after": 40 / 16,
        "silence": 40 / 64,
        "downbeats": 6 / 10,
        "beats": 2 / 10,
        "half_beats": 2 / 10,
        "off_beats": 0,
        "onsets": 6 / 4,
        "chords_1": 4 / 6,
        "chords_2": 1 / 6,
        "chords_4": 1 / 6,
        "longer": 1 / 10,
        "two_beats": 2 / 10,
        "one_beat": 4 / 10,
        "shorter": 1 / 10,
        "held_over": 1 / 10,  # 72 sounds to step 17
        "melody_notes": 5 / 4,  # 72 74 76 72 81: 69 is struck below the 72 that is held
        "melody_range": 9,
        "melody_steps": 2 / 4,
        "melody_skips": 1 / 4,
        "melody_leaps": 1 / 4,
        "melody_turns": 2 / 3,
        "melody_legato": 3 / 4,
        "bass_pitch": (36 + 72 + 41) / 3,  # of half bars
        "bass_bars": 2 / 4,
        "velocity": 13.6,
        "velocity_lead": (21 + 19 + 17 + 17 + 25) / 5 - (5 + 9 + 9 + 5 + 9) / 5,
        "velocity_together": (16 + 4) / 2,
        "velocity_same": 1 / 4,
        "velocity_downbeat": (5 + 9 + 9 + 21 + 5 + 9) / 6 - (19 + 17 + 17 + 25) / 4,
        "pitch_range": 45,
        "width": (36 + 38 + 40 + 36 + 31 + 40) / 6,
        "inner": 3 / 10,  # 64, 67 and 69
        "wide_grips": 0,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name


def test_harmony_by_hand() -> None:
    chords = [(48, 60, 64, 67), (53, 60, 65, 69), (55, 59, 62, 67), (48, 60, 64, 67)]
    song = [(pitch, 16 * bar, 16) for bar, chord in enumerate(chords) for pitch in chord]
    found = features(roll(*song))
    assert found["chord_fit"] == 1
    assert found["chord_changes"] == 3 / 4
    assert found["chord_off_downbeat"] == 0
    assert found["bass_roots"] == 1
    assert found["bass_fifths"] == 2 / 3  # 48 53 55 48
    assert found["scale"] == 1
    assert found["bar_entropy"] == pytest.approx(1.5)  # shares 1/2, 1/4, 1/4
    assert found["semitones"] == found["seconds"] == found["tritones"] == found["clusters"] == 0
    assert found["octaves"] == pytest.approx(1 / 6)  # of the six pairs of each chord
    assert found["bars_again"] == 1 / 3
    assert found["like_most"] == 1

    wrong = features(roll(*song, (61, 0, 16), (66, 32, 16)))
    assert wrong["chord_fit"] < 1
    assert wrong["scale"] < 1
    assert wrong["semitones"] > 0
    assert wrong["tritones"] > 0
    assert wrong["clusters"] == 2 / 4  # 60 and 61 in the first, 66 and 67 in the third


def test_likeness_of_bars() -> None:
    figure = [(60, 0, 2), (64, 4, 2), (67, 8, 2)]
    other = [(62, 2, 2), (65, 6, 2), (69, 10, 2)]
    bars = [figure, other, figure, other, figure, other, figure, other]
    found = features(
        roll(*((pitch, 16 * b + start, 2) for b, bar in enumerate(bars) for pitch, start, _ in bar), width=128)
    )
    assert (found["like_1"], found["like_2"], found["like_4"]) == (0, 1, 1)
    assert found["like_8"] == 0  # no bar has one so far before
    assert found["like_best"] == found["bars_again"] == 6 / 7
    assert found["key_stays"] == 1
    assert found["halves"] == pytest.approx(1)


def test_velocities_of_one_bin_say_nothing() -> None:
    tokens = np.minimum(tiny.tokens(0), 2)
    assert all(
        value == 0
        for name, value in features(tokens).items()
        if name.startswith("velocity") and name != "velocity_same"
    )


def test_other_grids() -> None:
    """A beat of one step: the same music, four times as coarse."""
    fine = [(48, 0, 8), (60, 0, 4), (64, 4, 4), (67, 8, 8), (48, 16, 16), (72, 24, 8)]
    coarse = [(pitch, start // 4, duration // 4) for pitch, start, duration in fine]
    one, two = features(roll(*fine, width=32)), features(roll(*coarse, width=8), 4)
    for name in FEATURES:
        if name not in ("groove", "parallel_fifths"):  # groove counts time steps
            assert one[name] == pytest.approx(two[name]), name


def test_an_unplayable_grip() -> None:
    hand = [(40, 0, 4), (44, 0, 4), (47, 0, 4)]
    assert features(roll(*hand, (76, 0, 4), (79, 0, 4)))["wide_grips"] == 0
    spread = [(pitch, 0, 4) for pitch in range(30, 100, 8)]
    assert features(roll(*spread, *((pitch, 4, 4) for pitch, _, _ in hand)))["wide_grips"] == 1 / 2


def test_memory_of_velocities() -> None:
    alternating = [(72, 2 * i, 2, 5 + 20 * (i % 2)) for i in range(16)]
    rising = [(72, 2 * i, 2, 5 + i) for i in range(16)]
    assert features(roll(*alternating))["velocity_before"] == pytest.approx(-1)
    assert features(roll(*rising))["velocity_before"] == pytest.approx(1)
    by_pitch = [(60 + i, 2 * i, 2, 5 + i) for i in range(16)]
    assert features(roll(*by_pitch))["velocity_pitch"] == pytest.approx(1)
    assert not math.isnan(features(roll((60, 0, 2)))["velocity_pitch"])

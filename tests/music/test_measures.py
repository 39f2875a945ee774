"""Measures of rolls, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fractalgen.music import measures
from fractalgen.music.tokens import HOLD, ONSET


@pytest.fixture
def rolls() -> np.ndarray:
    """Two notes that overlap, and silence."""
    tokens = np.zeros((2, 128, 32), np.uint8)
    tokens[0, 60, 0], tokens[0, 60, 1:4] = ONSET + 5, HOLD
    tokens[0, 64, 2], tokens[0, 64, 3:8] = ONSET + 9, HOLD
    return tokens


def test_measures_of_two_notes_and_of_silence(rolls: np.ndarray) -> None:
    assert measures.cell_density(rolls).tolist() == [10 / (128 * 32), 0.0]
    assert measures.note_count(rolls).tolist() == [2, 0]
    assert measures.notes_per_bar(rolls, 16).tolist() == [1.0, 0.0]
    assert measures.notes_per_bar(rolls[0], 16, steps=8) == 4.0
    assert measures.polyphony(rolls)[0, :9].tolist() == [1, 1, 2, 2, 1, 1, 1, 1, 0]
    mean = measures.mean_polyphony(rolls)
    assert mean[0] == 10 / 8
    assert math.isnan(mean[1])
    assert measures.sounding_pitches(rolls[0]).tolist() == [60, 64]
    assert [measures.end_of_music(roll) for roll in rolls] == [8, 0]

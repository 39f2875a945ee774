from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fractalgen.features.notes import as_rolls, faults, note_statistics, statistics_table, struck_notes
from fractalgen.music.tokens import notes_from_tokens
from tests import tiny


def test_statistics_of_a_roll_written_by_hand() -> None:
    roll = np.zeros((128, 32), np.uint8)
    roll[60, 0:4] = 1, 1, 0, 1  # a note from before, an orphan
    roll[64, 0:3] = 20, 1, 1
    roll[67, 8] = 5
    assert note_statistics(roll) == pytest.approx(
        {
            "density": 7 / 4096,
            "silence": 27 / 32,
            "notes": 2,
            "notes_per_bar": 1,
            "polyphony": 7 / 5,
            "hold_share": 5 / 7,
            "pitch_min": 60,
            "pitch_mean": (3 * 60 + 3 * 64 + 67) / 7,
            "pitch_max": 67,
            "orphan_holds": 1,
        }
    )


def test_a_batch_counts_as_one_long_roll() -> None:
    rolls = np.stack([tiny.tokens(0), tiny.tokens(1), np.zeros((128, tiny.WIDTH), np.uint8)])
    long = note_statistics(np.concatenate(rolls, axis=1))
    batch = note_statistics(torch.from_numpy(rolls))
    assert batch.pop("notes") == pytest.approx(long.pop("notes") / 3)
    assert batch == pytest.approx(long)


def test_silence_has_no_pitch() -> None:
    statistics = note_statistics(np.zeros((128, 16), np.uint8))
    assert statistics["density"] == 0
    assert statistics["silence"] == 1
    assert math.isnan(statistics["pitch_mean"])
    assert math.isnan(statistics["hold_share"])


def test_table() -> None:
    silent, real = (note_statistics(tokens) for tokens in (np.zeros((128, 16), np.uint8), tiny.tokens(0)))
    head, first, second = statistics_table({"generated": silent, "real": real}).splitlines()
    assert len(head) == len(first) == len(second)
    assert "polyphony" in head
    assert first.split()[:4] == ["generated", "0", "100", "0"]
    assert second.startswith("real")


def test_struck_notes_by_hand() -> None:
    first = np.zeros((128, 6), np.uint8)
    first[127, 4:] = 30, 1  # up to the right edge
    first[60] = 1, 1, 5, 6, 1, 0  # held from before, struck twice
    second = np.zeros((128, 6), np.uint8)
    second[0] = 9, 0, 1, 0, 0, 33  # an orphan
    notes = struck_notes(np.stack([first, second]))
    rows = [(0, 2, 60, 3, 1), (0, 3, 60, 4, 2), (0, 4, 127, 28, 2), (1, 0, 0, 7, 1), (1, 5, 0, 31, 1)]
    assert list(zip(*(column.tolist() for column in notes), strict=True)) == rows


def test_struck_notes_are_those_of_each_roll() -> None:
    rolls = np.stack([tiny.tokens(seed, 48, 100) for seed in range(4)])
    notes = struck_notes(torch.from_numpy(rolls))
    for index, tokens in enumerate(rolls):
        expected = notes_from_tokens(tokens)
        ours = notes.roll == index
        for name, column in (("start", notes.step), ("pitch", notes.pitch), ("duration", notes.duration)):
            assert column[ours].tolist() == expected[name].tolist()


@pytest.mark.parametrize("shape", [(128,), (12, 32), (2, 64, 32), (0, 128, 32), (2, 128, 0)])
def test_shapes_that_are_no_rolls(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rolls have shape"):
        as_rolls(np.zeros(shape, np.uint8))


def test_faults_by_hand() -> None:
    """Three rolls: silent, as full as the fullest real one, fuller; one orphaned hold in all."""
    real = np.zeros((2, 128, 4), np.uint8)
    real[1, 60, :2] = 5
    samples = np.zeros((3, 128, 4), np.uint8)
    samples[1, 60, :2] = 5
    samples[2, 60:63, 2] = 5, 5, 1
    assert faults(samples, real) == {"silent": 1, "saturated": 1, "orphan_holds": pytest.approx(1 / 3)}

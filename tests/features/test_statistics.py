from __future__ import annotations

import functools
import itertools
import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fractalgen.features.statistics import (
    STATISTICS,
    bar_repetition,
    circular_wasserstein,
    compare,
    comparison_table,
    histograms,
    mean_distance,
    music_statistics,
    parallel_motion,
    shuffled,
    three_rows,
    wasserstein,
)
from fractalgen.music.tokens import notes_from_tokens
from tests import features, tiny

roll = functools.partial(features.roll, width=32)


def melody(*chords: tuple[int, ...], duration: int = 2) -> np.ndarray:
    """Chords struck one after the other."""
    notes = [(pitch, i * duration, duration) for i, chord in enumerate(chords) for pitch in chord]
    return roll(*notes, width=64)


def test_statistics_by_hand() -> None:
    tokens = roll((60, 0, 4), (64, 0, 2), (67, 4, 1), (72, 20, 12))
    tokens[50, :2] = 1  # held from before: it sounds, but is no note
    values = music_statistics(np.stack([tokens, np.zeros_like(tokens)]))
    assert values.keys() == STATISTICS.keys()
    assert values["pitch"].tolist() == [60, 64, 67, 72]
    assert values["pitch_class"].tolist() == [0, 4, 7, 0]
    assert values["velocity"].tolist() == [10] * 4
    assert values["duration"].tolist() == [4, 2, 1, 12]
    assert values["inter_onset"].tolist() == [4, 16]
    assert values["polyphony"].tolist() == [3, 3, 1, 1, 1] + [1] * 12
    assert values["density"].tolist() == [100 * 21 / 4096, 0]
    assert values["notes_per_bar"].tolist() == [2, 0]
    first = {name: values[name][0] for name, statistic in STATISTICS.items() if statistic.per == "roll"}
    assert first["mean_polyphony"] == 21 / 17
    assert first["pitch_range"] == 12
    assert first["pitch_class_entropy"] == pytest.approx(1.5)  # shares 1/2, 1/4, 1/4
    assert first["scale_consistency"] == 1
    assert first["groove_consistency"] == 1 - 1 / 16  # struck at 0 and 4, then at 4
    assert first["repetition"] == 0
    assert math.isnan(first["parallel_fifths"])
    undefined = [name for name, statistic in STATISTICS.items() if statistic.per == "roll"][2:]
    assert all(math.isnan(values[name][1]) for name in undefined)


def test_a_set_is_the_sum_of_its_rolls() -> None:
    """Intervals between onsets, say, do not go from one roll to the next."""
    rolls = np.stack([tiny.tokens(seed, 40, 60) for seed in range(5)])  # two and a half bars
    together = music_statistics(rolls)
    apart = [music_statistics(tokens) for tokens in rolls]
    for name, values in together.items():
        np.testing.assert_allclose(values, np.concatenate([one[name] for one in apart]))


@pytest.mark.slow  # importing muspy takes seconds
def test_muspy_agrees() -> None:
    muspy = pytest.importorskip("muspy")

    def music(tokens: np.ndarray) -> Any:
        columns = (notes_from_tokens(tokens)[name].tolist() for name in ("start", "pitch", "duration"))
        notes = [muspy.Note(time, pitch, duration, 64) for time, pitch, duration in zip(*columns, strict=True)]
        return muspy.Music(resolution=4, tracks=[muspy.Track(notes=notes)])

    rolls = np.stack([tiny.tokens(seed, 61, 15 * seed) for seed in range(1, 7)])
    ours = music_statistics(rolls)
    for index, tokens in enumerate(rolls):
        piece = music(tokens)
        assert piece.get_end_time() % 16 != 0
        theirs = {
            "mean_polyphony": muspy.polyphony(piece),
            "pitch_range": muspy.pitch_range(piece),
            "pitch_class_entropy": muspy.pitch_class_entropy(piece),
            "scale_consistency": muspy.scale_consistency(piece),
            "groove_consistency": muspy.groove_consistency(piece, 16),
        }
        assert {name: ours[name][index] for name in theirs} == pytest.approx(theirs)

    # the one difference: muspy compares the last bar with an empty one when the music ends on a bar line
    twice = roll(*((60, step, 4) for step in range(0, 32, 4)))
    assert music_statistics(twice)["groove_consistency"].tolist() == [1]
    assert muspy.groove_consistency(music(twice), 16) == 1 - 4 / 32


def test_scale_consistency_knows_24_scales() -> None:
    # A melodic minor with both sevenths: at best 7 of 8 notes are in a scale.  MusPy 0.5.0 says 0.875.
    notes = [(pitch, i, 1) for i, pitch in enumerate((57, 59, 60, 62, 64, 65, 67, 68))]
    assert music_statistics(roll(*notes))["scale_consistency"].tolist() == [7 / 8]


def test_groove_ends_with_the_music() -> None:
    beat = [(60, step, 1) for step in (0, 4, 8, 12)]
    again = [(60, 16 + step, 1) for step in (0, 4, 8, 14)]
    one, two = roll(*beat, width=64), roll(*beat, *again, width=64)
    values = music_statistics(np.stack([one, two]))["groove_consistency"]
    assert math.isnan(values[0])
    assert values[1] == 1 - 2 / 16  # the two silent bars after it are not counted
    held = roll(*beat, (62, 12, 20), width=64)  # the second bar sounds, but nothing is struck in it
    assert music_statistics(held)["groove_consistency"].tolist() == [1 - 4 / 16]


def test_repetition_looks_1_2_4_and_8_bars_back() -> None:
    figure = [(60, 0, 2), (64, 4, 2), (67, 8, 2)]
    for lag in range(1, 10):
        there = [(pitch, start + 16 * lag, 1) for pitch, start, _ in figure]  # durations do not matter
        expected = 1.0 if lag in (1, 2, 4, 8) else 0.0
        assert bar_repetition(roll(*figure, *there, width=160)).tolist() == [expected]


def test_repetition_is_the_mean_best_jaccard_similarity() -> None:
    bars = [
        *((60, 0, 2), (64, 4, 2), (67, 8, 2)),
        *((60, 16, 2), (64, 20, 2), (69, 24, 2)),  # 2 of 4 onsets in common
        # nothing in the third bar
        *((60, 48, 2), (64, 52, 2)),  # 2 of 3 with the second bar, 2 steps back; bar 1 is 3 back
    ]
    assert bar_repetition(roll(*bars, width=64)) == pytest.approx([(1 / 2 + 2 / 3) / 2])
    assert math.isnan(bar_repetition(roll((60, 0, 2), width=64))[0])


@pytest.mark.parametrize(
    ("chords", "together", "fifths", "octaves"),
    [
        ([(48, 55), (50, 57)], 1, 1, 0),
        ([(48, 67), (40, 47)], 1, 1, 0),  # a twelfth becomes a fifth
        ([(48, 60), (50, 62), (48, 60)], 2, 0, 2),
        ([(48, 55), (50, 58)], 1, 0, 0),
        ([(48, 52), (50, 57)], 1, 0, 0),  # hidden, not parallel
        ([(48, 55), (48, 55)], 0, 0, 0),  # struck again
        ([(48, 67), (55, 60)], 0, 0, 0),  # contrary motion
        ([(48, 55, 60), (50, 57, 62)], 3, 1, 1),  # a fifth, a fourth, an octave
        ([(48, 55, 60), (50, 69)], 1, 0, 0),  # outer voices: an octave becomes a twelfth
        ([(48, 55, 67), (50, 69)], 1, 1, 0),  # outer voices: 48 to 55 and 50 to 57 is not looked at
        ([(48, 60), (50, 57, 62)], 1, 0, 1),
        ([(48, 60), (50,)], 0, 0, 0),  # one voice has no outer pair
        ([(48, 54, 55, 59, 60), (49, 55, 56, 60, 61)], 10, 1, 1),
    ],
)
def test_parallel_motion_by_hand(chords: list[tuple[int, ...]], together: int, fifths: int, octaves: int) -> None:
    found = parallel_motion(melody(*chords))
    expected = [1000 * count / together if together else math.nan for count in (fifths, octaves)]
    np.testing.assert_allclose(np.concatenate(found), expected)


def test_parallel_motion_goes_from_onset_to_onset_within_a_roll() -> None:
    rest = roll((48, 0, 1), (55, 0, 1), (50, 8, 1), (57, 8, 1))
    # 60 is held: by rank alone it would go down with the others, to 57 and to 55
    held = np.stack(
        [
            roll((60, 0, 4), (64, 0, 2), (67, 0, 2), (57, 2, 2), (64, 2, 2)),
            roll((60, 0, 4), (67, 0, 2), (55, 2, 2), (62, 2, 2)),
            roll((60, 0, 4), (67, 0, 2), (53, 2, 2)),
        ]
    )
    ends = roll((48, 0, 4), (55, 0, 4), (90, 0, 1), (50, 4, 1), (57, 4, 1))  # 90 sounded with them, but is over
    apart = np.stack([roll((48, 0, 1), (55, 0, 1)), roll((50, 1, 1), (57, 1, 1))])
    assert [value.tolist() for value in parallel_motion(rest)] == [[1000], [0]]
    assert np.isnan(parallel_motion(held)).all()
    assert np.isnan(parallel_motion(ends)).all()  # 48 and 90 go to 50 and 57
    assert np.isnan(parallel_motion(apart)).all()


def slow_parallel_motion(tokens: np.ndarray) -> list[float]:
    """The same rule note by note."""
    together = fifths = octaves = 0
    steps = np.flatnonzero((tokens > 1).any(axis=0))
    for before, now in itertools.pairwise(steps):
        old, new = (np.flatnonzero(tokens[:, step]).tolist() for step in (before, now))
        if len(old) != len(new):
            old, new = ([chord[0], chord[-1]] if len(chord) > 1 else [] for chord in (old, new))
        if not old or not new:
            continue
        moves = [(a, b) for a, b in zip(old, new, strict=True) if a != b and tokens[b, now] > 1 and tokens[a, now] != 1]
        for (a, b), (c, d) in itertools.combinations(moves, 2):
            if (b > a) == (d > c):
                together += 1
                fifths += (c - a) % 12 == (d - b) % 12 == 7
                octaves += (c - a) % 12 == (d - b) % 12 == 0
    return [1000 * count / together if together else math.nan for count in (fifths, octaves)]


def test_parallel_motion_of_random_rolls_against_the_rule_written_out() -> None:
    random = np.random.default_rng(0)
    rolls = np.zeros((8, 128, 128), np.uint8)
    for tokens in rolls:
        for start in range(128):  # chords of two layers of fifths and octaves, struck and held at random
            for pitch in random.choice((40, 42, 47, 49, 52, 54, 59, 61, 64), random.integers(0, 5), replace=False):
                tokens[pitch, start : start + random.integers(1, 4)] = 1
                tokens[pitch, start] = 20
    expected = np.array([slow_parallel_motion(tokens) for tokens in rolls])
    np.testing.assert_allclose(np.stack(parallel_motion(rolls), axis=1), expected)
    assert (expected > 0).any(axis=0).all()  # there were fifths and octaves to be found


def test_wasserstein_by_hand_and_against_scipy() -> None:
    assert wasserstein(np.array([0, 0, 3]), np.array([1, 1, 1])) == pytest.approx(4 / 3)
    assert wasserstein(np.array([5]), np.array([2, 2])) == 3
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    one, two = random.integers(0, 20, 50), random.normal(size=33)
    assert wasserstein(one, two) == pytest.approx(stats.wasserstein_distance(one, two))


def test_circular_wasserstein_takes_the_shorter_way() -> None:
    keys = np.eye(12)
    assert [circular_wasserstein(keys[0], keys[key]) for key in range(12)] == [0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1]
    assert circular_wasserstein(keys[0], np.full(12, 1 / 12)) == pytest.approx(3)  # mean distance to all keys


def test_compare_by_hand() -> None:
    one = music_statistics(roll((60, 0, 4), (59, 4, 1), (60, 8, 1), (59, 12, 2)))
    two = music_statistics(roll((59, 0, 1), (59, 4, 1)))
    result = compare(one, two)
    half = {"wasserstein": 0.5, "scaled": 1, "overlap": 0.5}
    assert result["pitch"] == {"reference_mean": 59.5, "sample_mean": 59, **half}
    assert result["pitch_class"] == {"reference_mean": None, "sample_mean": None, **half}  # B and C are neighbours
    assert result["duration"]["wasserstein"] == 1
    assert result["duration"]["overlap"] == 0.5
    assert result["velocity"]["wasserstein"] == 0
    assert result["velocity"]["overlap"] == 1
    assert result["velocity"]["scaled"] is None  # the reference has one velocity only
    assert result["notes_per_bar"]["wasserstein"] == 1
    assert set(result["parallel_fifths"].values()) == {None}


def test_values_on_the_edge_of_a_bin_stay_together() -> None:
    base = music_statistics(roll((60, 0, 1)))
    one, two = (base | {"repetition": np.array(values)} for values in ([0.3, 0.15, math.nan], [0.1 * 3, 0.05 * 3]))
    assert compare(one, two)["repetition"]["overlap"] == 1  # 0.3 / 0.05 is a little less than 6
    assert compare(one, base | {"repetition": np.array([0.34, 0.12])})["repetition"]["overlap"] == 0.5


def test_a_set_is_no_distance_from_itself() -> None:
    values = music_statistics(np.stack([tiny.tokens(seed, 64, 100) for seed in range(4)]))
    for row in compare(values, values).values():
        assert row["wasserstein"] == pytest.approx(0, abs=1e-12)
        assert row["overlap"] == pytest.approx(1)
        assert row["reference_mean"] == row["sample_mean"]


def test_shuffled_keeps_the_cells_of_each_roll() -> None:
    rolls = np.stack([tiny.tokens(seed, 64, 100) for seed in range(3)])
    before = rolls.copy()
    result = shuffled(rolls, np.random.default_rng(0))
    assert np.array_equal(rolls, before)
    assert not np.array_equal(result, rolls)
    assert np.array_equal(np.sort(result.reshape(3, -1)), np.sort(rolls.reshape(3, -1)))
    assert np.array_equal(result, shuffled(rolls, np.random.default_rng(0)))
    everywhere = np.count_nonzero(result, axis=(0, 2))
    assert 40 / 128 - 0.1 < everywhere[40:80].sum() / everywhere.sum() < 40 / 128 + 0.1  # all notes were in 40 to 79


def test_three_rows_lie_between_floor_and_ceiling() -> None:
    def music(seed: int) -> np.ndarray:
        """A walk in C major over a bass."""
        random = np.random.default_rng(seed)
        degrees = np.cumsum(random.integers(-1, 2, 32)) % 14
        pitches = 60 + 12 * (degrees // 7) + np.array([0, 2, 4, 5, 7, 9, 11])[degrees % 7]
        return roll(*((int(p), 2 * i, 2) for i, p in enumerate(pitches)), *((36, 8 * i, 8) for i in range(8)), width=64)

    reference, other, samples = (
        np.stack([music(seed) for seed in seeds]) for seeds in (range(40), range(40, 90), range(100, 112))
    )
    samples[:, 61] = samples[:, 62]  # wrong notes
    rows = three_rows(reference, other, samples, np.random.default_rng(0))
    assert list(rows) == ["real", "generated", "shuffled"]
    for name in ("scale_consistency", "pitch_class"):
        distances = [rows[row][name]["wasserstein"] for row in ("real", "generated", "shuffled")]
        assert all(distance is not None for distance in distances)
        assert distances == sorted(distances, key=float)  # type: ignore[arg-type]
    assert rows["shuffled"]["pitch"]["overlap"] < rows["real"]["pitch"]["overlap"]  # type: ignore[operator]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows

    lines = comparison_table(rows).splitlines()
    assert len(lines) == 3 + len(STATISTICS)
    assert [float(word) for word in lines[-1].split()[-3:]] == [round(mean_distance(row), 3) for row in rows.values()]
    assert len({len(line) for line in lines}) == 1
    line = next(line for line in lines if line.startswith("density"))
    values = rows["generated"]["density"]
    assert line.removeprefix("density (% of cells)").split()[4:7] == [
        f"{values[key]:.3g}" for key in ("sample_mean", "wasserstein", "overlap")
    ]


def test_no_more_other_rolls_than_samples() -> None:
    notes = [(60 + i, 2 * i, 2) for i in range(8)]
    other = np.stack([roll(*notes[:count], width=16) for count in (1, 2, 4, 8)])
    chosen = set()
    for seed in range(20):
        rows = three_rows(other, other, other[:1], np.random.default_rng(seed))
        assert rows["real"]["notes_per_bar"] == rows["shuffled"]["notes_per_bar"]  # the same roll
        chosen.add(rows["real"]["notes_per_bar"]["sample_mean"])
    assert chosen == {1, 2, 4, 8}
    all_of_them = three_rows(other, other, np.concatenate([other, other]), np.random.default_rng(0))
    assert all_of_them["real"]["notes_per_bar"]["sample_mean"] == 15 / 4


def test_histograms_are_shares_of_both_sets() -> None:
    one = music_statistics(roll((60, 0, 4), (62, 4, 1), (62, 8, 1), (60, 12, 2)))
    two = music_statistics(roll((64, 0, 1), (62, 4, 1)))
    result = histograms(one, two)
    assert list(result) == [name for name, statistic in STATISTICS.items() if statistic.per != "roll"]
    assert result["pitch"] == {
        "values": [60, 61, 62, 63, 64],
        "real": [0.5, 0, 0.5, 0, 0],
        "generated": [0, 0, 0.5, 0, 0.5],
        "unit": "MIDI pitch",
    }
    assert result["pitch_class"]["values"] == list(range(12))
    for histogram in result.values():
        assert sum(histogram["real"]) == pytest.approx(1)
        assert sum(histogram["generated"]) == pytest.approx(1)
    silence = music_statistics(np.zeros((128, 16), np.uint8))
    assert histograms(one, silence) == {}
    expected = dict.fromkeys(("reference_mean", "sample_mean", "wasserstein", "scaled", "overlap"))
    assert compare(one, silence)["pitch"] == expected | {"reference_mean": 61}


def test_the_package_is_light() -> None:
    heavy = (
        "import sys, fractalgen.features.statistics, fractalgen.evaluation.copying, fractalgen.evaluation.two_sample;"
    )
    code = heavy + "print([name for name in ('torch', 'scipy', 'sklearn', 'matplotlib') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

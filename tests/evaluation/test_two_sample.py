"""The classifier two-sample test: chance where there is no difference, and the difference where there is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractalgen.data.corpus import Corpus, write_corpus
from fractalgen.data.song import Song
from fractalgen.evaluation import two_sample
from fractalgen.evaluation.two_sample import (
    auc_and_error,
    chance,
    compare_with_songs,
    folds,
    single_aucs,
    song_excerpts,
    spread_choice,
    two_sample_test,
    two_sample_text,
)
from fractalgen.features.statistics import shuffled
from fractalgen.features.table import FEATURES
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import NOTE, ONSET, tokens_from_notes
from tests import tiny

SCALE = np.array([0, 2, 4, 5, 7, 9, 11])


@pytest.fixture
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_sample, "TREES", 30)
    monkeypatch.setattr(two_sample, "REPEATS", 2)


def music(seed: int, width: int = 64) -> np.ndarray:
    """A walk in a key over a bass."""
    random = np.random.default_rng(seed)
    degrees = np.cumsum(random.integers(-2, 3, width // 2)) % 14
    key = random.integers(12)
    notes = np.zeros(width // 2 + width // 8, NOTE)
    notes["pitch"] = (
        key + np.r_[60 + 12 * (degrees // 7) + SCALE[degrees % 7], 36 + random.choice((0, 5, 7), width // 8)]
    )
    notes["start"] = np.r_[0:width:2, 0:width:8]
    notes["duration"] = np.r_[np.full(width // 2, 2), np.full(width // 8, 8)]
    notes["velocity"] = np.clip(random.normal(16, 3, len(notes)), 0, 31)
    return tokens_from_notes(notes[np.lexsort((notes["pitch"], notes["start"]))], 0, width)


def songs(first: int, count: int, each: int = 1) -> np.ndarray:
    return np.stack([music(seed) for seed in range(first, first + count * each)])


@pytest.mark.slow
@pytest.mark.usefixtures("few_trees")
def test_real_music_cannot_be_told_from_real_music() -> None:
    result = two_sample_test(songs(0, 20, 3), np.repeat(range(20), 3), songs(500, 40))
    assert (result["excerpts"], result["songs"], result["bars"], result["floor_excerpts"]) == (40, 20, 4, 30)
    for name in ("forest", "linear"):
        found = result[name]
        assert abs(found["auc"] - 0.5) < 0.15 + 2 * found["stderr"]
        assert abs(found["floor"] - 0.5) < 0.15 + 2 * found["floor_stderr"]
        assert 0.01 < found["stderr"] < 0.15
    assert 0.5 < result["chance"] < 0.8


@pytest.mark.slow
@pytest.mark.usefixtures("few_trees")
def test_shuffled_music_is_always_told() -> None:
    noise = shuffled(songs(500, 12), np.random.default_rng(0))
    result = two_sample_test(songs(0, 15), np.arange(15), noise)
    assert result == two_sample_test(songs(0, 15), np.arange(15), noise)
    assert result == json.loads(json.dumps(result, allow_nan=False))
    assert (result["excerpts"], result["floor_excerpts"]) == (12, None)
    assert result["forest"]["auc"] > 0.99
    assert result["linear"]["auc"] > 0.99
    assert result["forest"]["floor"] is None


@pytest.mark.slow
@pytest.mark.usefixtures("few_trees")
def test_one_difference_is_found_and_ranked_first() -> None:
    """Samples that are like songs in all but one thing: bars begin louder."""
    samples = songs(500, 40)
    downbeats = samples[:, :, ::16]
    downbeats[downbeats >= ONSET] += 3
    result = two_sample_test(songs(0, 40), np.arange(40), samples)
    first, second = result["features"][:2]
    assert first["name"] == "velocity_downbeat"
    assert first["auc"] > result["chance"] + 0.1
    assert first["auc"] > second["auc"] + 0.05
    assert first["generated_mean"] - first["real_mean"] == pytest.approx(3, abs=0.6)
    assert first["real_std"] > 0
    assert result["forest"]["auc"] > 0.75
    assert result["linear"]["auc"] > 0.75
    assert {found["name"] for found in result["features"]} == set(FEATURES)
    aucs = [found["auc"] for found in result["features"]]
    assert aucs == sorted(aucs, reverse=True)
    text = two_sample_text(result | {"edge": "end"})
    assert "the last 4 bars of 40 samples and of 40 songs" in text
    assert f"random forest {result['forest']['auc']:.3f} +- " in text
    assert f"{first['auc']:.2f} accent of downbeats (bins): real " in text


@pytest.mark.parametrize(("real", "generated"), [(9, 20), (20, 9)])
def test_too_few(real: int, generated: int) -> None:
    message = f"{generated} samples and excerpts of {real} songs; it needs 10 of each"
    with pytest.raises(ValueError, match=message):
        two_sample_test(songs(0, real, 2), np.repeat(range(real), 2), songs(500, generated))


def test_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="real rolls have 64 steps, generated ones 32"):
        two_sample_test(songs(0, 10), np.arange(10), songs(500, 10)[:, :, :32])


@pytest.mark.parametrize("seed", range(5))
def test_folds_never_split_a_song(seed: int) -> None:
    label = np.repeat([0, 1], 60)
    groups = np.r_[np.repeat(range(15), 4), range(100, 160)]
    fold = folds(label, groups, seed)
    assert all(len(set(fold[groups == group])) == 1 for group in set(groups.tolist()))
    assert set(fold.tolist()) == set(range(5))
    counts = np.stack([np.bincount(fold[label == side], minlength=5) for side in (0, 1)])
    assert counts.tolist() == [[12] * 5] * 2


@pytest.mark.slow
@pytest.mark.usefixtures("few_trees")
def test_knowing_the_songs_does_not_help() -> None:
    """Six equal excerpts of every song: classifiers that had seen one of them would know the others."""
    real = np.repeat(songs(0, 12), 6, axis=0)
    result = two_sample_test(real, np.repeat(range(12), 6), songs(500, 72))
    assert result["excerpts"] == 72
    assert result["forest"]["auc"] < 0.75


def test_choices_come_from_as_many_songs_as_possible() -> None:
    groups = np.array([0] * 50 + [1] * 3 + [2] * 1)
    random = np.random.default_rng(0)
    chosen = [spread_choice(groups, 5, random) for _ in range(20)]
    assert all(sorted(groups[items].tolist()) == [0, 0, 1, 1, 2] for items in chosen)
    assert len({tuple(sorted(items.tolist())) for items in chosen}) > 10
    assert sorted(spread_choice(groups, 54, random).tolist()) == list(range(54))


def test_auc_against_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(0)
    label, scores = random.integers(0, 2, 80), random.integers(0, 9, 80) / 8  # with ties
    auc, error = auc_and_error(scores, label, np.zeros(80, int), np.arange(80))
    assert auc == pytest.approx(roc_auc_score(label, scores))
    assert 0.03 < error < 0.1
    aucs = single_aucs(np.stack([scores, -scores], axis=1), np.stack([label == 1, label == 0]))
    np.testing.assert_allclose(aucs, [[auc, 1 - auc], [1 - auc, auc]])


def test_the_standard_error_is_what_repetitions_differ_by() -> None:
    random = np.random.default_rng(0)
    label, fold = np.repeat([0, 1], 40), np.zeros(80, int)
    found = np.array([auc_and_error(random.normal(label, 1.0), label, fold, np.arange(80)) for _ in range(400)])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.1)


def test_copies_of_excerpts_make_nothing_surer() -> None:
    random = np.random.default_rng(0)
    label, groups = np.repeat([0, 1], 20), np.arange(40)
    scores, fold = random.normal(label, 1.0), np.tile([0, 1], 20)
    copied = [np.repeat(values, 3) for values in (scores, label, fold, groups)]
    assert auc_and_error(*copied) == pytest.approx(auc_and_error(scores, label, fold, groups))


def test_scores_of_different_folds_are_not_compared() -> None:
    label, fold = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    assert auc_and_error(np.array([0.1, 0.2, 0.8, 0.9]), label, fold, np.arange(4))[0] == 1  # 0.2 is below 0.8


def test_chance_holds_nineteen_times_in_twenty() -> None:
    random = np.random.default_rng(0)
    limit = chance(random.normal(size=(60, 10)), np.arange(60), 30, random)
    fresh = random.normal(size=(400, 60, 10))
    strongest = [np.abs(single_aucs(values, np.arange(60) >= 30) - 0.5).max() + 0.5 for values in fresh]
    assert 0.01 < np.mean(np.array(strongest) > limit) < 0.12


def corpus(path: Path, *forms: tuple[int, tuple[tuple[int, int, int], ...]]) -> Corpus:
    """Songs of so many steps in these meters, in each step of which a note is struck that counts the steps."""
    pieces = []
    for number, (steps, meters) in enumerate(forms):
        tokens = np.zeros((128, steps), np.uint8)
        tokens[np.arange(steps) % 128, np.arange(steps)] = 20
        pieces.append(Song.from_roll(f"song {number}", PianoRoll(tokens, time_signatures=meters)))
    splits: Any = {song.name: "valid" for song in pieces}
    write_corpus(pieces, splits, path)
    return Corpus.open(path)


def test_excerpts_of_songs(tmp_path: Path) -> None:
    plain = ((0, 4, 4),)
    odd = ((0, 4, 4), (32, 2, 4), (40, 4, 4))  # the third bar is a half one
    found = corpus(tmp_path / "songs.safetensors", (112, plain), (104, odd), (96, ((0, 3, 4),)), (32, plain))

    def starts(edge: Any, steps_per_bar: int | None = None) -> list[tuple[int, int]]:
        rolls, groups = song_excerpts(found, range(4), 48, edge, steps_per_bar)
        assert rolls.shape == (len(groups), 128, 48)
        return [(int(song), int(np.flatnonzero(roll[:, 0])[0])) for song, roll in zip(groups, rolls, strict=True)]

    assert starts("end") == [(0, 64), (1, 56), (2, 48)]
    assert starts("any") == [(0, 0), (0, 48), (1, 0), (1, 56), (2, 0), (2, 48)]
    assert starts("end", 16) == [(0, 64), (1, 56)]
    assert starts("any", 16) == [(0, 0), (0, 48), (1, 40)]


@pytest.mark.slow
@pytest.mark.usefixtures("few_trees")
def test_samples_are_compared_with_what_ends_as_they_do(tmp_path: Path) -> None:
    """Songs of six bars, and samples of eight, of which only the last four are like the ends of songs."""
    found = corpus(tmp_path / "songs.safetensors", *[(96, ((0, 4, 4),))] * 12)
    ends = song_excerpts(found, range(12), 64, "end")[0]
    samples = np.concatenate([songs(500, 12), ends], axis=2)
    ended = compare_with_songs(found, range(12), samples, ends=True, bar_columns=True)
    assert (ended["edge"], ended["bars"]) == ("end", 4)
    assert ended["forest"]["auc"] == ended["linear"]["auc"] == 0.5  # they are the same
    begun = compare_with_songs(found, range(12), samples, ends=False, bar_columns=True)
    assert (begun["edge"], begun["bars"]) == ("any", 4)
    assert begun["forest"]["auc"] > 0.99
    assert "the first 4 bars of 12 samples and 12 excerpts as long from anywhere in 12 songs" in two_sample_text(begun)


def test_too_few_comparable_songs_leave_it_out(tmp_path: Path) -> None:
    few = Corpus.open(tiny.corpus(tmp_path / "songs.safetensors"))
    result = compare_with_songs(few, range(6), songs(0, 20), ends=True, bar_columns=True)
    assert result == {"left_out": "20 samples and excerpts of 6 songs; it needs 10 of each"}
    assert two_sample_text(result).startswith("two-sample test left out: 20 samples")
    waltzes = corpus(tmp_path / "waltzes.safetensors", *[(96, ((0, 3, 4),))] * 12)
    result = compare_with_songs(waltzes, range(12), songs(0, 20), ends=True, bar_columns=True)
    assert "excerpts of 0 songs" in result["left_out"]

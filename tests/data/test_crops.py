"""Packed corpora and the crops taken from them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.numpy import save_file
from torch.utils.data import DataLoader

from fractalgen.data.corpus import Corpus, Split, write_corpus
from fractalgen.data.crops import CropDataset, ValidCrops
from fractalgen.data.song import Song
from fractalgen.errors import UserError
from fractalgen.evaluation.copying import BarIndex
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import SILENCE, merge_notes
from tests.music.test_pianoroll import rolls


def roll_of(rows: list[tuple[int, int, int, int]], **settings: Any) -> PianoRoll:
    pitch, start, stop, velocity = np.array(rows).T
    return PianoRoll.from_notes(merge_notes(pitch, start, stop, velocity), **settings)


def write(path: Path, rolls: dict[str, PianoRoll], splits: dict[str, Split] | None = None) -> Corpus:
    songs = [Song.from_roll(name, roll) for name, roll in rolls.items()]
    write_corpus(songs, splits or dict.fromkeys(rolls, "train"), path, licence="ours")
    return Corpus.open(path)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    rng = np.random.default_rng(0)
    made = {}
    for name, steps in {"long": 480, "waltz": 240, "short": 20}.items():
        rows = [(int(p), i, i + int(d), 9) for i, (p, d) in enumerate(rng.integers((40, 1), (80, 6), (steps, 2)))]
        meter = ((0, 3, 4),) if name == "waltz" else ((0, 4, 4),)
        made[name] = roll_of(rows, tempos=((0, 90.0), (16, 100.0)), time_signatures=meter)
    return write(tmp_path / "c.safetensors", made, {"long": "train", "waltz": "train", "short": "valid"})


@given(rolls())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_song_comes_back_as_whole_bars(tmp_path: Path, roll: PianoRoll) -> None:
    if not len(roll.notes()):
        return
    song = Song.from_roll("a", roll)
    path = tmp_path / "c.safetensors"
    grid: dict[str, Any] = {"steps_per_quarter": roll.steps_per_quarter, "velocity_bins": roll.velocity_bins}
    write_corpus([song], {"a": "train"}, path, **grid)
    again = Corpus.open(path).roll(0)
    first = int(roll.notes()["start"][0]) - int(again.notes()["start"][0])
    assert first in roll.downbeats()
    shifted = roll.notes()
    shifted["start"] -= first
    assert np.array_equal(again.notes(), shifted)
    rest = again.width - int((shifted["start"] + shifted["duration"]).max())
    assert 0 <= rest < 255 * 4 * roll.steps_per_quarter
    assert again.tempos[0][1] == [tempo for step, tempo in roll.tempos if step <= first][-1]
    assert again.time_signatures[0][1:] == [meter[1:] for meter in roll.time_signatures if meter[0] <= first][-1]


def test_corpus_describes_itself_and_keeps_everything(corpus: Corpus) -> None:
    assert corpus.song_ids == ["long", "waltz", "short"]
    assert corpus.indices("train") == [0, 1]
    assert corpus.metadata["licence"] == "ours"
    steps, tempos = zip(*corpus.roll(0).tempos, strict=True)
    assert steps == (0, 16)
    assert tempos == pytest.approx((90, 100), abs=1e-3)
    assert corpus.downbeats(1)[:3].tolist() == [0, 12, 24]
    assert corpus.beats(1)[:4].tolist() == [0, 4, 8, 12]
    assert corpus.num_steps(2) == 32  # two whole bars
    whole = corpus.tokens(0)
    assert np.array_equal(corpus.tokens(0, 100, 200), whole[:, 100:200])  # what sounds across the edge stays held
    assert not corpus.tokens(2, 32, 64).any()


def test_corpus_travels_to_workers_as_a_path(corpus: Corpus) -> None:
    packed = pickle.dumps(corpus)
    assert len(packed) < 500
    assert np.array_equal(pickle.loads(packed).tokens(0), corpus.tokens(0))


def test_what_is_not_a_corpus_is_refused_in_one_line(tmp_path: Path, corpus: Corpus) -> None:
    whole = corpus.path.read_bytes()
    text, cut, plain, newer, other = (tmp_path / name for name in ("text", "cut", "plain", "newer", "other"))
    text.write_text("this is no corpus", encoding="utf-8")
    cut.write_bytes(whole[:-10])
    save_file({"a": np.zeros(3)}, plain)
    save_file({"a": np.zeros(3)}, newer, {"fractalgen": json.dumps({"format": "fractalgen-corpus", "version": 99})})
    save_file({"a": np.zeros(3)}, other, {"fractalgen": json.dumps({"format": "tree"})})
    expected = {
        text: "not a packed corpus",
        cut: "truncated",
        plain: "not a packed corpus",
        newer: "99",
        other: "'tree'",
        tmp_path: "cannot be read",
        tmp_path / "absent": "cannot be read",
    }
    for path, reason in expected.items():
        with pytest.raises(UserError) as caught:
            Corpus.open(path)
        assert reason in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_training_crops_are_excerpts_on_the_grid(corpus: Corpus) -> None:
    data = CropDataset(corpus, "train", 64)
    starts = [set(corpus.downbeats(i).tolist()) for i in (0, 1)]
    wholes = [corpus.tokens(i) for i in (0, 1)]
    seen = set()
    torch.manual_seed(0)
    for i in range(60):
        item = data[i]
        assert item["tokens"].shape == (128, 64)
        assert item["tokens"].dtype == item["labels"].dtype == torch.int64
        assert item["labels"].shape == (0,)
        found = [
            (song, start)
            for song in (0, 1)
            for start in range(wholes[song].shape[1] - 63)
            if np.array_equal(wholes[song][:, start : start + 64], item["tokens"].numpy())
        ]
        assert len(found) == 1
        assert found[0][1] in starts[found[0][0]]
        seen.add(found[0])
    assert len(seen) > 10
    assert {song for song, _ in seen} == {0, 1}


def test_transposition_moves_everything_and_stays_on_the_piano(tmp_path: Path) -> None:
    corpus = write(
        tmp_path / "c.safetensors",
        {"wide": roll_of([(23, 0, 8, 1), (107, 4, 16, 2)]), "off": roll_of([(3, 0, 8, 1), (120, 4, 16, 2)])},
    )
    shifts: dict[int, set[int]] = {0: set(), 1: set()}
    torch.manual_seed(0)
    data = CropDataset(corpus, "train", 16, transpose=(-6, 6))
    for i in range(200):
        keys = np.flatnonzero(data[i]["tokens"].numpy().any(axis=1))
        which = int(keys[-1] - keys[0] != 84)
        shifts[which].add(int(keys[0]) - (23, 3)[which])
    assert shifts == {0: {-2, -1, 0, 1}, 1: {0}}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one processor
def test_random_crops_repeat_under_a_seed_and_differ_between_workers(corpus: Corpus) -> None:
    data = CropDataset(corpus, "train", 64, transpose=(-6, 6), length=16)

    def epoch(workers: int) -> torch.Tensor:
        torch.manual_seed(3)
        return torch.cat([batch["tokens"] for batch in DataLoader(data, 4, num_workers=workers)])

    for workers in (0, 2):
        first = epoch(workers)
        assert first.shape == (16, 128, 64)
        assert torch.equal(first, epoch(workers))
        assert not torch.equal(first[:4], first[4:8])


def test_short_songs_are_followed_by_silence(corpus: Corpus) -> None:
    item = ValidCrops(corpus, "valid", 64)[0]["tokens"]
    assert item.shape == (128, 64)
    assert not item[:, 32:].any()
    short = CropDataset(corpus, "valid", 64)[0]["tokens"]
    assert torch.equal(item, short)


def test_valid_crops_are_consecutive_and_fixed(corpus: Corpus, tmp_path: Path) -> None:
    crops = ValidCrops(corpus, "train", 96)
    assert crops.crops[:5] == [(0, 0), (0, 96), (0, 192), (0, 288), (0, 384)]
    assert crops.crops[5:] == [(1, 0), (1, 96), (1, 192)]  # the last one is half full
    assert torch.equal(crops[3]["tokens"], crops[3]["tokens"])
    assert len(ValidCrops(corpus, "train", 96, limit=4)) == 4
    assert ValidCrops(corpus, "train", 96, limit=4).crops == crops.crops[::2]
    gap = write(tmp_path / "gap.safetensors", {"gap": roll_of([(60, 0, 8, 1), (60, 300, 304, 1)])})
    assert ValidCrops(gap, "train", 64).crops == [(0, 0), (0, 256)]


def test_wrong_settings_are_told(corpus: Corpus) -> None:
    with pytest.raises(UserError, match=r"--data .*: no song in split 'test' .train 2, valid 1, test 0.; prepare"):
        ValidCrops(corpus, "test")
    with pytest.raises(UserError, match="--transpose_min 2 is above --transpose_max 1"):
        CropDataset(corpus, "train", transpose=(2, 1))
    with pytest.raises(UserError, match="split 'dev'"):
        corpus.indices("dev")  # type: ignore[arg-type]


def test_the_embedded_chorales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chorales = Corpus.open("chorales")
    assert chorales.path.stat().st_size < 1_000_000
    assert chorales.metadata["licence"] == "public domain"
    assert len(chorales) > 350
    assert len(set(chorales.song_ids)) == len(chorales)
    assert min(len(chorales.indices(split)) for split in ("train", "valid", "test")) >= 30
    keys = np.concatenate([chorales.notes(i)["pitch"] for i in range(len(chorales))])
    assert keys.min() >= 30
    assert keys.max() <= 85
    density = float(np.mean([(chorales.tokens(i) != SILENCE).mean() for i in range(len(chorales))]))
    assert 0.02 < density < 0.035  # four voices of 128 pitches, minus unisons and rests


def test_no_chorale_comes_back_in_another_split() -> None:
    chorales = Corpus.open("chorales")
    train = BarIndex.from_corpus(chorales)
    for song in (*chorales.indices("valid"), *chorales.indices("test")):
        roll = chorales.tokens(song, int(chorales.downbeats(song)[0]))
        assert (train.share(roll[None])["transposed"] or 0) < 0.5, chorales.song_ids[song]

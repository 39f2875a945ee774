"""Excerpts with bars as columns and with plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fractalgen.data.corpus import Corpus, estimated_chords, write_corpus
from fractalgen.data.crops import CropDataset, ValidCrops
from fractalgen.data.reading import read_chords
from fractalgen.data.song import Song
from fractalgen.errors import UserError
from fractalgen.model.plans import Plans
from fractalgen.music.bars import BarLayout
from fractalgen.music.chords import NO_CHORD, UNTOLD, parse_chord, spelled, transposed_chords
from fractalgen.music.midi import BeatMap
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import Meters
from fractalgen.music.voices import LEFT, MELODY, RIGHT
from tests import tiny

CHORDS = ("C", "G/B", "Am", "F")
VOICINGS = {"C": (48, 64, 67, 72), "G/B": (47, 62, 67, 74), "Am": (45, 60, 64, 69), "F": (41, 60, 65, 69)}
SETTINGS: dict[str, Any] = {"bar_columns": True, "plans": True}


def song(name: str, bars: int, meters: Meters = ((0, 4, 4),), bar: int = 16, voices: bool = False) -> Song:
    """A chord a bar, struck on every beat, so that every fourth bar comes back."""
    tokens = np.zeros((128, bars * bar), np.uint8)
    for number in range(bars):
        for beat in range(0, bar, 4):
            for pitch in VOICINGS[CHORDS[number % 4]]:
                tokens[pitch, number * bar + beat] = 12
                tokens[pitch, number * bar + beat + 1 : number * bar + beat + 4] = 1
    made = Song.from_roll(name, PianoRoll(tokens, time_signatures=meters))
    codes = np.where(made.notes["pitch"] > 70, MELODY, np.where(made.notes["pitch"] < 50, LEFT, RIGHT))
    return Song(made.name, made.notes, made.num_steps, made.tempos, made.meters, voices=codes if voices else None)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    songs = [song("four", 24, voices=True), song("three", 20, ((0, 3, 4),), 12)]
    write_corpus(songs, {"four": "train", "three": "valid"}, tmp_path / "c.safetensors")
    return Corpus.open(tmp_path / "c.safetensors")


def test_chords_and_voices_come_back_from_a_corpus(corpus: Corpus) -> None:
    changes = corpus.chords(0)
    assert [spelled(code) for _, code in changes[:4]] == list(CHORDS)
    assert [step for step, _ in changes[:4]] == [0, 16, 32, 48]
    assert set(corpus.voices(0).tolist()) == {MELODY, LEFT, RIGHT}
    assert not corpus.voices(1).any()
    assert estimated_chords(corpus.song(1), 4) == corpus.chords(1)


def test_a_bar_of_three_quarters_fills_twelve_steps_of_its_column(corpus: Corpus) -> None:
    crops = ValidCrops(corpus, "valid", 64, **SETTINGS)
    assert crops.crops == [(1, 48 * number) for number in range(5)]
    item = crops[1]
    assert item["tokens"].shape == (128, 64)
    assert item["absent"].view(4, 16)[:, 12:].all()
    assert not item["absent"].view(4, 16)[:, :12].any()
    real = item["tokens"].numpy()[:, ~item["absent"].numpy()]
    assert np.array_equal(real, corpus.tokens(1, 48, 96))
    assert (item["chords"].view(4, 4)[:, 3] == UNTOLD).all()


def test_what_comes_back_from_before_a_crop_is_in_the_bank(corpus: Corpus) -> None:
    crops = ValidCrops(corpus, "valid", 64, **SETTINGS)
    item = crops.excerpts(1, 48, alone=False)
    assert item["back"].tolist() == [4, 4, 4, 4]
    assert item["before"] == 4
    assert torch.equal(item["bank"], crops[0]["tokens"])
    assert torch.equal(item["bank_chords"], item["chords"])
    plans = Plans.of({name: tensor[None] for name, tensor in item.items()})
    assert plans is not None
    assert plans.sources.tolist() == [[4, 5, 6, 7]]  # behind the four columns of the window
    assert crops[4]["left"].tolist() == [4, 3, 2, 1]


def test_a_crop_alone_is_a_piece_that_begins_there(corpus: Corpus) -> None:
    item = ValidCrops(corpus, "valid", 96, **SETTINGS)[1]
    assert item["back"].tolist() == [0, 0, 0, 0, 4, 4]
    assert item["before"] == 0
    assert not item["bank"].any()


def test_transposition_moves_chords_bank_and_voices(corpus: Corpus) -> None:
    data = CropDataset(corpus, "train", 64, transpose=(5, 5), **SETTINGS)
    plain = CropDataset(corpus, "train", 64, **SETTINGS)
    for index in range(10):
        torch.manual_seed(index)
        moved = data[0]
        torch.manual_seed(index)
        item = plain[0]
        for name in ("tokens", "bank", "voices"):
            assert torch.equal(moved[name], item[name].roll(5, 0))
        for name in ("chords", "bank_chords"):
            assert np.array_equal(moved[name], transposed_chords(item[name].numpy(), 5))
        assert (item["voices"][(item["tokens"] > 0)] > 0).all()


def test_training_sees_how_songs_end(corpus: Corpus) -> None:
    """Some crops end one bar after the song, with steps that do not exist, never with silence that does."""
    data = CropDataset(corpus, "train", 64, **SETTINGS)
    torch.manual_seed(0)
    ends = [item["absent"].view(4, 16).all(1).sum().item() for item in (data[0] for _ in range(60))]
    assert set(ends) == {0, 1}


def test_a_short_song_is_followed_by_steps_that_do_not_exist(tmp_path: Path) -> None:
    write_corpus([song("short", 3)], {"short": "train"}, tmp_path / "c.safetensors")
    item = CropDataset(Corpus.open(tmp_path / "c.safetensors"), "train", 64, **SETTINGS)[0]
    assert item["absent"].tolist() == [False] * 48 + [True] * 16
    assert item["left"].tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("meter", "bar", "columns"),
    [
        ((4, 4), 16, [16]),
        ((3, 4), 12, [12]),
        ((2, 4), 8, [8]),
        ((6, 8), 12, [12]),
        ((5, 4), 20, [12, 8]),
        ((12, 8), 24, [12, 12]),
    ],
)
def test_columns_of_meters(meter: tuple[int, int], bar: int, columns: list[int]) -> None:
    layout = BarLayout.of(((0, *meter),), 3 * bar, 4, 16)
    assert layout.lengths.tolist() == 3 * columns
    assert layout.bars.tolist() == [number for number in range(3) for _ in columns]
    cells = np.arange(3 * bar)
    laid = layout.lay(cells, -1)
    assert np.array_equal(layout.strip(laid), cells)
    assert (laid == -1).sum() == 3 * (16 * len(columns) - bar)


def test_a_pickup_is_a_short_bar() -> None:
    layout = BarLayout.of(((0, 1, 4), (4, 3, 4)), 40, 4, 16)
    assert layout.lengths.tolist() == [4, 12, 12, 12]
    assert layout.window(2, 4).lengths.tolist() == [12, 12, 0, 0]
    assert layout.column_of(15) == 1


def test_annotated_chords_are_read_by_the_beat_map(tmp_path: Path) -> None:
    path = tmp_path / "chord_midi.txt"
    path.write_text("0.0 1.1 N\n1.1 3.0 B:maj\n3.0 5.0 G#:min7/b7\n")
    beats = BeatMap(np.arange(6, dtype=np.float64), np.array([0, 4]))
    changes = read_chords(path, beats, 0, 4)
    assert [(step, spelled(code, flats=False)) for step, code in changes] == [(0, "N.C."), (4, "B"), (12, "G#m7/F#")]
    assert read_chords(path, beats, 2, 4)[0] == (0, parse_chord("B"))
    assert changes[0][1] == NO_CHORD
    path.write_text("0.0 1.1 B:strange\n")
    with pytest.raises(UserError, match=r"chord_midi.txt: unreadable chords \('B:strange' is no chord"):
        read_chords(path, beats, 0, 4)


def test_old_corpora_have_chords_too(tmp_path: Path) -> None:
    corpus = Corpus.open(tiny.corpus(tmp_path / "c.safetensors"))
    tensors = {name: value for name, value in corpus._at(0)[0].items() if "chords" not in name}
    corpus._at = lambda index: (tensors, index)
    assert corpus.chords(0)[0][0] == 0

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fractalgen.data.corpus import Corpus, write_corpus
from fractalgen.data.crops import ValidCrops
from fractalgen.data.song import Song
from fractalgen.evaluation.copying import BarIndex
from fractalgen.features.notes import crop_tokens
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import Meters
from tests import tiny
from tests.features import roll

Note = tuple[int, int, int]
FIGURE: list[Note] = [(60, 0, 4), (64, 4, 4), (67, 8, 4), (72, 12, 8)]  # the last note goes on in the next bar
OTHER: list[Note] = [(50, 1, 2), (52, 3, 2), (53, 5, 2), (55, 7, 2), (57, 9, 2)]


def at(notes: list[Note], start: int, up: int = 0) -> list[Note]:
    return [(pitch + up, start + step, duration) for pitch, step, duration in notes]


def corpus(path: Path, tokens: np.ndarray, meters: Meters = ((0, 4, 4),)) -> Corpus:
    """One training song."""
    write_corpus([Song.from_roll("song", PianoRoll(tokens, time_signatures=meters))], {"song": "train"}, path)
    return Corpus.open(path)


@pytest.fixture
def index(tmp_path: Path) -> BarIndex:
    return BarIndex.from_corpus(corpus(tmp_path / "one", roll(*FIGURE, *at(OTHER, 16))))


def share(index: BarIndex, *notes: Note, **settings: int) -> tuple[float | None, ...]:
    result = index.share(roll(*notes, **settings))
    assert list(result) == ["bars", "exact", "transposed", "longest"]
    return tuple(result.values())


def test_bars_of_the_song_are_found(index: BarIndex) -> None:
    assert len(index) == 2
    assert share(index, *FIGURE, *at(OTHER, 16)) == (2, 1, 1, 2)
    assert share(index, *at(OTHER, 32), *at(FIGURE, 48)) == (2, 1, 1, 2)
    assert share(index, *FIGURE, velocity=3) == (1, 1, 1, 1)


def test_transposed_bars_are_told_from_exact_ones(index: BarIndex) -> None:
    assert share(index, *at(FIGURE, 0, 7)) == (1, 0, 1, 1)
    assert share(index, *at(FIGURE, 0, -60)) == (1, 0, 1, 1)
    assert share(index, *at(FIGURE, 0), *at(OTHER, 16, 1), *at(OTHER, 32), *at(OTHER, 48, -3)) == (4, 1 / 2, 1, 4)


@pytest.mark.parametrize(
    "changed",
    [
        [*at(FIGURE[:3], 1), (72, 13, 3)],  # a step later
        [(60, 0, 3), *FIGURE[1:]],  # shorter
        [(61, 0, 4), *FIGURE[1:]],
        [*FIGURE, (40, 0, 1)],  # a note more
        [(60, 0, 4), (64, 4, 4), (67, 8, 4), (79, 12, 4)],  # no pitch class, the pitch counts
    ],
)
def test_changed_bars_are_not_found(index: BarIndex, changed: list[Note]) -> None:
    assert share(index, *changed) == (1, 0, 0, 0)


def test_durations_end_at_the_bar_line_and_at_the_edge(index: BarIndex) -> None:
    assert share(index, *FIGURE[:3], (72, 12, 30)) == (1, 1, 1, 1)
    assert share(index, *FIGURE, width=16) == (1, 1, 1, 1)
    assert share(index, *FIGURE, width=31) == (1, 1, 1, 1)  # the rest of a bar is ignored
    assert share(index, *FIGURE[:3], (72, 12, 3)) == (1, 0, 0, 0)
    held = roll(*at(FIGURE, 16))
    held[40, :20] = 1  # a note from before is not struck here
    assert index.share(held)["exact"] == 1


def test_bars_with_few_notes_do_not_count(tmp_path: Path, index: BarIndex) -> None:
    assert share(index, *FIGURE[:3]) == (0, None, None, 0)
    assert share(index, *FIGURE, *at(OTHER[:3], 16), *at(FIGURE, 32)) == (2, 1, 1, 1)  # and end a run
    assert share(index, width=8) == (0, None, None, 0)
    three = BarIndex.from_corpus(corpus(tmp_path / "three", roll(*FIGURE[:3])), min_notes=3)
    assert share(three, *FIGURE[:3]) == (1, 1, 1, 1)


def test_runs_end_with_the_roll(index: BarIndex) -> None:
    full = roll(*(note for start in (0, 16, 32, 48) for note in at(FIGURE, start)))
    late = roll(*at(FIGURE, 32), *at(FIGURE, 48))
    early = roll(*FIGURE, *at(OTHER, 32, 1))
    assert index.share(np.stack([late, full[:, :64], early]))["longest"] == 4
    assert index.share(np.stack([late, early])) == {"bars": 4, "exact": 3 / 4, "transposed": 1, "longest": 2}


@pytest.mark.parametrize(
    ("meters", "windows"),
    [
        (((0, 4, 4),), {0, 16, 32, 48, 64, 80}),
        (((0, 6, 4),), set(range(0, 96, 8))),
        (((0, 3, 4),), set(range(0, 96, 4))),
        (((0, 4, 4), (32, 2, 4)), set(range(0, 96, 8))),
    ],
)
def test_windows_are_where_a_cut_into_bars_can_fall(tmp_path: Path, meters: Meters, windows: set[int]) -> None:
    tokens = tiny.tokens(0, 192, 400)[:, :96]
    tokens[60, ::2], tokens[61, :] = 20, 20  # something in every window, no window like another
    index = BarIndex.from_corpus(corpus(tmp_path / "meters", tokens, meters))
    found = {start for start in range(81) if index.share(tokens[:, start : start + 16])["exact"]}
    assert found == {window for window in windows if window <= 80}


def test_all_training_crops_are_found_and_others_are_not(tmp_path: Path) -> None:
    packed = Corpus.open(tiny.corpus(tmp_path / "corpus.safetensors"))
    index = BarIndex.from_corpus(packed)
    train, valid = (crop_tokens(ValidCrops(packed, split, 64)) for split in ("train", "valid"))
    result = index.share(train)
    assert result["bars"] == sum(
        int((tokens[:, bar : bar + 16] > 1).sum() >= 4) for tokens in train for bar in (0, 16, 32, 48)
    )
    assert (result["exact"], result["transposed"]) == (1, 1)
    assert index.share(valid)["transposed"] == 0


def test_chorales_repeat_figures_but_not_songs() -> None:
    chorales = Corpus.open("chorales")
    index = BarIndex.from_corpus(chorales)
    train, test = (crop_tokens(ValidCrops(chorales, split, 256, limit=40)) for split in ("train", "test"))
    assert index.share(train)["exact"] == 1
    share = index.share(test)
    assert share["exact"] is not None
    assert share["transposed"] is not None
    assert 0 < share["exact"] < share["transposed"] < 0.5
    assert BarIndex.from_corpus(chorales, "test").share(test)["exact"] == 1

"""Packed corpora become one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fractalgen.config import PrepareConfig
from fractalgen.data.corpus import Corpus
from fractalgen.data.prepare import prepare
from fractalgen.data.reading import Skipped
from fractalgen.errors import UserError
from tests.midi_files import midi, scale


def test_corpora_are_put_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = []
    for number, (style, ending) in enumerate((("pop", "safetensors"), ("", "SAFETENSORS"))):
        music = tmp_path / f"music {number}"
        music.mkdir()
        (music / f"{number}.mid").write_bytes(midi(scale(first=50 + number)))
        packed.append(str(tmp_path / f"{number}.{ending}"))
        prepare(PrepareConfig(data=str(music), out=packed[-1], style=style, licence=f"licence {number}"))
    both = tmp_path / "both.SAFETENSORS"
    summary = prepare(PrepareConfig(merge=tuple(packed), out=str(both), style="classical"))
    corpus, parts = Corpus.open(both), [Corpus.open(path) for path in packed]
    assert summary.songs == len(corpus) == 2
    assert [corpus.style(index) for index in range(2)] == ["pop", "classical"]
    assert corpus.metadata["licence"] == "licence 0 and licence 1"
    for index, part in enumerate(parts):
        assert np.array_equal(corpus.tokens(index), part.tokens(0))
        assert corpus.splits[index] == part.splits[0]
        assert corpus.chords(index) == part.chords(0)
    assert "2 songs" in capsys.readouterr().out
    (tmp_path / "music 0" / "0.mid").rename(tmp_path / "music 0" / "the same.mid")
    copy = tmp_path / "copy.safetensors"
    prepare(PrepareConfig(data=str(tmp_path / "music 0"), out=str(copy)))
    summary = prepare(PrepareConfig(merge=(packed[0], str(copy)), out=str(both)))
    assert summary.skipped == [Skipped("the same.mid", "the same notes as 0.mid")]
    assert prepare(PrepareConfig(merge=(packed[0], str(copy)), out=str(both), keep_duplicates=True)).songs == 2
    other = tmp_path / "other.safetensors"
    prepare(PrepareConfig(data=str(tmp_path / "music 0"), out=str(other), velocity_bins=8))
    for settings, message in (
        ({"merge": (packed[0], packed[0])}, "--merge: 0.mid is in .* and in a corpus before it"),
        ({"merge": (packed[0], str(other))}, "--merge: velocity_bins is 32 in .* and 8 in "),
        ({"merge": (packed[0],), "data": "music"}, "--data .*: not together with --merge"),
        ({"merge": (packed[0],), "splits": "nowhere.json"}, "--splits nowhere.json: not together with --merge"),
        ({"merge": (packed[0],), "velocity_bins": 8}, "--velocity_bins 8: not together with --merge"),
    ):
        target = tmp_path / "not.safetensors"
        with pytest.raises(UserError, match=message):
            prepare(PrepareConfig(out=str(target), **settings))
        assert not target.exists()

"""The benchmark of harmonised chorales: what is given, and the whole of it on a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.harmonising import main, task_of
from fractalgen import PianoRoll
from fractalgen.data.corpus import Corpus
from tests import tiny
from tests.benchmarks import ErrorLine


def test_the_soprano_is_given_and_silence_after_the_end() -> None:
    tokens = np.zeros((128, 12), np.uint8)
    tokens[72, :4] = 5, 1, 1, 1
    tokens[71, 4:8] = 5, 1, 1, 1
    tokens[48, :8] = 5, *[1] * 7
    known = task_of(tokens)
    assert np.array_equal(known[71:73, :8], np.where(tokens > 0, tokens, known)[71:73, :8])
    assert np.array_equal(known[72], tokens[72])
    assert (known[:71, :8] == -1).all()
    assert (known[:, 8:] == 0).all()


def test_a_model_that_cannot_follow(tmp_path: Path, one_error_line: ErrorLine) -> None:
    model = tiny.save_model(tmp_path / "model.safetensors", tiny.model_config())
    line = one_error_line("--checkpoint", model, main=main)
    assert "an AR model without future context cannot follow a soprano" in line


def test_the_whole_benchmark(tmp_path: Path) -> None:
    config = replace(tiny.model_config(), crop_length=64, future_context=True)
    model = tiny.save_model(tmp_path / "model.safetensors", config, gate_bias=-3)
    out = tmp_path / "out.json"
    assert main(["--checkpoint", model, "--songs", "3", "--midi", str(tmp_path), "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert (result["sopranos"], result["identical"]) == (3, 3)
    assert set(result["rows"]) == {"Bach", "model"}
    written = sorted(tmp_path.glob("*.mid"))
    assert len(written) == 3
    chorales = Corpus.open("chorales")
    for path in written:
        song = chorales.song_ids.index(path.stem)
        start = int(chorales.downbeats(song)[0])
        known = task_of(chorales.tokens(song, start, start + 64))
        composed = PianoRoll.from_midi(path).tokens
        assert np.array_equal(composed[known >= 0], known[known >= 0])

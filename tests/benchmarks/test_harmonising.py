"""The benchmark of harmonised chorales: what is given, and the whole of it on a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.harmonising import main, task_of
from fractalgen import FractalGen, PianoRoll
from fractalgen.checkpoint import save_pretrained
from fractalgen.data.corpus import Corpus
from fractalgen.model.level import FractalLevel
from tests import tiny


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


@pytest.mark.parametrize("future_context", [True, False])
def test_the_whole_benchmark(future_context: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = FractalGen(replace(tiny.model_config(), crop_length=64, future_context=future_context))
    for level in model.modules():
        if isinstance(level, FractalLevel):
            torch.nn.init.constant_(level.gate.bias, -3)  # as sparse as music
    save_pretrained(model, tmp_path / "model.safetensors", {})
    arguments = ["--checkpoint", tmp_path / "model.safetensors", "--songs", 3, "--midi", tmp_path, "--json"]
    status = main([*map(str, arguments), str(tmp_path / "out.json")])
    if not future_context:
        assert status == 2
        assert "an AR model without future context cannot follow a soprano" in capsys.readouterr().err
        return
    assert status == 0
    result = json.loads((tmp_path / "out.json").read_text())
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

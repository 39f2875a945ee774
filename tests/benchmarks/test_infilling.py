"""The benchmark of fillings: its measures by hand, and the whole of it on tiny models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.infilling import agreement, bits_per_note, distance, held, main
from fractalgen import FractalGen
from tests import tiny


def test_agreement_by_hand() -> None:
    truth = np.zeros((1, 128, 8), np.uint8)
    truth[0, 60, 0:4] = 5, 1, 1, 1  # C for four steps, then E for two
    truth[0, 64, 4:6] = 5, 1
    filled = np.zeros_like(truth)
    filled[0, 72, 0:4] = 9, 1, 1, 1  # the C an octave higher, then F one step late
    filled[0, 65, 5:7] = 9, 1
    found = agreement(truth, filled, steps_per_bar=4)
    assert found == {"pitch classes": pytest.approx(0.5), "onsets": pytest.approx(0.5), "notes": 0}
    assert agreement(truth, truth, 4) == {"pitch classes": pytest.approx(1), "onsets": 1, "notes": 1}
    assert distance(truth.repeat(2, 0), truth.repeat(2, 0), 4) == 0


def test_held_notes_are_counted_at_the_seam() -> None:
    before, after = np.zeros((2, 1, 128, 4), np.uint8)
    before[0, (60, 64, 67), 3] = 5, 1, 1
    after[0, (60, 64, 72), 0] = 1, 5, 1
    assert held(before, after) == pytest.approx(1 / 3)


def test_bits_per_note_counts_the_gap_alone() -> None:
    model = FractalGen(tiny.model_config()).eval()
    rolls = torch.from_numpy(np.stack([tiny.tokens(seed) for seed in range(2)]).astype(np.int64))
    known = torch.ones(128, tiny.WIDTH, dtype=torch.bool)
    known[:, 16:] = False
    nats = model.nll(rolls, known=known.expand_as(rolls)).total.sum().item()
    notes = int((rolls[..., 16:] >= 2).sum())
    assert bits_per_note(model, rolls, known) == pytest.approx(nats / np.log(2) / notes)


@pytest.mark.slow
def test_the_whole_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = replace(tiny.model_config(), crop_length=256)
    models = [
        tiny.save_model(tmp_path / f"{name}.safetensors", replace(config, future_context=sees), gate_bias=-3)
        for name, sees in (("past_only", False), ("future_context", True))
    ]
    out = tmp_path / "out.json"
    assert main(["--data", "chorales", "--songs", "2", "--models", *models, "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    kinds = ("given the left side", "given both sides", "from nothing")
    assert list(rows) == [
        "the truth",
        "another song",
        "bars 1 to 4 again",
        *(f"{models[0]}, {kind}" for kind in kinds),
        *(f"{models[1]}, {kind}" for kind in kinds[1:]),
    ]
    assert "bits per note of the truth" in capsys.readouterr().out
    assert main(["--data", "chorales", "--models", str(tmp_path / "absent")]) == 2

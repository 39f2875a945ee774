"""One piece is learned by heart: near zero bits, and the sampler plays it back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fractalgen.api import FractalGen, load_pretrained
from fractalgen.checkpoint import save_pretrained
from fractalgen.config import LevelConfig, ModelConfig

WIDTH, LOWEST, HIGHEST = 32, 43, 79


def melody() -> torch.Tensor:
    """Two bars of C major: held bass notes, broken chords above them, velocities that rise and fall."""
    roll = torch.zeros(1, 128, WIDTH, dtype=torch.long)
    for bar, (bass, chord) in enumerate([(43, (60, 64, 67, 72)), (48, (59, 62, 67, 79))]):
        start = 16 * bar
        roll[0, bass, start], roll[0, bass, start + 1 : start + 16] = 2 + 20, 1
        for k in range(8):
            pitch = chord[k % 4]
            roll[0, pitch, start + 2 * k], roll[0, pitch, start + 2 * k + 1] = 2 + 12 + k, 1
    return roll


def model_of(kind: Any, scan_order: Any) -> FractalGen:
    contexts = ((0, 0, 0), (4, 8, 8 if kind == "mar" else 0), (1, 2, 0), (0, 0, 0))
    levels = tuple(
        LevelConfig(patch, 48, 1, 2, kind, context) for patch, context in zip((128, 16, 4, 1), contexts, strict=True)
    )
    torch.manual_seed(0)
    return FractalGen(ModelConfig(levels, scan_order=scan_order, crop_length=WIDTH))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "scan_order"), [("ar", "column_major"), ("ar", "row_major"), ("mar", "column_major")])
def test_one_roll_is_learned_by_heart_and_played_back(kind: str, scan_order: str, tmp_path: Path) -> None:
    model, roll = model_of(kind, scan_order), melody()
    region = (HIGHEST - LOWEST + 1) * WIDTH
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
    steps = 160 if kind == "ar" else 350
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    batch = roll.repeat(1 if kind == "ar" else 12, 1, 1)  # MAR learns from many masks at once
    for _ in range(steps):
        optimizer.zero_grad()
        (model.nll(batch).total.mean() / 100).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        bits = model.nll(roll.repeat(1 if kind == "ar" else 16, 1, 1)).total.mean().item() / math.log(2)
    assert bits / region < 0.02

    generator = torch.Generator().manual_seed(0)
    played, _ = model.sample(1, temperature=0.2, num_iter_list=(8, 4, 4, 1), generator=generator)
    assert torch.equal(played, roll)

    path = tmp_path / "melody.safetensors"
    save_pretrained(model, path, {}, dtype=torch.float32)
    with torch.no_grad():
        torch.manual_seed(1)
        expected = model.nll(roll).total
        back = load_pretrained(path)
        torch.manual_seed(1)
        reloaded = back.nll(roll).total
    assert torch.equal(expected, reloaded)

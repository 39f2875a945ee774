"""The frame-wise protocol: a distribution over frames, and what it may look at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.framewise import frame_log_probabilities, main
from fractalgen.api import FractalGen
from fractalgen.checkpoint import save_pretrained
from tests.model.properties.helpers import every_roll, random_model, random_rolls, tiny_config


def model() -> FractalGen:
    return random_model(tiny_config("mar mar mar mar", patches=(8, 4, 2, 1), width=8))


def test_the_probabilities_of_everything_a_frame_may_hold_sum_to_one() -> None:
    """One frame of four cells is open, everything else is known: 3 ** 4 frames."""
    rolls = random_rolls(1, 8, 8, 1, seed=1)[0]
    net, total = model(), 0.0
    for cells in every_roll(4, 1, 3):
        roll = rolls.clone()
        roll[4:, 0] = cells[:, 0]
        total += frame_log_probabilities(net, roll, 1, [1], 1).exp().item()
    assert total == pytest.approx(1.0, abs=1e-9)


def test_a_frame_depends_on_the_frames_known_before_and_on_picks_only() -> None:
    """The first frame of an ordering sees nothing but the rows that are closed; later ones see the true frames."""
    net = model()
    first, second = random_rolls(2, 8, 8, 1, seed=2)
    results = []
    for roll in (first, second):
        torch.manual_seed(5)
        order = torch.randperm(8)
        torch.manual_seed(5)
        results.append(frame_log_probabilities(net, roll, 8, [0, 1], 1)[0])
    beginning = int(order[0])
    same = first.clone()
    same[:, torch.arange(8) != beginning] = second[:, torch.arange(8) != beginning]
    torch.manual_seed(5)
    mixed = frame_log_probabilities(net, same, 8, [0, 1], 1)[0]
    torch.testing.assert_close(mixed[beginning], results[0][beginning])  # all else may hold anything
    changed = [frame for frame in order[1:].tolist() if torch.equal(same[:, frame], second[:, frame])]
    assert any(
        not torch.isclose(mixed[frame], results[1][frame]) for frame in changed
    )  # the first frame is listened to


def test_other_models_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = save_pretrained(random_model(tiny_config("mar ar ar")), tmp_path / "a.safetensors")
    assert main(["--checkpoint", str(path), "--data", "chorales"]) == 2
    assert "its levels are mar ar ar; the protocol needs mar at every level" in capsys.readouterr().err

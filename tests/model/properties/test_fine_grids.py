"""Patches with more time steps than pitches, as on grids finer than sixteenths: the same distribution and draws."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from fractalgen.checkpoint import save_pretrained
from fractalgen.config import ConfigError, ModelConfig, TrainConfig
from fractalgen.config.model import patch_widths
from fractalgen.training.fine_tuning import start_from
from tests.model.properties.helpers import every_roll, random_model, random_rolls, tiny_config
from tests.model.properties.test_distribution import assert_frequencies, same_order
from tests.reference import dense_nll, dense_sample


def fine(patches: tuple[int, ...], generators: str = "ar ar ar", **settings: Any) -> ModelConfig:
    """A tiny model of 12 steps a quarter."""
    return tiny_config(generators, patches, grid=12, **settings)


def test_a_column_is_a_bar_on_finer_grids() -> None:
    assert patch_widths((128, 16, 4, 1), 4)[1:] == (16, 4, 1)
    assert patch_widths((128, 16, 4, 1, 1), 12)[1:] == (48, 12, 3, 1)
    assert TrainConfig().model_config(1).column == 16  # coarser grids have square patches
    for grid in (4, 6, 8, 12, 24, 48):
        model = TrainConfig().model_config(grid)
        assert (model.column, model.columns, model.crop_length) == (4 * grid, 16, 64 * grid)
        assert all(outer.region[1] % inner.region[1] == 0 for outer, inner in pairwise(model.levels[1:]))
    assert TrainConfig().model_config(4).levels[1].steps == 0  # as in older checkpoints
    with pytest.raises(ConfigError, match=r"at 6 steps a quarter, patches of 1 pitches would be 1\.5 steps wide"):
        patch_widths((128, 16, 4, 1, 1), 6)


@pytest.mark.parametrize("generators", ["ar ar ar", "mar mar ar", "ar mar mar"])
@pytest.mark.parametrize("absent", [False, True])
def test_probabilities_sum_to_one(generators: str, absent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of one column of three steps, or a row of two columns the second of which has one step."""
    monkeypatch.setattr(torch, "rand", same_order)
    model = random_model(fine((1, 1, 1) if absent else (2, 1, 1), generators, width=6 if absent else 3))
    rolls, missing = every_roll(*((1, 4) if absent else (2, 3)), 3), None
    if absent:
        rolls = torch.nn.functional.pad(rolls, (0, 2))
        missing = (torch.arange(6) > 3).expand(len(rolls), -1)
    with torch.no_grad():
        nll = model.nll(rolls, num_iter_list=(2, 3, 1), absent=missing).total
    assert (-nll).exp().sum().item() == pytest.approx(1.0, abs=1e-9)


def test_the_sampler_draws_from_the_likelihood() -> None:
    model = random_model(fine((2, 1, 1), width=3))
    with torch.no_grad():
        probability = (-model.nll(every_roll(2, 3, 3)).total).exp()
    assert_frequencies(model, probability, seed=4, width=3)


def test_all_short_cuts_agree_with_the_dense_reference() -> None:
    """A level of sixteenths above single cells; looking ahead, caches and skipped silence change nothing."""
    model = random_model(fine((4, 2, 1, 1), "ar ar ar ar", width=12, context=(1, 4, 2), velocity_bins=2))
    rolls = random_rolls(2, 4, 12, 2, seed=3)
    with torch.no_grad():
        torch.testing.assert_close(model.nll(rolls).total, dense_nll(model, rolls).total)
    iterations = (1, 1, 1, 1)
    drawn = [torch.Generator().manual_seed(7) for _ in range(2)]
    mine, trace = model.sample(2, num_iter_list=iterations, generator=drawn[0], return_intermediates=True)
    assert torch.equal(mine, dense_sample(model, 2, iterations, generator=drawn[1]))
    assert trace is not None
    assert trace.traces[0].patches == ((2, 6), (1, 3), (1, 1))


def test_a_model_of_sixteenths_is_the_beginning_of_one_of_a_finer_grid(tmp_path: Path) -> None:
    """Music of sixteenths costs it, down to its sixteenths, exactly what it cost before."""
    old = replace(
        tiny_config("ar ar ar ar", (8, 4, 2, 1), width=16, context=(1, 2, 1)), future_context=True, echoes=(1, -1)
    )
    trained = random_model(replace(old, max_children=(0, 9, 9, 0)), seed=1)
    path = save_pretrained(trained, tmp_path / "trained.safetensors", dtype=torch.float32)
    rolls = random_rolls(2, 8, 16, 1, seed=3)
    longer = torch.stack([rolls, *[(rolls > 0).long()] * 2], 3).flatten(2)
    with torch.no_grad():
        before = trained.nll(rolls).terms
        for patches, generators, exact in (
            ((8, 4, 2, 1), "ar ar ar ar", 2),
            ((8, 4, 2, 1, 1), "ar ar ar ar ar", 3),
        ):
            new = fine(patches, generators, width=48, context=(1, 6, 3), future_context=True, echoes=(1, -1))
            fresh = random_model(new, seed=2)
            start_from(fresh, str(path))
            after = fresh.nll(longer).terms
            for level in range(exact):
                name = f"L{level}/gate"
                torch.testing.assert_close(after[name], before[name], rtol=1e-5, atol=1e-5)

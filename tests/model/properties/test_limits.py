"""What is forbidden never sounds, a gate never opens on a patch that may hold nothing, and the rest keeps its odds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fractalgen.config import ConfigError
from fractalgen.model.sampling.windows import drop_orphans
from tests.model.properties.helpers import assert_drawn_from, every_roll, random_model, tiny_config

MIXES = ["ar ar ar ar", "mar ar ar ar", "mar mar mar mar", "ar mar ar mar"]
PATCHES = (16, 8, 4, 1)


def seeded(seed: int = 4) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("generators", MIXES)
def test_forbidden_cells_stay_silent_and_open_patches_sound(generators: str) -> None:
    """Random forbidden cells, whole patches among them; a parent that opened always holds a sounding cell."""
    model = random_model(tiny_config(generators, PATCHES, width=32, velocity_bins=4))
    allowed = torch.rand(16, 32, generator=seeded()) < 0.15
    allowed[:8, :16] = False
    tokens, frames = model.sample(6, allowed=allowed, generator=seeded(), return_intermediates=True)
    assert frames is not None
    assert tokens.any()
    assert not tokens[:, ~allowed].any()
    for roll, trace in zip(tokens, frames.traces, strict=True):
        assert not (trace.decided[1, :8, :16] >= 0).any()  # never went into what may hold nothing
        if "mar" not in generators:  # no orphans are silenced afterwards: whatever was opened sounds
            for level, size in ((1, 8), (2, 4)):
                opened = torch.from_numpy(trace.decided[level] >= 0)
                blocks = [x.unfold(0, size, size).unfold(1, size, size).flatten(2).any(-1) for x in (opened, roll > 0)]
                assert torch.equal(*blocks)


@pytest.mark.parametrize("generators", MIXES)
def test_where_nothing_may_sound_silence_is_recorded_step_by_step(generators: str) -> None:
    model = random_model(tiny_config(generators, PATCHES, width=32, velocity_bins=4))
    nothing = torch.zeros(16, 32, dtype=torch.bool)
    seen: list[int] = []
    tokens, frames = model.sample(
        2, allowed=nothing, generator=seeded(), return_intermediates=True, progress=lambda done, _: seen.append(done)
    )
    assert not tokens.any()
    assert frames is not None
    assert seen[-1] == 2 * 2 * 4
    for trace in frames.traces:
        assert len(trace.steps) == (8 if generators.startswith("ar") else len(np.unique(trace.decided[0])))
        assert np.all(trace.decided[0] >= 0)
        assert np.all(trace.decided[1:] < 0)


@pytest.mark.slow
@pytest.mark.parametrize("generators", MIXES)
@pytest.mark.parametrize("most", [1, 3])
def test_polyphony_is_never_exceeded(generators: str, most: int) -> None:
    model = random_model(tiny_config(generators, PATCHES, width=32, velocity_bins=4))
    free, _ = model.sample(12, generator=seeded())
    known = torch.full((12, 16, 32), -1)
    known[:, 5, 3:9] = 0
    known[:, 5, 4] = 3
    tokens, _ = model.sample(12, max_polyphony=most, known=known, generator=seeded())
    assert (free > 0).sum(1).max() > most
    assert (tokens > 0).sum(1).max() == most
    assert torch.equal(tokens[:, 5, 3:9], known[:, 5, 3:9])
    others = tokens[:, torch.arange(16) != 5, 4] > 0
    assert others.sum(1).max() <= most - 1  # the known note has taken its room


def test_probabilities_under_limits_are_those_of_the_model_renormalised_at_every_choice() -> None:
    """Without future context, an AR model draws the rest of a roll as if the forbidden cell were known silence."""
    model = random_model(tiny_config(width=2), seed=1)
    allowed = torch.tensor([[True, True], [False, True]])
    rolls = every_roll(2, 2, 3)
    rolls = rolls[(rolls[:, 1, 0] == 0)]
    known = torch.zeros_like(rolls, dtype=torch.bool)
    known[:, 1, 0] = True
    with torch.no_grad():
        probability = (-model.nll(rolls, known=known).total).exp()
    assert probability.sum().item() == pytest.approx(1.0, abs=1e-9)
    count = 20_000
    tokens, _ = model.sample(count, num_iter_list=(2, 3, 1), allowed=allowed, generator=seeded(), width=2)
    assert_drawn_from(tokens, rolls, probability)


@pytest.mark.parametrize(
    ("generators", "future_context"),
    [("ar ar ar", False), ("ar ar ar", True), ("mar ar ar", False), ("ar ar mar", False), ("ar ar mar", True)],
)
def test_a_hold_that_is_ruled_out_leaves_its_probability_to_the_rest(generators: str, future_context: bool) -> None:
    """A given note ends at step 1: completions in which it is held have probability zero, all others sum to one.

    A cell is silent or struck with the odds that the model gives to these, and draws follow the probabilities.
    """
    model = random_model(tiny_config(generators, width=2, future_context=future_context), seed=1)
    rolls = every_roll(2, 2, 3)
    rolls = rolls[(rolls[:, 0, 0] == 2) & (rolls[:, 1, 0] == 0)]  # note on row 0, then row 0 and 1 are open at step 1
    known, ended = (torch.zeros_like(rolls, dtype=torch.bool) for _ in range(2))
    known[:, :, 0] = True
    ended[:, 0, 1] = True
    schedule = None if generators.startswith("ar") else (4, 4, 1)
    order = {"num_iter_list": schedule, "mar_order": "scan"}
    with torch.no_grad():
        free = (-model.nll(rolls, known=known, **order).total).exp()  # type: ignore[arg-type]
        bound = (-model.nll(rolls, known=known, ended=ended, **order).total).exp()  # type: ignore[arg-type]
    held = rolls[:, 0, 1] == 1
    assert free[held].sum() > 0.01
    assert bound[held].max() == 0
    assert bound.sum().item() == pytest.approx(1.0, abs=1e-9)
    silent, struck = (rolls[:, 0, 1] == 0) & (rolls[:, 1, 1] == 2), (rolls[:, 0, 1] == 2) & (rolls[:, 1, 1] == 0)
    assert bool(silent.any() and struck.any())

    count = 20_000
    given = torch.full((count, 2, 2), -1)
    given[:, :, 0] = rolls[0, :, 0]
    given[:, 0, 1] = -2
    settings: Any = {"num_iter_list": schedule or (2, 3, 1), "mar_order": "scan", "candidates": 1}
    tokens, _ = model.sample(count, known=given, generator=seeded(), width=2, **settings)
    assert_drawn_from(tokens, rolls, bound)


@pytest.mark.slow
@pytest.mark.parametrize("generators", MIXES)
def test_given_notes_keep_their_ends(generators: str) -> None:
    model = random_model(tiny_config(generators, PATCHES, width=32, velocity_bins=4, future_context=True))
    known = torch.full((10, 16, 64), -1)
    known[:, ::4, 3:6] = 1
    known[:, ::4, 3] = 3
    free, _ = model.sample(10, known=known, width=64, generator=seeded())
    known[:, ::4, 6] = -2
    tokens, frames = model.sample(10, known=known, width=64, generator=seeded(), return_intermediates=True)
    assert (free[:, ::4, 6] == 1).any()
    assert not (tokens[:, ::4, 6] == 1).any()
    assert (tokens[:, ::4, 6] > 1).any()
    assert torch.equal(tokens[known >= 0], known[known >= 0])
    assert frames is not None
    assert not frames.traces[0].known[::4, 6].any()


def test_limits_that_cannot_be_kept_are_refused() -> None:
    model = random_model(tiny_config(width=4))
    known = torch.full((1, 2, 4), -1)
    known[:, :, 1] = 2
    with pytest.raises(ConfigError, match="--max_polyphony 1: in the known cells 2 notes sound together"):
        model.sample(1, num_iter_list=(2, 3, 1), known=known, max_polyphony=1)
    with pytest.raises(ConfigError, match=r"allowed cells have the shape \(2, 2\), the rolls \(2, 4\)"):
        model.sample(1, num_iter_list=(2, 3, 1), allowed=torch.ones(2, 2, dtype=torch.bool))


def test_windows_of_a_single_patch_move_on() -> None:
    model = random_model(tiny_config("ar ar ar ar", PATCHES, width=8))
    tokens, _ = model.sample(1, width=24, generator=seeded())
    assert tokens.shape[-1] == 24
    assert (tokens >= 0).all()


@pytest.mark.parametrize("generators", ["ar ar ar ar", "mar ar ar ar"])
@pytest.mark.slow
def test_windows_compose_any_width(generators: str) -> None:
    """Every cell is decided once, known ones stay, and a window goes on from what the one before composed."""
    model = random_model(tiny_config(generators, PATCHES, width=32, velocity_bins=4))
    known = torch.full((2, 16, 104), -1)
    known[:, :, 40:48] = 0
    known[:, 7, 42] = 4
    seen: list[tuple[int, int]] = []
    tokens, frames = model.sample(
        2,
        width=104,
        known=known,
        generator=seeded(),
        return_intermediates=True,
        progress=lambda done, total: seen.append((done, total)),
        candidates=2,
    )
    assert frames is not None
    assert torch.equal(tokens[known >= 0], known[known >= 0])
    assert torch.equal(drop_orphans(tokens), tokens)
    assert seen == sorted(seen)
    assert seen[-1] == (2 * 2 * 13, 2 * 2 * 13)
    trace = frames.traces[0]
    assert ((trace.decided[0] >= 0) == (known[0] < 0).numpy()).all()
    steps = [int(step) for step, _ in trace.steps]
    assert steps == sorted(steps)
    if generators.startswith("ar"):
        assert steps == [patch for patch in range(26) if patch not in (10, 11)]
        assert frames[-1].level_name == "AR L0 patch 24/24"  # of those that were composed
    again, _ = model.sample(2, width=104, known=known, generator=seeded(), candidates=2)
    assert torch.equal(again, tokens)


def test_a_window_knows_the_one_before() -> None:
    """With the first half of a long piece changed, the second comes out otherwise, random numbers being the same."""
    model = random_model(tiny_config("ar ar ar ar", PATCHES, width=32, velocity_bins=4))
    known = torch.full((10, 16, 64), -1)
    results = []
    for token in (0, 3):
        known[:, :, :40] = 0
        known[:, ::3, 24:40:2] = token
        results.append(model.sample(10, width=64, known=known, generator=seeded(), candidates=1)[0][..., 56:])
    assert results[0].any()
    assert not torch.equal(*results)

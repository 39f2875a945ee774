"""Keys at every level: the degree of each pitch in the key that is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fractalgen.api import FractalGen
from fractalgen.model.degrees import lowest_degree, raised
from fractalgen.model.level import FractalLevel
from fractalgen.music.labels import KEYS, Attribute
from tests.model.properties.helpers import assert_drawn_from, every_roll, random_model, random_rolls, tiny_config

KEY = Attribute("key", KEYS)


def keyed(generators: str = "ar ar ar", **settings: object) -> FractalGen:
    return random_model(replace(tiny_config(generators, **settings), attributes=(KEY,)))  # type: ignore[arg-type]


def label(name: str, batch: int = 1) -> list[torch.Tensor]:
    return [torch.full((batch,), KEY.encode(name))]


@pytest.mark.parametrize(
    ("key", "pitch", "degree"),
    [("C major", 60, 0), ("C major", 67, 7), ("A major", 57, 0), ("A minor", 60, 3), ("Bb minor", 0, 2)],
)
def test_degrees_by_hand(key: str, pitch: int, degree: int) -> None:
    found = raised(lowest_degree(torch.tensor(KEY.encode(key))), torch.tensor(pitch))
    assert int(found) - 1 == degree + (12 if key.endswith("minor") else 0)


def test_without_a_key_there_is_no_degree() -> None:
    assert raised(lowest_degree(torch.zeros(3, dtype=torch.long)), torch.arange(3)).tolist() == [0, 0, 0]


def test_every_level_knows_the_degree_of_its_lowest_pitch() -> None:
    """What reaches each level for every cell, against pitch minus tonic."""
    model = keyed(patches=(16, 8, 4, 1), generators="ar ar ar ar", width=16)
    cond = model.condition(label("D minor"), 1)
    for level in model.levels[:-1]:
        assert isinstance(level, FractalLevel)
        grid = level.grid(torch.zeros(1, level.config.patch + 2 * level.margin.pitch, 16 + sum(level.margin[1:])))
        lowest = grid.lowest(torch.device("cpu"))
        assert (
            lowest.tolist()
            == grid.split(torch.arange(level.config.patch)[:, None].expand(-1, 16)[None])[0, :, 0, 0].tolist()
        )
        degrees = level.inside(cond, grid, torch.zeros(1, len(grid), 1)).degree[0]
        assert degrees.tolist() == [13 + (low - 2) % 12 for low in lowest.tolist()]


def test_transposed_keys_share_what_the_lower_levels_learn() -> None:
    """Two keys differ only by the label's vector and the degrees; the same degrees mean the same to a level."""
    model = keyed(patches=(16, 4, 1), width=16)
    level = model.root.child
    assert isinstance(level, FractalLevel)
    grid = level.grid(torch.zeros(1, 4 + 2 * level.margin.pitch, 4 + sum(level.margin[1:])))
    same = [model.condition(label(name), 1) for name in ("C major", "D major")]
    vector = torch.zeros(1, level.cond.in_features, dtype=torch.float64)
    bases = [
        level.base(replace(cond, vector=vector, degree=raised(cond.degree, torch.tensor(shift))), grid)
        for cond, shift in zip(same, (0, 2), strict=True)
    ]
    torch.testing.assert_close(*bases)
    other = level.base(replace(same[0], vector=vector, degree=raised(same[0].degree, torch.tensor(1))), grid)
    assert not torch.allclose(bases[0], other)


@pytest.mark.parametrize("generators", ["ar ar ar", "mar ar ar"])
@pytest.mark.slow
def test_probabilities_given_a_key_sum_to_one_and_the_sampler_draws_from_them(generators: str) -> None:
    model = keyed(generators, width=2, velocity_bins=1)
    rolls = every_roll(2, 2, 3)
    settings = {"num_iter_list": (2, 2, 1), "mar_order": "scan"}
    with torch.no_grad():
        probability = (-model.nll(rolls, label("E minor", len(rolls)), **settings).total).exp()  # type: ignore[arg-type]
        free = (-model.nll(rolls, **settings).total).exp()  # type: ignore[arg-type]
    assert probability.sum().item() == pytest.approx(1.0, abs=1e-9)
    assert 0.5 * (probability - free).abs().sum() > 0.02
    count = 20_000
    tokens, _ = model.sample(
        count,
        label("E minor", count),
        generator=torch.Generator().manual_seed(3),
        **settings,  # type: ignore[arg-type]
    )
    assert_drawn_from(tokens, rolls, probability)


def test_guidance_keeps_the_degrees_of_its_two_streams_apart() -> None:
    """With cfg 0 the unconditional stream alone decides: music as without labels."""
    model = keyed("ar ar ar ar", patches=(16, 4, 2, 1), width=16)
    generator = torch.Generator()
    free, _ = model.sample(4, generator=generator.manual_seed(1))
    guided, _ = model.sample(4, label("G major", 4), cfg=0.0, generator=generator.manual_seed(1))
    plain, _ = model.sample(4, label("G major", 4), generator=generator.manual_seed(1))
    assert torch.equal(free, guided)
    assert not torch.equal(free, plain)


def test_random_rolls_are_scored_otherwise_in_every_key() -> None:
    model = keyed(patches=(16, 4, 1), width=16)
    roll = random_rolls(1, 16, 16, 1)
    with torch.no_grad():
        scores = {round(float(model.nll(roll, [torch.tensor([key])]).total), 9) for key in range(25)}
    assert len(scores) == 25

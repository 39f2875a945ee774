"""Tiny random models in float64, small enough to enumerate every roll they can draw."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from fractalgen.api import FractalGen
from fractalgen.config import LevelConfig, ModelConfig
from fractalgen.config.model import patch_widths
from fractalgen.music.labels import NAMES, Attribute


def tiny_config(
    generators: str = "ar ar ar",
    patches: tuple[int, ...] = (2, 2, 1),
    width: int = 4,
    velocity_bins: int = 1,
    scan_order: Any = "column_major",
    context: tuple[int, int, int] = (1, 2, 1),
    label_sizes: tuple[int, ...] = (),
    grid: int = 4,
    **settings: Any,
) -> ModelConfig:
    """A model of a few hundred parameters; every level looks around and hears echoes.  ``grid``: steps a quarter."""
    kinds: list[Any] = generators.split()
    widths = (0, *(patch_widths(patches, grid)[1:] if grid != 4 else [0] * (len(patches) - 1)))
    levels = tuple(
        LevelConfig(patch, 8, 1, 2, kind, context, wide)
        for patch, kind, wide in zip(patches, kinds, widths, strict=True)
    )
    settings.setdefault("echoes", (1, -1) if kinds[0] == "mar" or settings.get("future_context") else (1,))
    attributes = tuple(
        Attribute(name, tuple(f"value {j}" for j in range(1, size)))
        for name, size in zip(NAMES[1:], label_sizes, strict=False)
    )
    return ModelConfig(
        levels,
        attributes=attributes,
        scan_order=scan_order,
        crop_length=width,
        velocity_bins=velocity_bins,
        steps_per_quarter=grid,
        **settings,
    )


def random_model(config: ModelConfig, seed: int = 0) -> FractalGen:
    """A float64 model whose weights are large enough that everything depends visibly on everything it may see."""
    torch.manual_seed(seed)
    model = FractalGen(config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.5)
    return model


def every_roll(pitches: int, width: int, vocabulary: int) -> Tensor:
    """All rolls of that size, (vocabulary ** (pitches * width), pitches, width)."""
    cells = list(itertools.product(range(vocabulary), repeat=pitches * width))
    return torch.tensor(cells).view(-1, pitches, width)


def random_rolls(batch: int, pitches: int, width: int, velocity_bins: int, seed: int = 0) -> Tensor:
    """Legal rolls (no orphan holds) with about a third of the cells sounding."""
    generator = torch.Generator().manual_seed(seed)
    rolls = torch.zeros(batch, pitches, width, dtype=torch.long)
    draws = torch.rand(batch, pitches, width, generator=generator)
    velocity = torch.randint(velocity_bins, rolls.shape, generator=generator)
    for step in range(width):
        sounding = rolls[:, :, step - 1] > 0 if step else torch.zeros(batch, pitches, dtype=torch.bool)
        onset = draws[:, :, step] < 0.2
        hold = sounding & (draws[:, :, step] > 0.5)
        rolls[:, :, step] = torch.where(onset, 2 + velocity[:, :, step], hold.long())
    return rolls


def assert_drawn_from(drawn: Tensor, rolls: Tensor, probability: Tensor, slack: float = 1.0, least: int = 3) -> None:
    """Pearson's chi-square of ``drawn`` rolls, all of them among ``rolls``, within five sigma of its mean.

    Rare rolls are pooled; there are ``least`` degrees of freedom or more.
    """
    _, number = torch.cat([rolls, drawn]).flatten(1).unique(dim=0, return_inverse=True)
    observed = torch.bincount(number[len(rolls) :], minlength=int(number.max()) + 1)[number[: len(rolls)]].double()
    assert observed.sum() == len(drawn)
    assert observed[probability == 0].sum() == 0
    expected = probability * len(drawn)
    common = expected >= 5
    observed, expected = (torch.cat([x[common], x[~common].sum()[None]]) for x in (observed, expected))
    keep = expected > 0
    chi_square = ((observed - expected)[keep] ** 2 / expected[keep]).sum().item()
    freedom = int(keep.sum()) - 1
    assert freedom >= least
    assert chi_square < slack * (freedom + 5 * math.sqrt(2 * freedom))

"""The recursion of sampling: who draws regions of a level, down to single cells."""

from __future__ import annotations

import torch
from torch import Tensor

from fractalgen.config import Generator
from fractalgen.model.level import FractalLevel
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.sampling.recorder import Composed, LevelSampler, StepLog
from fractalgen.model.sampling.sampler_ar import sample_ar
from fractalgen.model.sampling.sampler_mar import sample_mar
from fractalgen.model.sampling.token_sampler import TokenSampler, streams
from fractalgen.model.velocity_head import VelocityHead
from fractalgen.music.tokens import HOLD

SAMPLERS: dict[Generator, LevelSampler] = {"ar": sample_ar, "mar": sample_mar}
"""How each kind of generator of :data:`fractalgen.model.generators.GENERATORS` is drawn from."""


@torch.no_grad()
def sample_regions(
    level: FractalLevel | VelocityHead,
    regions: Regions,
    cond: Condition,
    sampler: TokenSampler,
    record: bool = False,
    log: StepLog | None = None,
) -> Composed:
    """Draw regions; the canvas may be written to.  Given cells stay unchanged."""
    if isinstance(level, VelocityHead):
        return sample_cells(level, regions, cond, sampler)
    return SAMPLERS[level.config.generator](level, regions, cond, sampler, sample_regions, record, log)


def sample_cells(head: VelocityHead, regions: Regions, cond: Condition, sampler: TokenSampler) -> Composed:
    """Draw cells that sound."""
    assert regions.noise is not None
    sampler = sampler.at(head.index, 1.0)
    x = head.cond(cond.vector)
    pair = head.beside_notes(x, regions.canvas)[:, None] if head.joint else head.pair(x, regions.canvas)
    y = head.transformer(pair, causal=True)
    choice = sampler.categorical(streams(head.choice(y[:, 0], regions), sampler), regions.noise[:, 0])
    if not head.joint:
        onset = choice == 1
        struck: Tensor = head.velocity(streams(y[:, 1], sampler)[:, onset])
        choice[onset] += sampler.categorical(struck, regions.noise[onset, 1])
    tokens = (choice + HOLD).view(-1, 1, 1)
    return Composed(tokens)  # there is nothing to record: its only step is step 0

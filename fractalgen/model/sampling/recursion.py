"""The recursion of sampling: who draws regions of a level, down to single cells."""

from __future__ import annotations

import torch
from torch import Tensor

from fractalgen.model.level import FractalLevel, VelocityHead
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.sampling.recorder import Composed, StepLog
from fractalgen.model.sampling.sampler_ar import settle
from fractalgen.model.sampling.sampler_mar import walk
from fractalgen.model.sampling.token_sampler import Draw, streams
from fractalgen.music.tokens import HOLD


@torch.no_grad()
def draw_regions(
    level: FractalLevel | VelocityHead,
    regions: Regions,
    cond: Condition,
    draw: Draw,
    record: bool = False,
    log: StepLog | None = None,
) -> Composed:
    """Draw regions; the canvas may be written to.  Cells given beforehand come out as they went in."""
    if isinstance(level, VelocityHead):
        return draw_cells(level, regions, cond, draw)
    sampler = settle if level.config.generator == "ar" else walk
    return sampler(level, regions, cond, draw, draw_regions, record, log)


def draw_cells(head: VelocityHead, regions: Regions, cond: Condition, draw: Draw) -> Composed:
    """Draw cells that sound."""
    assert regions.noise is not None
    draw = draw.at(head.index, 1.0)
    x = head.cond(cond.vector)
    pair = x[:, None] if head.joint else torch.stack([x, x + head.struck], 1)
    y = head.transformer(pair, causal=True)
    choice = draw.categorical(streams(head.choice(y[:, 0], regions), draw), regions.noise[:, 0])
    if not head.joint:
        onset = choice == 1
        struck: Tensor = head.velocity(streams(y[:, 1], draw)[:, onset])
        choice[onset] += draw.categorical(struck, regions.noise[onset, 1])
    tokens = (choice + HOLD).view(-1, 1, 1)
    return Composed(tokens)  # there is nothing to record: its only step is step 0

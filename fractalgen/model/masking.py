"""What training reveals and hides at random: known cells, as a composer might already have some, and labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def random_known(tokens: Int[Tensor, "b p t"], share: float) -> Bool[Tensor, "b p t"]:
    """Known cells for a ``share`` of the crops, none for the others; from torch's global random numbers.

    A crop gets one of five kinds with equal chance: all outside a span of time (a gap to fill, or a beginning to go
    on from), single time steps, all above or below a pitch (a register), the highest note of every step and all above
    it or all below it (a melody, an accompaniment), or single cells.  Steps and cells are known at a rate drawn
    uniformly.
    """
    (batch, pitches, width), device = tokens.shape, tokens.device
    kind = torch.randint(5, (batch, 1, 1), device=device)
    begin, end = (torch.rand(2, batch, 1, 1, device=device).sort(0).values * (width + 1)).long()
    step = torch.arange(width, device=device).expand(batch, 1, width)
    outside = (step < begin) | (step >= end)
    rate = torch.rand(batch, 1, 1, device=device)
    steps = torch.rand(batch, 1, width, device=device) < rate
    pitch = torch.arange(pitches, device=device)[:, None]
    register = pitch >= torch.randint(pitches + 1, (batch, 1, 1), device=device)
    sounding = tokens > 0
    highest = pitches - 1 - sounding.flip(1).byte().argmax(1)
    latest = torch.where(sounding.any(1), step[:, 0], 0).cummax(1).values  # while nothing sounds the note before counts
    melody = pitch >= highest.gather(1, latest)[:, None]
    lower = torch.rand(batch, 1, 1, device=device) < 0.5
    cells = torch.rand(batch, pitches, width, device=device) < rate
    known = torch.zeros(batch, pitches, width, dtype=torch.bool, device=device)
    for number, choice in enumerate((outside, steps, register ^ lower, melody ^ lower, cells)):
        known = torch.where(kind == number, choice, known)
    return known & (torch.rand(batch, 1, 1, device=device) < share)


def drop_labels(cond_list: Sequence[Int[Tensor, " b"]], share: float) -> list[Int[Tensor, " b"]]:
    """Unset all labels of a ``share`` of the crops, so that the model learns the null condition guidance needs.

    Of the n labels of every other crop a random set of 1 to n is kept, each number being equally usual: so a label
    works alone as well as with all others.  A share of 0 keeps everything.
    """
    if not cond_list or share == 0:
        return list(cond_list)
    labels = torch.stack(list(cond_list))
    count, batch = labels.shape
    kept = torch.randint(1, count + 1, (batch,), device=labels.device)
    kept = kept * (torch.rand(batch, device=labels.device) >= share)
    place = torch.rand(count, batch, device=labels.device).argsort(0).argsort(0)
    return list(labels * (place < kept))

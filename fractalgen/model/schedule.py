"""In how many iterations a level draws its children, and in what order, where it is MAR."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from fractalgen.config import MarOrder


class Schedule(NamedTuple):
    """In how many iterations each level draws its children, and in what order, where it is MAR."""

    iterations: tuple[int, ...]
    order: MarOrder = "random"


def schedule_steps(rank: Int[Tensor, "b n"], count: Int[Tensor, " b"], iterations: int) -> Int[Tensor, "b n"]:
    """Iteration in which the child of each rank is drawn, under the cosine schedule of MaskGIT and MAR.

    After iteration ``k`` of ``K``, ``floor(count * cos(pi / 2 * (k + 1) / K))`` of the ``count`` children are still
    masked; the first iteration draws at least one.  With as many iterations as children each is drawn alone.
    """
    if iterations >= rank.shape[1]:
        return rank
    fractions = torch.cos(math.pi / 2 * torch.arange(1, iterations + 1, device=count.device) / iterations)
    masked = (count[:, None] * fractions + 1e-3).floor().long()
    masked[:, -1] = 0
    decided = (count[:, None] - masked).clamp(min=1)
    return (rank[:, :, None] >= decided[:, None]).sum(-1).clamp(max=iterations - 1)

"""The masked autoregressive generator: children in random order, several at a time.  It never knows its child."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fractalgen.config import LevelConfig, MarOrder
from fractalgen.model.ar import Lesson, Look
from fractalgen.model.schedule import schedule_steps
from fractalgen.model.transformer import Transformer


@dataclass(frozen=True)
class Step:
    """One step of sampling: the children that are decided now, and the conditions of all."""

    iteration: int
    target: Bool[Tensor, "b n"]
    z: Float[Tensor, "sb n d"]


class Reader(Protocol):
    """What the generator may ask its level while sampling; all answers repeat the batch for every guidance stream."""

    base: Float[Tensor, "sb n d"]
    """Place and condition of every child."""

    def content(self) -> Float[Tensor, "sb n d"]:
        """Embedded patches as they are now."""

    def look(self) -> Float[Tensor, "sb n d"]:
        """Context from the cells around that are known now."""


def ranks(noise: Float[Tensor, "b n"], undecided: Bool[Tensor, "b n"], order: MarOrder) -> Int[Tensor, "b n"]:
    """Places in the order: the undecided children first, as the noise says or as they are numbered."""
    if order == "scan":
        noise = torch.linspace(0, 1, noise.shape[1], device=noise.device).expand_as(noise)
    return noise.masked_fill(~undecided, 2.0).argsort(dim=1, stable=True).argsort(1)


class MaskedAutoregressive(nn.Module):
    """Bidirectional: ``z_i`` depends on the children that are not masked, whichever they are."""

    sees_ahead = True

    def __init__(self, config: LevelConfig, dropout: float) -> None:
        super().__init__()
        self.transformer = Transformer(config.width, config.depth, config.heads, dropout)
        self.mask = nn.Parameter(0.02 * torch.randn(config.width))

    def forward(
        self,
        content: Float[Tensor, "b n d"],
        base: Float[Tensor, "b n d"],
        context: Float[Tensor, "b n d"],
        known: Bool[Tensor, "b n"],
    ) -> Float[Tensor, "b n d"]:
        """Conditions of all children; where ``known`` is false the content is not looked at."""
        masked = self.mask.to(content.dtype) + context
        return self.transformer(torch.where(known[..., None], content, masked) + base, causal=False)

    def teach(
        self,
        content: Float[Tensor, "b n d"],
        base: Float[Tensor, "b n d"],
        look: Look,
        undecided: Bool[Tensor, "b n"],
        schedule: tuple[int, MarOrder] | None,
    ) -> Lesson:
        """Teacher forcing of the ``undecided`` children, in one of two ways.

        ``schedule=None``: of n undecided children a random set of uniform size is unmasked.  The masked ones, each
        scored as the next of a random order and weighted by ``n / masked``, give an unbiased estimate of the NLL
        averaged over all orders, an upper bound of the NLL (Uria, Murray, Larochelle 2014; Hoogeboom et al. 2022).
        Else: the exact NLL of that order (one of them, if random) drawn in so many iterations, as the sampler does.
        """
        batch, count = content.shape[:2]
        device = content.device
        noise = torch.rand(batch, count, device=device)
        rank = ranks(noise, undecided, "random" if schedule is None else schedule[1])
        number = undecided.sum(1)
        weight = torch.ones(batch, dtype=self.mask.dtype, device=device)
        if schedule is None:
            stratum = (torch.randperm(batch, device=device) + torch.rand(batch, device=device)) / batch
            masked = torch.minimum(1 + (stratum * number).long(), number)
            target = undecided & (rank >= (number - masked)[:, None])
            known = ~target
            z = self(content, base, look(known[:, None]), known)
            return Lesson(
                z, target.long(), target, weight * number / masked.clamp(min=1), target & (masked == 1)[:, None]
            )
        iterations, _ = schedule
        steps = schedule_steps(rank, number, iterations).masked_fill(~undecided, -1)
        z = torch.zeros_like(content)
        for step in range(iterations):
            known = steps < step
            z = torch.where((steps == step)[..., None], self(content, base, look(known[:, None]), known), z)
        return Lesson(z, steps, undecided, weight, undecided & (steps == steps.amax(1, keepdim=True)))

    def walk(
        self,
        read: Reader,
        undecided: Bool[Tensor, "b n"],
        noise: Float[Tensor, "b n"],
        schedule: tuple[int, MarOrder],
    ) -> Iterator[Step]:
        """Sampling: an order, cut into groups by the cosine schedule; a group is drawn together."""
        iterations, order = schedule
        rank = ranks(noise, undecided, order)
        steps = schedule_steps(rank, undecided.sum(1), iterations).masked_fill(~undecided, -1)
        for iteration in range(iterations):
            target = steps == iteration
            if not target.any():
                continue
            known = (steps < iteration).repeat(len(read.base) // len(steps), 1)
            yield Step(iteration, target, self(read.content(), read.base, read.look(), known))

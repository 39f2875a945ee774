"""The masked autoregressive generator: children in random order, several at a time.  It never knows its child."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fractalgen.config import LevelConfig, MarOrder
from fractalgen.model.schedule import schedule_steps
from fractalgen.model.teacher_forcing import Pass, TeacherForcing
from fractalgen.model.transformer import Transformer


def ranks(noise: Float[Tensor, "b n"], undecided: Bool[Tensor, "b n"], order: MarOrder) -> Int[Tensor, "b n"]:
    """Places in the order: the undecided children first, as the noise says or as they are numbered."""
    if order == "scan":
        noise = torch.linspace(0, 1, noise.shape[1], device=noise.device).expand_as(noise)
    return noise.masked_fill(~undecided, 2.0).argsort(dim=1, stable=True).argsort(1)


class MaskedAutoregressive(nn.Module):
    """Bidirectional: ``z_i`` depends on the children that are not masked, whichever they are."""

    sees_future = True

    def __init__(self, config: LevelConfig, dropout: float) -> None:
        super().__init__()
        self.transformer = Transformer(config.width, config.depth, config.heads, dropout)
        self.mask = nn.Parameter(0.02 * torch.randn(config.width))

    def forward(
        self,
        content: Float[Tensor, "b n d"],
        base: Float[Tensor, "b n d"],
        context: Float[Tensor, "b n d"],
        sees: Bool[Tensor, "b i n"],
    ) -> Float[Tensor, "b n d"]:
        """Conditions of all children; the content of those that are not seen is not looked at."""
        masked = self.mask.to(content.dtype) + context
        return self.transformer(torch.where(sees[:, 0, :, None], content, masked) + base, causal=False)

    def teacher_forcing(self, undecided: Bool[Tensor, "b n"], schedule: tuple[int, MarOrder] | None) -> TeacherForcing:
        """Score the ``undecided`` children in one of two ways.

        ``schedule=None``: of n undecided children a random set of uniform size is unmasked.  The masked ones, each
        scored as the next of a random order and weighted by ``n / masked``, give an unbiased estimate of the NLL
        averaged over all orders, an upper bound of the NLL (Uria, Murray, Larochelle 2014; Hoogeboom et al. 2022).
        Else: the exact NLL of that order (one of them, if random) drawn in so many iterations, as the sampler does.
        """
        batch, count = undecided.shape
        device = undecided.device
        noise = torch.rand(batch, count, device=device)
        number = undecided.sum(1)
        weight = torch.ones(batch, dtype=self.mask.dtype, device=device)
        if schedule is None:
            rank = ranks(noise, undecided, "random")
            stratum = (torch.randperm(batch, device=device) + torch.rand(batch, device=device)) / batch
            masked = torch.minimum(1 + (stratum * number).long(), number)
            target = undecided & (rank >= (number - masked)[:, None])
            weight = weight * number / masked.clamp(min=1)
            final = target & (masked == 1)[:, None]
            return TeacherForcing((Pass(~target[:, None]),), target.long(), target, weight, final)
        steps = self.steps(undecided, noise, schedule)
        passes = tuple(Pass((steps < step)[:, None], steps == step) for step in range(schedule[0]))
        final = undecided & (steps == steps.amax(1, keepdim=True))
        return TeacherForcing(passes, steps, undecided, weight, final)

    def steps(
        self, undecided: Bool[Tensor, "b n"], noise: Float[Tensor, "b n"], schedule: tuple[int, MarOrder]
    ) -> Int[Tensor, "b n"]:
        """Iteration in which each child is drawn: an order, cut into groups by the cosine schedule; -1 if decided."""
        iterations, order = schedule
        rank = ranks(noise, undecided, order)
        return schedule_steps(rank, undecided.sum(1), iterations).masked_fill(~undecided, -1)

"""The autoregressive generator: children one after the other in scan order.  It knows order, never its child."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fractalgen.config import LevelConfig, MarOrder
from fractalgen.model.teacher_forcing import Pass, TeacherForcing
from fractalgen.model.transformer import Decoder, Transformer


class Autoregressive(nn.Module):
    """``z_i`` depends on children before ``i`` only, so the likelihood is exact."""

    sees_future = False

    def __init__(self, config: LevelConfig, dropout: float) -> None:
        super().__init__()
        self.transformer = Transformer(config.width, config.depth, config.heads, dropout)
        self.start = nn.Parameter(0.02 * torch.randn(config.width))

    def forward(
        self,
        content: Float[Tensor, "b n d"],
        base: Float[Tensor, "b n d"],
        context: Float[Tensor, "b n d"],
        sees: Bool[Tensor, "b i n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Conditions of all children in one causal pass: position ``k`` reads child ``k - 1`` and predicts ``k``."""
        start = self.start.to(content.dtype).expand(len(content), 1, -1)
        return self.transformer(torch.cat([start, content[:, :-1]], 1) + (base + context), causal=True)

    def teacher_forcing(self, undecided: Bool[Tensor, "b n"], schedule: tuple[int, MarOrder] | None) -> TeacherForcing:
        """One pass: every child is scored, given those before it."""
        batch, count = undecided.shape
        rank = torch.arange(count, device=undecided.device)
        return TeacherForcing(
            passes=(Pass((rank[:, None] > rank)[None]),),
            steps=rank.expand(batch, count),
            target=undecided,
            weight=torch.ones(batch, dtype=self.start.dtype, device=undecided.device),
            final=undecided & (undecided.flip(1).cumsum(1).flip(1) == 1),
        )

    def decoder(self, batch: int, count: int) -> Decoder:
        """A cache for sampling regions of so many children."""
        return Decoder(self.transformer, batch, count)

    def read(
        self, content: Float[Tensor, "r s d"], query: Float[Tensor, "*g r s d"], child: Int[Tensor, "r s"]
    ) -> Float[Tensor, "*g r s d"]:
        """What the decoder gets at each ``child``, whose predecessor's content this is."""
        return torch.where((child == 0)[..., None], self.start.to(content.dtype), content) + query

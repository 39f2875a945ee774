"""The autoregressive generator: children one after the other in scan order.  It knows order, never its child."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fractalgen.config import LevelConfig, MarOrder
from fractalgen.model.transformer import Decoder, Transformer

Look = Callable[[Bool[Tensor, "b i n"]], Float[Tensor, "b n d"]]
"""Context of every child from the cells that it may see; entry ``[b, i, j]`` says whether child i sees child j."""


@dataclass(frozen=True)
class Lesson:
    """What a generator says about a whole region whose content is given (teacher forcing).

    ``z``: condition of each child, from children of smaller ``steps`` alone.  ``target``: the children whose NLL
    counts, with ``weight`` for each region, so that the weighted sum is the NLL or an unbiased estimate of a bound.
    ``final``: children decided together as the last ones of their region, on which "not all silent" is conditioned.
    """

    z: Float[Tensor, "b n d"]
    steps: Int[Tensor, "b n"]
    target: Bool[Tensor, "b n"]
    weight: Float[Tensor, " b"]
    final: Bool[Tensor, "b n"]


class Autoregressive(nn.Module):
    """``z_i`` depends on children before ``i`` only, so the likelihood is exact."""

    sees_ahead = False

    def __init__(self, config: LevelConfig, dropout: float) -> None:
        super().__init__()
        self.transformer = Transformer(config.width, config.depth, config.heads, dropout)
        self.start = nn.Parameter(0.02 * torch.randn(config.width))

    def forward(self, content: Float[Tensor, "b n d"], query: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Conditions of all children in one causal pass: position ``k`` reads child ``k - 1`` and predicts ``k``."""
        start = self.start.to(content.dtype).expand(len(content), 1, -1)
        return self.transformer(torch.cat([start, content[:, :-1]], 1) + query, causal=True)

    def teach(
        self,
        content: Float[Tensor, "b n d"],
        base: Float[Tensor, "b n d"],
        look: Look,
        undecided: Bool[Tensor, "b n"],
        schedule: tuple[int, MarOrder] | None,
    ) -> Lesson:
        """Teacher forcing: every child is scored, given those before it."""
        batch, count = content.shape[:2]
        rank = torch.arange(count, device=content.device)
        z = self(content, base + look((rank[:, None] > rank)[None]))
        return Lesson(
            z,
            steps=rank.expand(batch, count),
            target=undecided,
            weight=z.new_ones(batch, dtype=self.start.dtype),
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

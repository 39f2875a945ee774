"""The autoregressive generator: children one after the other in scan order.  It knows order, never its child."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

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


@dataclass(frozen=True)
class Step:
    """One step of sampling: the ``children`` looked at, which of them are decided now, and their conditions."""

    iteration: int
    children: Int[Tensor, " g"]
    target: Bool[Tensor, "b g"]
    z: Float[Tensor, "sb g d"]


class Reader(Protocol):
    """What a generator may ask its level while sampling; all answers repeat the batch for every guidance stream."""

    def content(self, children: Int[Tensor, " g"]) -> Float[Tensor, "sb g d"]:
        """Embedded patches as they are now."""

    def base(self, children: Int[Tensor, " g"]) -> Float[Tensor, "sb g d"]:
        """Place and condition."""

    def look(self, children: Int[Tensor, " g"]) -> Float[Tensor, "sb g d"]:
        """Context from the cells around that are known now."""


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

    def walk(
        self,
        read: Reader,
        undecided: Bool[Tensor, "b n"],
        noise: Float[Tensor, "b n"],
        schedule: tuple[int, MarOrder],
    ) -> Iterator[Step]:
        """Sampling: the same conditions, child by child, through a cache that lives as long as this walk."""
        decoder: Decoder | None = None
        count = undecided.shape[1]
        for child in torch.arange(count, device=undecided.device).split(1):
            query = (read.base(child) + read.look(child))[:, 0]
            if decoder is None:
                decoder = Decoder(self.transformer, len(query), count, like=query)
                content = self.start.expand_as(query)
            else:
                content = read.content(child - 1)[:, 0]
            yield Step(decoder.position, child, undecided[:, child], decoder.step(content + query)[:, None])

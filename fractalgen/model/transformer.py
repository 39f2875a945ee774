"""A pre-norm transformer and its decoding cache.  It knows no music: vectors in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

SHORT = 32
"""Sequences up to this length take plain matmul-softmax: on a CPU the fused kernel is slow backwards on many."""


@lru_cache(maxsize=8)
def ahead(length: int, device: torch.device) -> Bool[Tensor, "n n"]:
    """Which keys lie ahead of each query."""
    with torch.inference_mode(False):  # what is kept from sampling may be used in training
        return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)


def attend(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h m d"], v: Float[Tensor, "b h m d"], causal: bool
) -> Float[Tensor, "b h n d"]:
    """Scaled dot-product attention; ``causal`` lets query ``i`` see keys ``0..i`` (then ``n == m``)."""
    if k.shape[2] > SHORT:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        scores = scores.masked_fill(ahead(q.shape[2], q.device), float("-inf"))
    return scores.softmax(-1).to(v.dtype) @ v


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Float[Tensor, "b n d"], causal: bool, past: tuple[Tensor, Tensor, int] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Attend within ``x``; with ``past`` (keys, values, position) one new token to what is stored before it."""
        # views, not einops: a sampling step is so small that its few microseconds count
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if past is not None:
            keys, values, position = past
            keys[:, :, position : position + 1], values[:, :, position : position + 1] = k, v
            k, v, causal = keys[:, :, : position + 1], values[:, :, : position + 1], False
        return self.out(attend(q, k, v, causal).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a four times wider network, each behind a layer norm and beside a residual path.

    The network's activation is ``max(x, 0) ** 2`` (So et al. 2021, Primer): on a CPU several times cheaper than GELU.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(
        self, x: Float[Tensor, "b n d"], causal: bool, past: tuple[Tensor, Tensor, int] | None = None
    ) -> Float[Tensor, "b n d"]:
        """One block; the arguments are those of :meth:`Attention.forward`."""
        x = x + self.dropout(self.attention(self.norm1(x), causal, past))
        hidden = self.widen(self.norm2(x)).relu()
        return x + self.dropout(self.narrow(hidden * hidden))


class Transformer(nn.Module):
    """``depth`` blocks and a final norm; causal or bidirectional, as the call says."""

    blocks: Sequence[Block]

    def __init__(self, width: int, depth: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        blocks = [Block(width, heads, dropout) for _ in range(depth)]
        for block in blocks:  # residual branches start small: GPT-2's initialisation
            for weight in (block.attention.out.weight, block.narrow.weight):
                nn.init.normal_(weight, std=0.02 / (2 * depth) ** 0.5)
        self.blocks = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "b n d"], causal: bool) -> Float[Tensor, "b n d"]:
        """The whole sequence at once."""
        if torch.is_autocast_enabled(x.device.type):  # a narrow residual stream halves the memory traffic
            x = x.to(torch.get_autocast_dtype(x.device.type))
        for block in self.blocks:
            x = block(x, causal)
        return self.norm(x)


class Decoder:
    """Token-by-token evaluation of a causal :class:`Transformer`; its key-value caches die with the object."""

    def __init__(self, transformer: Transformer, batch: int, length: int, like: Tensor) -> None:
        self.transformer = transformer
        self.position = 0
        width = transformer.norm.normalized_shape[0]
        self.caches = []
        for block in transformer.blocks:
            heads = block.attention.heads
            shape = (batch, heads, length, width // heads)
            self.caches.append((like.new_empty(shape), like.new_empty(shape)))

    def step(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """The next position's output, equal to that slice of the full causal forward pass."""
        x = x[:, None]
        for block, (keys, values) in zip(self.transformer.blocks, self.caches, strict=True):
            x = block(x, True, (keys, values, self.position))
        self.position += 1
        return self.transformer.norm(x)[:, 0]

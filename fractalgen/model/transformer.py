"""A pre-norm transformer and its decoding cache.  It knows no music: vectors in, vectors out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

SHORT = 32
"""Sequences up to this length take plain matmul-softmax: on a CPU the fused kernel is slow backwards on many."""


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is kept from sampling may be used in training
def ahead(length: int, device: torch.device) -> Bool[Tensor, "n n"]:
    """Which keys lie ahead of each query."""
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
    """The weights of multi-head self-attention; :func:`evaluate` has its arithmetic."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)


class Block(nn.Module):
    """Attention and a four times wider network, each behind a layer norm and beside a residual path.

    The network's activation is ``max(x, 0) ** 2`` (So et al. 2021, Primer): on a CPU several times cheaper than GELU.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def weights(self) -> Weights:
        """The parameters, to be looked up once."""
        attention, widen, narrow = self.attention, self.widen, self.narrow
        return Weights(
            attention.heads,
            (self.norm1.weight, self.norm1.bias),
            attention.qkv.weight,
            attention.out.weight,
            (self.norm2.weight, self.norm2.bias),
            (widen.weight, widen.bias),
            (narrow.weight, narrow.bias),
        )


class Weights(NamedTuple):
    """Parameters of a :class:`Block`."""

    heads: int
    norm1: tuple[Tensor, Tensor]
    qkv: Tensor
    out: Tensor
    norm2: tuple[Tensor, Tensor]
    widen: tuple[Tensor, Tensor]
    narrow: tuple[Tensor, Tensor]


def evaluate(
    x: Float[Tensor, "b n d"],
    weights: Weights,
    attention: Callable[[Float[Tensor, "b n 3d"], int], Float[Tensor, "b n d"]],
    dropout: float = 0.0,
) -> Float[Tensor, "b n d"]:
    """A block; ``attention`` makes of queries, keys and values, and the number of heads, what they attend to.

    Functions of weights, not modules that call modules: a sampling step is so small that their calls cost half of it.
    """
    shape = x.shape[-1:]
    y = F.linear(attention(F.linear(F.layer_norm(x, shape, *weights.norm1), weights.qkv), weights.heads), weights.out)
    x = x + (F.dropout(y, dropout) if dropout else y)
    hidden = F.linear(F.layer_norm(x, shape, *weights.norm2), *weights.widen).relu()
    y = F.linear(hidden * hidden, *weights.narrow)
    return x + (F.dropout(y, dropout) if dropout else y)


def narrow(x: Tensor) -> Tensor:
    """Numbers in the type of the autocast, if there is one: half the memory traffic."""
    if torch.is_autocast_enabled(x.device.type):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


class Transformer(nn.Module):
    """``depth`` blocks and a final norm; causal or bidirectional, as the call says."""

    blocks: Sequence[Block]

    def __init__(self, width: int, depth: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.recompute = False  # in training keep only what goes into each block, and evaluate it again backwards
        blocks = [Block(width, heads) for _ in range(depth)]
        for block in blocks:  # residual branches start small: GPT-2's initialisation
            for weight in (block.attention.out.weight, block.narrow.weight):
                nn.init.normal_(weight, std=0.02 / (2 * depth) ** 0.5)
        self.blocks = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "b n d"], causal: bool) -> Float[Tensor, "b n d"]:
        """The whole sequence at once."""
        x = narrow(x)

        def attention(qkv: Tensor, heads: int) -> Tensor:
            q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
            return attend(q, k, v, causal).transpose(1, 2).flatten(2)

        dropout = self.dropout if self.training else 0.0
        for block in self.blocks:
            if self.recompute and self.training:
                x = checkpoint(evaluate, x, block.weights(), attention, dropout, use_reentrant=False)
            else:
                x = evaluate(x, block.weights(), attention, dropout)
        return self.norm(x)


class Decoder:
    """Evaluates a causal :class:`Transformer` a few positions at a time.

    Keys and values of the positions before them are remembered; they die with the object.
    """

    def __init__(self, transformer: Transformer, batch: int, length: int) -> None:
        self.norm, self.shape = transformer.norm, (batch, length)
        self.blocks = [block.weights() for block in transformer.blocks]
        self.memories: list[Tensor] = []

    def __call__(
        self, x: Float[Tensor, "r s d"], row: Int[Tensor, "r 1"], position: Int[Tensor, "r s"]
    ) -> Float[Tensor, "r s d"]:
        """The output at some positions of some sequences, equal to that of the full causal forward pass.

        All positions before them must have been visited; a position visited again takes its new input.  Rows ascend.
        """
        x = narrow(x)
        (batch, length), width = self.shape, x.shape[-1]
        if not self.memories:
            self.memories = [x.new_zeros(batch, length, 2 * width) for _ in self.blocks]
        until = int(position.max()) + 1
        seen = (torch.arange(until, device=x.device) <= position[..., None])[:, None]
        everything = len(row) == batch
        for weights, memory in zip(self.blocks, self.memories, strict=True):

            def attention(qkv: Tensor, heads: int, memory: Tensor = memory) -> Tensor:
                q = qkv[..., :width].unflatten(-1, (heads, -1)).transpose(1, 2)
                memory[row, position] = qkv[..., width:]
                past = memory[:, :until] if everything else memory[row[:, 0], :until]
                k, v = past.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
                return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)

            x = evaluate(x, weights, attention)
        return self.norm(x)

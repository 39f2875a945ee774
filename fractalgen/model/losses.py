"""The negative log-likelihood: its terms, and the probability of gates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class NLL:
    """Negative log-likelihood of a batch of rolls, in nats per roll.

    ``exact`` is true if every level is AR, or if MAR levels were scored under one given order and schedule; otherwise
    the numbers are an unbiased estimate of the average over orders, an upper bound of the NLL.  (Where only a random
    sample of the patches was visited, as in training, all this holds for their expectation.)
    ``terms`` adds up to ``total``: ``L0/gate`` ... and ``L3/articulation``, ``L3/velocity`` (or ``L3/token``).
    So does ``kinds``, by what was decided: gates of patches that are silent (``silence``) and that are not
    (``sound``), of a sounding cell that it is a ``hold`` or an ``onset``, and the ``velocity`` of onsets.
    """

    terms: dict[str, Float[Tensor, " b"]]
    kinds: dict[str, Float[Tensor, " b"]]
    exact: bool

    @property
    def total(self) -> Float[Tensor, " b"]:
        """All terms together."""
        return torch.stack(list(self.terms.values())).sum(0)


class LossTerms:
    """Sums of the NLL terms of all levels, per crop, weighted by patch.

    ``subsample``: levels may visit a random subset of their patches.  ``flat``: crops whose velocities mean nothing:
    of them nothing is added for velocities.
    """

    def __init__(
        self, batch: int, like: Tensor, subsample: bool = False, flat: Bool[Tensor, " b"] | None = None
    ) -> None:
        self.subsample = subsample
        self.flat = like.new_zeros(batch, dtype=torch.bool) if flat is None else flat
        self.zeros = like.new_zeros(batch)
        self.terms: dict[str, Tensor] = {}
        self.kinds: dict[str, Tensor] = {}

    def add(
        self, name: str, nats: Float[Tensor, " m"], crop: Int[Tensor, " m"], weight: Float[Tensor, " m"], kind: str
    ) -> None:
        """Add ``nats`` of each patch to the sums of ``name`` and of ``kind``."""
        for sums, entry in ((self.terms, name), (self.kinds, kind)):
            before = sums.get(entry, self.zeros)
            sums[entry] = before.index_add(0, crop, (nats * weight).to(self.zeros))


def wide(logits: Tensor) -> Tensor:
    """Logits in at least float32: probabilities and losses are never computed in half precision."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def log1mexp(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``log(1 - exp(x))`` for ``x < 0``, accurate at both ends (Maechler 2012)."""
    near = x > -math.log(2)
    return torch.where(
        near,
        (-torch.expm1(torch.where(near, x, -1.0))).clamp(min=torch.finfo(x.dtype).tiny).log(),
        torch.log1p(-torch.exp(torch.where(near, -1.0, x))),
    )


def gate_nll(
    logits: Float[Tensor, "b n"],
    active: Bool[Tensor, "b n"],
    target: Bool[Tensor, "b n"],
    final: Bool[Tensor, "b n"],
    not_all_silent: Bool[Tensor, " b"],
) -> Float[Tensor, "b n"]:
    """Negative log-probability (nats) of the gates of ``target`` children, as the token sampler draws them."""
    nll = F.binary_cross_entropy_with_logits(logits, active.to(logits), reduction="none") * target
    count = final.sum(1)
    conditioned = not_all_silent & (count > 0) & ~(active & ~final).any(1)
    nll = nll.masked_fill(final & (conditioned & (count == 1))[:, None], 0.0)  # a forced gate costs exactly nothing
    group = conditioned & (count > 1)
    all_silent = (F.logsigmoid(-logits) * final).sum(1)
    share = torch.where(group, log1mexp(torch.where(group, all_silent, -1.0)), 0.0) / count.clamp(min=1)
    return nll + share[:, None] * final

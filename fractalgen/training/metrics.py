"""Figures of training and validation: sums over crops, and what they are divided by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fractalgen.model.losses import NLL


class Tally:
    """Sums of negative log-likelihoods over crops, and what they are divided by."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.planned: list[str] = []
        self.sums: Tensor | None = None
        self.exact = True

    def add(
        self,
        nll: NLL,
        tokens: Tensor,
        known: Tensor | None = None,
        planned: Mapping[str, Tensor] | None = None,
        counted: Tensor | None = None,
    ) -> None:
        """Count a batch: ``tokens`` (b, 128, T), which of them were ``known``, and what their plans cost.

        ``counted`` (b,): the crops that count (default: all).
        """
        planned = planned or {}
        self.names, self.planned, self.exact = list(nll.terms), list(planned), nll.exact
        if counted is None:
            counted = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
        scored = counted[:, None, None].expand_as(tokens)
        scored = scored if known is None else scored & ~known
        cells, notes = scored.sum(), ((tokens >= 2) & scored).sum()
        terms = [(term * counted).sum() for term in (nll.total, *nll.terms.values(), *planned.values())]
        batch = torch.stack([value.detach().float() for value in (cells, notes, *terms)])
        self.sums = batch if self.sums is None else self.sums + batch

    def metrics(self, prefix: str) -> dict[str, float]:
        """TensorBoard tags and values; what is only an upper bound (MAR) says so in its name."""
        assert self.sums is not None
        cells, notes, total, *sums = self.sums.tolist()
        terms, planned = sums[: len(self.names)], sums[len(self.names) :]
        bound = "" if self.exact else "_upper_bound"
        result = {f"{prefix}_loss": total / cells}
        for name, nats in (("", total), *zip((f"/{name}" for name in self.names), terms, strict=True)):
            result[f"{prefix}/nats_per_cell{bound}{name}"] = nats / cells
            result[f"{prefix}/bits_per_note{bound}{name}"] = nats / math.log(2) / notes if notes else math.nan
        for name, nats in zip(self.planned, planned, strict=True):
            result[f"{prefix}/bits_per_note/{name}"] = nats / math.log(2) / notes if notes else math.nan
        return result

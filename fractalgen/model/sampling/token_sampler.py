"""From logits to decisions: guidance, filter, temperature.  Shared by all levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fractalgen.config import SamplingConfig
from fractalgen.model.grid import Grid
from fractalgen.model.losses import wide

# The random numbers of a child: for its gate, its place in a random order, and from there on for what is inside it.
# They belong to the place, not to the moment, so that music does not depend on what is drawn together with what.
GATE, ORDER, INSIDE = 0, 1, 2


@dataclass(frozen=True)
class TokenSampler:
    """Samples gates and tokens from logits with a seeded random generator.

    Logits come stacked ``(streams, batch, ...)``: one stream, or with guidance two (conditional, unconditional).
    ``fraction`` is how far the current ``level`` has got, for the linear guidance schedule: a number, or one for
    each child, (b, g).  ``kept`` caches the position embeddings of each level and grid; they depend on the weights
    alone, so a sampler serves one model, for one call.
    """

    settings: SamplingConfig
    generator: torch.Generator | None
    device: torch.device
    streams: int = 1
    fraction: float | Tensor = 1.0
    level: int = 0
    kept: dict[tuple[int, Grid], Tensor] = field(default_factory=dict, repr=False, compare=False)

    def at(self, level: int, fraction: float | Tensor) -> TokenSampler:
        """The same sampler at a point of a level's progress."""
        return replace(self, level=level, fraction=fraction)

    def uniform(self, shape: Sequence[int]) -> Float[Tensor, "..."]:
        """Uniform numbers in [0, 1)."""
        return torch.rand(tuple(shape), generator=self.generator, device=self.device)

    def guide(self, logits: Float[Tensor, "s *b"]) -> Float[Tensor, "*b"]:
        """Classifier-free guidance (Ho, Salimans 2021)."""
        logits = wide(logits)
        if self.streams == 1:
            return logits[0]
        conditional, free = logits
        cfg = self.settings.cfg
        scale = 1 + (cfg - 1) * self.fraction if self.settings.cfg_schedule == "linear" else cfg
        return torch.where(conditional.isinf(), conditional, free + scale * (conditional - free))

    def process_logits(self, logits: Float[Tensor, "s *b v"]) -> Float[Tensor, "*b v"]:
        """Logits over the last axis after guidance, filter and temperature."""
        processed = self.guide(logits)
        if self.settings.filter_threshold > 0:
            probabilities = wide(logits)[0].softmax(-1)
            unlikely = probabilities < self.settings.filter_threshold
            unlikely &= probabilities < probabilities.amax(-1, keepdim=True)
            processed = processed.masked_fill(unlikely, float("-inf"))
        return processed / self.settings.level_temperature(self.level)

    def categorical(self, logits: Float[Tensor, "s m v"], noise: Float[Tensor, " m"]) -> Int[Tensor, " m"]:
        """One draw per row from a uniform number each, by inversion of the cumulative distribution."""
        cumulative = self.process_logits(logits).softmax(-1).cumsum(-1)
        point = noise.to(cumulative)[:, None] * cumulative[:, -1:]
        last = (cumulative < cumulative[:, -1:]).sum(-1)  # rounding must not reach a token of probability zero
        return torch.minimum((cumulative <= point).sum(-1), last)

    def gates(
        self,
        logits: Float[Tensor, "s b g"],
        noise: Float[Tensor, "b g"],
        target: Bool[Tensor, "b g"],
        forced: Bool[Tensor, "b g"],
        not_all_silent: Bool[Tensor, " b"] | None = None,
    ) -> tuple[Bool[Tensor, "b g"], Float[Tensor, "b g"]]:
        """Which of the ``target`` children are not silent, and how probable that was; ``forced`` targets always sound.

        Rows marked ``not_all_silent`` are drawn under the condition that at least one child opens: as long as none
        has, child ``g`` opens with ``p_g / (1 - prod_{h >= g} (1 - p_h))``.
        """
        processed = self.guide(logits) / self.settings.level_temperature(self.level)
        if self.settings.filter_threshold > 0:  # of two choices only the less likely one is ever ruled out
            unlikely, plain = min(self.settings.filter_threshold, 0.5), wide(logits)[0]
            processed = processed.masked_fill(plain.sigmoid() < unlikely, float("-inf"))
            processed = processed.masked_fill((-plain).sigmoid() < unlikely, float("inf"))
        chance = processed.sigmoid().masked_fill(~target, 0.0)
        noise = noise.to(chance)
        opened = noise < chance
        if not_all_silent is not None and not_all_silent.any():
            closed = F.logsigmoid(-processed).masked_fill(~target, 0.0)
            rest = closed.flip(1).cumsum(1).flip(1)
            conditioned = torch.where(rest < 0, chance / -torch.expm1(rest), 0.0)  # 0/0 where all are ruled out
            last = target & (target.cumsum(1) == target.sum(1, keepdim=True))
            conditioned = torch.where(last, target.to(chance), conditioned)  # also where all chances underflow
            none = not_all_silent.clone()
            for g in range(target.shape[1]):
                chance[:, g] = torch.where(none, conditioned[:, g], chance[:, g])
                opened[:, g] = noise[:, g] < chance[:, g]
                none &= ~opened[:, g]
        return (opened | forced) & target, chance.masked_fill(forced, 1.0)


def streams(x: Float[Tensor, "sb *n"], sampler: TokenSampler) -> Float[Tensor, "s b *n"]:
    """Separate the guidance streams, stacked along the batch."""
    return x.unflatten(0, (sampler.streams, -1))

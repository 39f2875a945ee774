"""Whole pieces from a model that sees one window at a time; the choice among candidates by what comes after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from fractalgen.config import ModelConfig
from fractalgen.model.absent import carried
from fractalgen.model.grid import surround
from fractalgen.model.limits import Limits
from fractalgen.model.network import FractalNetwork, with_returns
from fractalgen.model.plans import Plans
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.sampling.recorder import Composed, Decisions, StepLog
from fractalgen.model.sampling.recursion import sample_regions
from fractalgen.model.sampling.token_sampler import TokenSampler
from fractalgen.music.tokens import ABSENT, HOLD, NO_HOLD, ONSET, SILENCE


def compose(
    composer: Composer,
    known: Int[Tensor, "b p t"],
    *,
    window: int,
    limits: Limits | None = None,
    candidates: int = 1,
) -> Composed:
    """Decide every cell of ``known`` that is -1, ``window`` steps at a time.

    A window begins half its width before the first step with something to decide, and what was composed before is
    known to it.  So memory does not grow with the piece, and time grows in proportion.  ``candidates``: see
    :meth:`Composer.best_fit`.
    """
    tokens, width = known.clone(), known.shape[2]
    config = composer.model.config
    patch, column = config.patch, config.column
    decisions = None
    if composer.record:
        planes = torch.full((len(known), len(config.levels), *known.shape[1:]), -1, dtype=torch.int32)
        decisions = Decisions(planes, torch.zeros(known.shape, dtype=torch.uint8))
    absent = (known == ABSENT)[:, 0]
    while (undecided := ((tokens < 0) & (tokens != ABSENT)).flatten(0, 1).any(0)).any():
        first = int(undecided.nonzero()[0])
        back = min(window // 2, window - column)  # a window of a single patch has no room for the past
        start = max(0, min(first - back, width - window)) // column * column
        here = slice(start, min(start + window, width))
        given = tokens[..., here].clone()
        composer.log.begin_window(
            ranks=ranks(config, width, start, given.shape[2]) if config.levels[0].generator == "ar" else None,
            here=given[:, ::patch, ::column].numel(),
            later=tokens[:, ::patch, here.stop :: column].numel(),
            start=start,
        )
        part = None
        if limits is not None:
            room = None if limits.room is None else limits.room[:, here] - (given > SILENCE).sum(1)
            part = Limits(limits.allowed[..., here], room)
        mine = composer.at(start // column, here.stop // column, tokens)
        if candidates > 1 and bool((given[..., first - start :] >= 0).any()):
            composed = mine.best_fit(given, part, candidates)
        else:
            composed = mine.fill(given, part)
        tokens[..., here] = torch.where(given == ABSENT, ABSENT, composed.tokens)
        if decisions is not None and composed.decisions is not None:
            new = (given < 0).cpu()
            planes, chances = composed.decisions.planes.cpu(), (255 * composed.decisions.chances).round().byte().cpu()
            decisions.planes[..., here] = torch.where(new[:, None], planes, decisions.planes[..., here])
            decisions.chances[..., here] = torch.where(new, chances, decisions.chances[..., here])
    if bool(absent.any()):
        tokens = carried(tokens, absent, column)
    return Composed(tokens, decisions)


def ranks(config: ModelConfig, width: int, start: int, steps: int) -> list[int]:
    """Ranks in a piece of ``width`` steps of the patches, in scan order, of a window (``steps`` from ``start`` on)."""
    column = config.column
    shape = (config.pitches // config.patch, width // column)
    number = torch.arange(shape[0] * shape[1])
    order = number.view(shape) if config.scan_order == "row_major" else number.view(shape[::-1]).T
    window = order[:, start // column : (start + steps) // column]
    return (window if config.scan_order == "row_major" else window.T).flatten().tolist()


@dataclass(frozen=True)
class Composer:
    """Draws windows of a model under labels and plans, and records how if asked to.

    ``plans``: those of whole pieces, or of the window that :meth:`at` is for.
    """

    model: FractalNetwork
    labels: Sequence[Int[Tensor, " b"]] | None
    sampler: TokenSampler
    log: StepLog
    record: bool
    plans: Plans | None = None

    def at(self, first: int, stop: int, tokens: Int[Tensor, "b p t"]) -> Composer:
        """The composer of some columns; what comes back from before them is in ``tokens`` of the piece."""
        if self.plans is None or (first == 0 and stop == self.plans.back.shape[1]):
            return self
        return replace(self, plans=self.plans.window(first, stop, tokens))

    def condition(self, batch: int) -> Condition:
        """What is asked for, and behind it for the second stream of guidance: nothing."""
        cond = self.model.condition(self.labels, batch, self.plans)
        if self.sampler.streams == 1:
            return cond
        untold = None if self.plans is None else self.plans.untold()
        return Condition.cat([cond, self.model.condition(None, batch, untold)])

    def fill(self, given: Int[Tensor, "b p t"], limits: Limits | None = None) -> Composed:
        """Draw the undecided cells of a window from the model."""
        vocabulary, root = self.model.config.vocabulary, self.model.root
        canvas = surround(torch.full_like(given, vocabulary), root.margin, vocabulary + 1)
        noise = self.sampler.uniform((len(given), len(root.grid(canvas)) * root.numbers_per_child))
        regions = with_returns(Regions(canvas, given, limits=limits, noise=noise), self.plans)
        composed = sample_regions(root, regions, self.condition(len(given)), self.sampler, self.record, self.log)
        if not self.model.config.is_autoregressive:
            composed.tokens = torch.where(given >= 0, given, drop_orphans(composed.tokens.cpu()).to(given))
        return composed

    def best_fit(self, given: Int[Tensor, "b p t"], limits: Limits | None, candidates: int) -> Composed:
        """Draw several candidates and keep one, according to how well the known cells after it fit.

        An AR model without future context draws a gap from ``q``, which knows only what comes before.  Sampling
        importance resampling (Rubin 1988) corrects this: a candidate is kept with probability in proportion to
        ``p(roll) / q(gap)``, both exact, so that the more candidates there are, the nearer is the gap to being drawn
        from the model given both sides (temperature, filter and guidance are not in the weights).
        """

        def repeated(x: Tensor) -> Tensor:
            return x.repeat_interleave(candidates, 0)

        given = repeated(given)
        if limits is not None:
            limits = Limits(repeated(limits.allowed), None if limits.room is None else repeated(limits.room))
        labels = None if self.labels is None else [repeated(label) for label in self.labels]
        plans = None if self.plans is None else self.plans.each(repeated)
        composed = replace(self, labels=labels, plans=plans, log=self.log.unwatched()).fill(given, limits)
        absent = (given == ABSENT)[:, 0]
        told: dict[str, Any] = {"cond_list": labels, "plans": plans, "absent": absent}
        proposal = self.model.nll(composed.tokens, known=given >= 0, ended=given == NO_HOLD, **told).total
        weight = proposal - self.model.nll(composed.tokens, **told).total
        gumbel = -(-self.sampler.uniform(weight.shape).clamp(min=1e-30).log()).log()
        best = (weight + gumbel.to(weight)).unflatten(0, (-1, candidates)).argmax(1)
        kept = best + candidates * torch.arange(len(best), device=best.device)
        decisions = composed.decisions
        if decisions is not None:
            decisions = Decisions(decisions.planes[kept], decisions.chances[kept])
        return Composed(composed.tokens[kept], decisions)


def drop_orphans(tokens: Int[Tensor, "b p t"]) -> Int[Tensor, "b p t"]:
    """Silence runs of holds that follow no onset; holds from the left edge on are kept.

    MAR levels draw neighbours together, so a hold may follow a cell that became silent in the same step.
    """
    step = torch.arange(tokens.shape[-1], device=tokens.device)
    breaks = torch.where(tokens == SILENCE, step, -1).cummax(-1).values
    strikes = torch.where(tokens >= ONSET, step, -1).cummax(-1).values
    return torch.where((tokens == HOLD) & (strikes < breaks), SILENCE, tokens)

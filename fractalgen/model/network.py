"""The network: a generator that calls generators, from the whole roll down to the velocity of a single cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fractalgen.config import ConfigError, MarOrder, ModelConfig, SamplingConfig
from fractalgen.model.absent import carried
from fractalgen.model.degrees import lowest_degree
from fractalgen.model.grid import surround
from fractalgen.model.level import FractalLevel
from fractalgen.model.losses import NLL, LossTerms
from fractalgen.model.planner import Planner
from fractalgen.model.plans import Plans
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.schedule import Schedule
from fractalgen.model.velocity_head import VelocityHead
from fractalgen.music.chords import UNTOLD
from fractalgen.music.tokens import ABSENT, NO_HOLD, UNKNOWN


def with_returns(regions: Regions, plans: Plans | None) -> Regions:
    """The first level's regions, told of the bars that come back; as they are where none does."""
    if plans is None or not bool((plans.back > 0).any()):
        return regions
    return replace(regions, returned=plans.bank, returns=plans.sources)


class FractalNetwork(nn.Module):
    """The whole model, as far as it is tensors.

    Tokens are integers (b, pitches, T): 0 silence, 1 hold, 2.. onset by velocity bin.  ``checkpoint_id`` says which
    weights these are.
    """

    checkpoint_id = "untrained"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.levels[0].width, *(level.width for level in config.levels)]
        last = len(config.levels) - 1
        child: FractalLevel | VelocityHead = VelocityHead(config.levels[last], widths[last], config, last)
        for index in reversed(range(last)):
            child = FractalLevel(config.levels[index], widths[index], child, config, index)
        assert isinstance(child, FractalLevel)
        self.root = child
        self.planner = None
        if config.plan_width:
            self.planner = Planner(config.plan_width, config.columns, config.column, config.dropout)
        self.null = nn.Parameter(0.02 * torch.randn(widths[0]))
        self.labels = nn.ModuleList(nn.Embedding(size, widths[0]) for size in config.label_sizes)
        for parameter in self.labels.parameters():
            nn.init.normal_(parameter, std=0.02)

    @property
    def levels(self) -> list[FractalLevel | VelocityHead]:
        """The generators from L0 down to the single cell."""
        found: list[FractalLevel | VelocityHead] = [self.root]
        while isinstance(found[-1], FractalLevel):
            found.append(found[-1].child)
        return found

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.null.device

    def condition(
        self, cond_list: Sequence[Int[Tensor, " b"]] | None, batch: int, plans: Plans | None = None
    ) -> Condition:
        """Conditions: the learned null condition plus one embedding per label (label 0: unset).

        A key also tells every level, for each pitch that it works on, which degree of that key it is; ``plans`` tell
        every level the chords of what it works on, and the first what comes back where.

        Raises:
            ConfigError: labels that do not fit the model, or no plans for a model that knows them.
        """
        if cond_list is None:
            cond_list = [torch.zeros(batch, dtype=torch.long, device=self.device) for _ in self.labels]
        if len(cond_list) != len(self.labels):
            raise ConfigError(f"cond_list: {len(cond_list)} labels given, this model has {len(self.labels)}")
        vector = self.null.expand(batch, -1)
        degree = torch.zeros(batch, dtype=torch.long, device=self.device)
        for attribute, table, label in zip(self.config.attributes, self.labels, cond_list, strict=True):
            vector = vector + table(label.to(self.device))
            if attribute.name == "key":
                degree = lowest_degree(label.to(self.device))
        cond = Condition.plain(vector, degree)
        if self.planner is None:
            return cond
        if plans is None:
            raise ConfigError("this model knows plans: give some, Plans.free tells nothing")
        return replace(cond, chords=F.pad(plans.chords, (0, 1), value=UNTOLD), returns=plans.sources, left=plans.left)

    def key(self, cond_list: Sequence[Int[Tensor, " b"]] | None, batch: int) -> Int[Tensor, " b"]:
        """The labels of keys among ``cond_list``, 0 where none is asked for."""
        for attribute, label in zip(self.config.attributes, cond_list or (), strict=False):
            if attribute.name == "key":
                return label.to(self.device)
        return torch.zeros(batch, dtype=torch.long, device=self.device)

    def plan_nll(
        self,
        plans: Plans,
        cond_list: Sequence[Int[Tensor, " b"]] | None = None,
        decided: Plans | None = None,
    ) -> dict[str, Float[Tensor, " b"]]:
        """Exact negative log-probability of plans in nats, that of returns and of chords, see :meth:`.Planner.nll`.

        Raises:
            ConfigError: the model knows no plans.
        """
        if self.planner is None:
            raise ConfigError("this model knows no plans")
        return self.planner.nll(plans, self.key(cond_list, len(plans.back)), decided)

    def nll(
        self,
        tokens: Int[Tensor, "b p t"],
        cond_list: Sequence[Int[Tensor, " b"]] | None = None,
        num_iter_list: Sequence[int] | None = None,
        known: Bool[Tensor, "b p t"] | None = None,
        mar_order: MarOrder = SamplingConfig.mar_order,
        *,
        ended: Bool[Tensor, "b p t"] | None = None,
        plans: Plans | None = None,
        absent: Bool[Tensor, "b t"] | None = None,
        flat: Bool[Tensor, " b"] | None = None,
        subsample: bool = False,
    ) -> NLL:
        """Negative log-likelihood of rolls, given their plans, in nats; exact for AR.

        For MAR levels: without ``num_iter_list`` an unbiased estimate of the any-order bound from one random mask;
        with it the exact NLL of that schedule and ``mar_order`` (one order, if random).  Random choices come from
        torch's global state.
        ``known`` marks cells that are given: the NLL is that of the others, as the sampler draws them.
        ``ended`` marks cells among the others that are no hold, as if that were known.
        ``plans``: what is told of chords and form, by default nothing; :meth:`plan_nll` scores the plans themselves.
        ``absent`` marks steps that do not exist; their tokens are not looked at.
        ``flat`` marks rolls whose velocities mean nothing; they are not scored.
        ``subsample``: of each level's patches at most ``max_children``, weighted up: unbiased, for training.

        Raises:
            ConfigError: the shape does not fit the model.
        """
        batch, pitches, width = tokens.shape
        if pitches != self.config.pitches:
            raise ConfigError(f"rolls have {pitches} pitches, the model {self.config.pitches}")
        self.config.check_width(width, "crop_length")
        if self.planner is not None and plans is None:
            plans = Plans.free(batch, width // self.config.column, pitches, self.config.column, tokens.device)
        schedule = None if num_iter_list is None else Schedule(self.iterations(num_iter_list), mar_order)
        if absent is not None and not bool(absent.any()):
            absent = None
        given = None
        if not (known is None and ended is None and absent is None):
            given = torch.full_like(tokens, UNKNOWN) if known is None else torch.where(known, tokens, UNKNOWN)
            if ended is not None:
                given = given.masked_fill(ended, NO_HOLD)
            if absent is not None:
                given = given.masked_fill(absent[:, None], ABSENT)
                tokens = carried(tokens, absent, self.config.column)
        canvas = surround(tokens, self.root.margin, self.config.vocabulary + 1)
        regions = with_returns(Regions(canvas, given), plans)
        losses = LossTerms(batch, self.null, subsample, flat)
        crop = torch.arange(batch, device=tokens.device)
        self.root.nll(regions, self.condition(cond_list, batch, plans), crop, losses.zeros + 1, losses, schedule)
        return NLL(losses.terms, losses.kinds, exact=self.config.is_autoregressive or schedule is not None)

    def iterations(self, num_iter_list: Sequence[int]) -> tuple[int, ...]:
        """Check ``num_iter_list`` against the levels; the default serves any number of them."""
        if tuple(num_iter_list) == SamplingConfig.num_iter_list:
            return self.config.fit_iterations(SamplingConfig.num_iter_list)
        if len(num_iter_list) != len(self.config.levels) or min(num_iter_list) < 1:
            given = " ".join(map(str, num_iter_list))
            raise ConfigError(
                f"--num_iter_list {given}: {len(self.config.levels)} positive numbers are needed, one per level"
            )
        return tuple(num_iter_list)

    def fit(self, settings: SamplingConfig) -> SamplingConfig:
        """The same settings with a number of iterations for each level.

        Raises:
            ConfigError: iterations or temperatures for another number of levels.
        """
        temperature, levels = settings.temperature, len(self.config.levels)
        if isinstance(temperature, tuple) and len(temperature) not in (1, levels):
            given = " ".join(f"{number:g}" for number in temperature)
            raise ConfigError(f"--temperature {given}: one number is needed, or {levels}, one per level")
        return replace(settings, num_iter_list=self.iterations(settings.num_iter_list))

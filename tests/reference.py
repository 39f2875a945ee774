"""The dense reference: the same weights and the same distribution, computed without any of the short cuts.

Gates are read, but not for saving work: every child of every level is visited, what is found inside a silent one is
thrown away afterwards.  There is no cache: each step of an AR level passes again over all children decided so far.
So much work a recursive model takes that does not know silence (Li, Sun, Fan, He, arXiv 2502.17437, as published).
The answers are FractalGen's own: the same likelihood, and from the same random numbers the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fractalgen.api import FractalGen
from fractalgen.config import MarOrder, SamplingConfig
from fractalgen.model.ar import Autoregressive
from fractalgen.model.grid import Margin, interior, surround, windows
from fractalgen.model.level import FractalLevel
from fractalgen.model.losses import NLL, LossTerms, gate_nll, wide
from fractalgen.model.mar import ranks
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.sampling.recursion import sample_cells
from fractalgen.model.sampling.token_sampler import GATE, INSIDE, ORDER, TokenSampler
from fractalgen.model.sampling.windows import drop_orphans
from fractalgen.model.schedule import Schedule, schedule_steps
from fractalgen.model.velocity_head import VelocityHead
from fractalgen.music.tokens import HOLD, ONSET, SILENCE


def dense_nll(
    model: FractalGen,
    tokens: Int[Tensor, "b p t"],
    cond_list: Sequence[Int[Tensor, " b"]] | None = None,
    num_iter_list: Sequence[int] | None = None,
    mar_order: MarOrder = SamplingConfig.mar_order,
) -> NLL:
    """:meth:`FractalGen.nll` in nats per roll, from a pass over every patch and every cell.

    The same numbers where no chance is involved: AR levels, and MAR levels under ``num_iter_list`` in scan order
    (random orders and masks are drawn for more patches here, so other ones).
    """
    schedule = None if num_iter_list is None else Schedule(model.iterations(num_iter_list), mar_order)
    canvas = surround(tokens, model.root.margin, model.config.vocabulary + 1)
    losses = LossTerms(len(tokens), model.null)
    crop = torch.arange(len(tokens), device=tokens.device)
    cond = model.condition(cond_list, len(tokens))
    score(model.root, Regions(canvas), cond, crop, losses.zeros + 1, losses, schedule)
    return NLL(losses.terms, losses.kinds, exact=model.config.is_autoregressive or schedule is not None)


def score(
    level: FractalLevel | VelocityHead,
    regions: Regions,
    cond: Condition,
    crop: Int[Tensor, " b"],
    weight: Float[Tensor, " b"],
    losses: LossTerms,
    schedule: Schedule | None,
) -> None:
    """Add up the NLL of regions; those that nobody asked for, because they are silent, have weight 0."""
    asked = weight > 0
    if isinstance(level, VelocityHead):
        score_cells(level, regions, cond, crop, weight * asked, losses)
        return
    canvas, grid = regions.canvas, level.grid(regions.canvas)
    patches = grid.split(interior(canvas, level.margin))
    active = patches.flatten(2).any(-1)
    undecided, _, sounds = level.tasks(regions, grid)
    plan = level.generator.teacher_forcing(
        undecided, None if schedule is None else (schedule.iterations[level.index], schedule.order)
    )
    z = level.conditions(regions, cond, level.embed(level.features(patches)), level.base(cond, grid), plan)
    weight = weight * plan.weight
    nats = gate_nll(wide(level.gate(z)[..., 0]), active, plan.target, plan.final, sounds)
    for kind, which in (("sound", active), ("silence", ~active)):
        mine = torch.where(which & asked[:, None], nats, 0.0).sum(1)
        losses.add(f"{level.name}/gate", mine, crop, weight, kind)

    region, child = plan.target.nonzero(as_tuple=True)
    index, owner = windows(grid, level.margin, level.child.margin, canvas.device)
    decided = F.pad(plan.steps, (0, 1), value=-1)[region[:, None, None], owner[child]]
    visible = (decided < plan.steps[region, child][:, None, None]) | (owner[child] == child[:, None, None])
    cells = torch.where(visible, canvas.flatten(1)[region[:, None, None], index[child]], level.unknown)
    parts = Regions(cells, long_context=level.long_context(regions, region, child, plan.steps))
    below = level.inside(cond, grid, z).each(lambda x: x[region, child])
    score(level.child, parts, below, crop[region], weight[region] * active[region, child], losses, schedule)


def score_cells(
    head: VelocityHead,
    regions: Regions,
    cond: Condition,
    crop: Int[Tensor, " m"],
    weight: Float[Tensor, " m"],
    losses: LossTerms,
) -> None:
    """Articulation and velocity of every cell; booked for those that sound."""
    token = head.cell(regions.canvas)
    logits, x = head.first(regions, cond)
    velocities = None if head.joint else head.velocities(x, regions.canvas)
    onset, hold = (token >= ONSET) & (weight > 0), (token == HOLD) & (weight > 0)
    for kind, mine in (("onset", onset), ("hold", hold)):
        choice = token[mine] - HOLD if head.joint else (token[mine] >= ONSET).long()
        nats = F.cross_entropy(wide(logits)[mine], choice, reduction="none")
        name = f"{head.name}/{'token' if head.joint else 'articulation'}"
        losses.add(name, nats, crop[mine], weight[mine], kind)
    if velocities is not None:
        nats = F.cross_entropy(wide(velocities)[onset], token[onset] - ONSET, reduction="none")
        losses.add(f"{head.name}/velocity", nats, crop[onset], weight[onset], kind="velocity")


@torch.no_grad()
def dense_sample(
    model: FractalGen,
    batch_size: int = 1,
    num_iter_list: Sequence[int] = SamplingConfig.num_iter_list,
    *,
    width: int | None = None,
    mar_order: MarOrder = SamplingConfig.mar_order,
    generator: torch.Generator | None = None,
    only: Sequence[int] | None = None,
) -> Int[Tensor, "b p t"]:
    """Rolls (batch_size, pitches, width) as :meth:`FractalGen.sample` draws them from the same ``generator``.

    ``width``: at most the width trained on, where one window composes all.  ``only``: of the first level's steps
    (patches if it is AR, iterations if it is MAR) just these, for measuring; what comes out then is no music.
    """
    settings = SamplingConfig(num_iter_list=model.iterations(num_iter_list), mar_order=mar_order)
    config, root = model.config, model.root
    shape = (batch_size, config.pitches, config.crop_length if width is None else width)
    unknown = torch.full(shape, config.vocabulary, device=model.device)
    canvas = surround(unknown, root.margin, config.vocabulary + 1)
    sampler = TokenSampler(settings, generator, model.device)
    regions = Regions(canvas, noise=sampler.uniform((batch_size, len(root.grid(canvas)) * root.numbers_per_child)))
    tokens = fill(root, regions, model.condition(None, batch_size), sampler, only)
    return tokens if config.is_autoregressive else drop_orphans(tokens)


def fill(
    level: FractalLevel, regions: Regions, cond: Condition, sampler: TokenSampler, only: Sequence[int] | None = None
) -> Int[Tensor, "b p t"]:
    """Draw regions: at each step of the order the gates of its children, and the inside of all these children."""
    canvas, grid = regions.canvas, level.grid(regions.canvas)
    assert regions.noise is not None
    noise = regions.noise.unflatten(1, (len(grid), -1))
    own, _ = windows(grid, level.margin, Margin(), canvas.device)
    around, _ = windows(grid, level.margin, level.child.margin, canvas.device)
    flat = canvas.view(len(canvas), -1)
    interior(canvas, level.margin).fill_(level.unknown)
    now = sampler.at(level.index, 1.0)
    base, embedded_context = level.base(cond, grid), level.embedded_context(regions)
    _, _, sounds = level.tasks(regions, grid)
    steps = order(level, noise[..., ORDER], sampler.settings)
    last = steps.amax(1)
    silent = torch.ones_like(sounds)
    for step in range(int(last.max()) + 1) if only is None else only:
        target = steps == step
        children = target.any(0).nonzero()[:, 0]
        z = conditions(level, regions, base, embedded_context, steps < step)
        opened, _ = now.gates(
            level.gate(z[:, children])[None, ..., 0],
            noise[:, children, GATE],
            target[:, children],
            torch.zeros_like(target[:, children]),
            sounds & silent & (step == last),
        )
        silent &= ~opened.any(1)
        region, slot = target[:, children].nonzero(as_tuple=True)
        child = children[slot]
        parts = Regions(
            flat[region[:, None, None], around[child]],
            long_context=level.long_context(regions, region, child),
            noise=noise[region, child, INSIDE:],
        )
        below = level.inside(cond, grid, z).each(lambda x, r=region, c=child: x[r, c])  # type: ignore[misc]
        if isinstance(level.child, FractalLevel):
            inside = fill(level.child, parts, below, sampler)
        else:
            inside = sample_cells(level.child, parts, below, sampler).tokens
        flat[region[:, None, None], own[child]] = torch.where(opened[region, slot][:, None, None], inside, SILENCE)
    return interior(canvas, level.margin)


def order(level: FractalLevel, noise: Float[Tensor, "b n"], settings: SamplingConfig) -> Int[Tensor, "b n"]:
    """The step in which each child is drawn: its number in scan order (AR), or its iteration (MAR)."""
    batch, count = noise.shape
    if isinstance(level.generator, Autoregressive):
        return torch.arange(count, device=noise.device).expand(batch, count)
    rank = ranks(noise, torch.ones_like(noise, dtype=torch.bool), settings.mar_order)
    return schedule_steps(rank, rank.new_full((batch,), count), settings.num_iter_list[level.index])


def conditions(
    level: FractalLevel,
    regions: Regions,
    base: Float[Tensor, "b n d"],
    embedded_context: Float[Tensor, "b n d"],
    known: Bool[Tensor, "b n"],
) -> Float[Tensor, "b k d"]:
    """What the generator says of the children when those ``known`` are decided; if AR, up to the next one only."""
    patches = level.grid(regions.canvas).split(interior(regions.canvas, level.margin))
    content = level.embed(level.features(patches))
    generator = level.generator
    if isinstance(generator, Autoregressive):
        rank = torch.arange(known.shape[1], device=known.device)
        query = base + level.look(regions, (rank[:, None] > rank)[None]) + embedded_context
        following = int(known[0].sum()) + 1
        return generator(content[:, :following], query[:, :following], query.new_zeros(()))
    sees = known[:, None]
    return generator(content, base, level.look(regions, sees) + embedded_context, sees)

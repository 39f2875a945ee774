"""The MAR sampler: several children at a time, in a random order or in scan order."""

from __future__ import annotations

from dataclasses import replace

import torch

from fractalgen.model.absent import carried
from fractalgen.model.grid import Margin, cut, interior, windows
from fractalgen.model.level import FractalLevel
from fractalgen.model.mar import MaskedAutoregressive
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.sampling.recorder import Composed, RegionSampler, StepLog, finished
from fractalgen.model.sampling.token_sampler import GATE, INSIDE, ORDER, TokenSampler, streams
from fractalgen.music.tokens import ABSENT, SILENCE


def sample_mar(
    level: FractalLevel,
    regions: Regions,
    cond: Condition,
    sampler: TokenSampler,
    below: RegionSampler,
    record: bool,
    log: StepLog | None = None,
) -> Composed:
    """Draw regions of a MAR level: an iteration decides the gates of some children; ``below`` samples the open ones."""
    assert isinstance(level.generator, MaskedAutoregressive)
    canvas, given, noise = regions.canvas, regions.given, regions.noise
    assert given is not None
    assert noise is not None
    grid = level.grid(canvas)
    noise = noise.unflatten(1, (len(grid), -1))
    undecided, filled, sounds = level.tasks(regions, grid)
    silent = ~filled.any(1)
    given_patches = grid.split(given)
    own, _ = windows(grid, level.margin, Margin(), canvas.device)
    around, _ = windows(grid, level.margin, level.child.margin, canvas.device)
    flat = canvas.view(len(canvas), -1)
    limits = None if regions.limits is None else regions.limits.split(grid)
    planes = chances = None
    if record:
        shape = (*given_patches.shape[:2], level.height, level.patch, level.steps)
        planes = torch.full(shape, -1, dtype=torch.int32, device=canvas.device)
        chances = torch.zeros(given_patches.shape, device=canvas.device)
    absent = level.absent_steps(given, grid)
    start = torch.where(given >= 0, given, level.unknown)
    if bool((given == ABSENT).any()):  # nothing is known of steps that do not exist before their patch is decided
        settled = ~grid.join(undecided[..., None, None].expand_as(given_patches)) & (given == ABSENT)
        behind = SILENCE if absent is None else carried(given, given[:, 0] == ABSENT, level.steps)
        start = torch.where(settled, behind, start)
    interior(canvas, level.margin).copy_(start)
    base = level.base(cond, grid, sampler.kept)
    embedded_context = level.embedded_context(regions)
    windows_seen, _ = windows(grid, level.margin, level.context, canvas.device)
    nothing = cond.vector.new_zeros(len(cond.vector), len(grid), 0)
    inside = level.inside(cond, grid, nothing).each(lambda x: streams(x, sampler))
    # with a limit on polyphony, children are drawn one at a time, because each one leaves less room to the others
    alone = limits is not None and limits.room is not None
    iterations = len(grid) if alone else sampler.settings.num_iter_list[level.index]
    steps = level.generator.steps(undecided, noise[..., ORDER], (iterations, sampler.settings.mar_order))
    ended = level.ended(given, grid)
    for iteration in range(iterations):
        target = steps == iteration
        if not target.any():
            continue
        # conditions of all children from what is decided so far, repeated for every guidance stream
        content = level.embed(level.features(grid.split(interior(canvas, level.margin))))
        context = level.surroundings(level.features(cut(canvas, windows_seen))) + embedded_context
        content, context, sees = (
            x.repeat(sampler.streams, 1, 1) for x in (content, context, (steps < iteration)[:, None])
        )
        shown = level.embedded_returns(regions, cond)
        whole = base + (shown.flatten(0, 1) if shown.ndim else shown)
        conditions = streams(level.generator(content, whole, context, sees), sampler)
        now = sampler.at(level.index, (iteration + 1) / iterations)
        undecided &= ~target
        possible = undecided.new_ones(()) if limits is None else limits.possible(given_patches)
        may = target & (possible if limits is None else possible | filled)
        last = sounds & silent & may.any(1) & ~(undecided & possible).any(1)
        gates = level.gate(conditions)[..., 0]
        if ended is not None:
            r, c = (ended & target).nonzero(as_tuple=True)
            z = conditions[:, r, c]
            gates[:, r, c] += level.struck_share(z, flat[r[:, None, None], around[c]]).to(gates)
        opened, chance = now.gates(gates, noise[..., GATE], may, filled, last)
        silent = silent & ~opened.any(1)

        region, child = target.nonzero(as_tuple=True)
        sounding = opened[region, child]
        if chances is not None:
            chances[region, child] = chance[region, child].to(chances)[:, None, None]
        cells = flat[region[:, None, None], around[child]]
        z, under = conditions[:, region, child], inside.each(lambda x, r=region, c=child: x[:, r, c])  # type: ignore[misc]
        long_context = level.long_context(regions, region, child)
        returned = level.returned_cells(regions, region, child) if not level.above_cells else None
        batch = (target.cumsum(1) - 1)[region, child] // sampler.settings.batch_generate_size
        for number in range(int(batch.max()) + 1 if len(batch) else 0):
            moment = log.add(iteration, number) if log else iteration
            mine = batch == number
            these = region[mine], child[mine]
            flat[these[0][:, None, None], own[these[1]]] = SILENCE
            if planes is not None:
                planes[region[mine], child[mine], 0] = moment
            mine &= sounding
            if mine.any():
                r, c = region[mine], child[mine]
                parts = Regions(
                    cells[mine],
                    given_patches[r, c],
                    None if long_context is None else long_context[mine],
                    None if returned is None else returned[mine],
                    limits=None if limits is None else limits.at(r, c),
                    noise=noise[r, c, INSIDE:],
                )
                own_part = replace(under, vector=z).each(lambda x, mine=mine: x[:, mine].flatten(0, 1))  # type: ignore[misc]
                part = below(level.child, parts, own_part, now, record)
                if absent is not None:
                    part.tokens = carried(part.tokens, absent[r, c], level.steps)
                if limits is not None:
                    limits.fill(r, c, (part.tokens > SILENCE) & (given_patches[r, c] < 0))
                flat[r[:, None, None], own[c]] = part.tokens.to(flat)
                if planes is not None:
                    planes[r, c, 1:] = 0 if part.planes is None else part.planes
                if chances is not None and part.chances is not None:
                    chances[r, c] *= part.chances
            if log:
                log.progress(float(undecided.float().mean()))
                if log.watch and planes is not None:
                    tokens = torch.where(given_patches[these] < 0, flat[these[0][:, None, None], own[these[1]]], -1)
                    log.decided(moment, grid, torch.stack(these, 1), tokens, planes[these][:, 1:])
    return finished(level, regions, grid, planes, chances)

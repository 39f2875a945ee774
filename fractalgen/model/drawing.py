"""Drawing regions of a level, child by child or in leaps over silence: two ways to the very same music."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fractalgen.model.ar import Autoregressive
from fractalgen.model.grid import Grid, Margin, cut, interior, surround, windows
from fractalgen.model.parts import SILENCE, Composed, Condition, Regions, StepLog, streams
from fractalgen.sampling import Draw

if TYPE_CHECKING:
    from fractalgen.model.level import FractalLevel

# The random numbers of a child: for its gate, its place in a random order, and from there on for what is inside it.
# They belong to the place, not to the moment, so that music does not depend on what is drawn together with what.
GATE, ORDER, INSIDE = 0, 1, 2


def walk(
    level: FractalLevel,
    regions: Regions,
    cond: Condition,
    draw: Draw,
    record: bool,
    log: StepLog | None = None,
) -> Composed:
    """Draw regions step by step, as the generator orders: decide the gates, let the child fill what is not silent."""
    canvas, given, noise = regions.canvas, regions.given, regions.noise
    assert given is not None
    assert noise is not None
    grid = level.grid(canvas)
    noise = noise.unflatten(1, (len(grid), -1))
    undecided, filled, sounds = level.tasks(regions, grid)
    fixed, silent = ~undecided, ~filled.any(1)
    given_patches = grid.split(given)
    own, _ = windows(grid, level.margin, Margin(), canvas.device)
    around, _ = windows(grid, level.margin, level.child.margin, canvas.device)
    flat = canvas.view(len(canvas), -1)
    limits = None if regions.limits is None else regions.limits.split(grid)
    planes = chances = None
    if record:
        shape = (*given_patches.shape[:2], level.height, level.patch, level.patch)
        planes = torch.full(shape, -1, dtype=torch.int16, device=canvas.device)
        chances = torch.zeros(given_patches.shape, device=canvas.device)

    def reveal(children: Tensor) -> None:
        region, slot = fixed[:, children].nonzero(as_tuple=True)
        child = children[slot]
        flat[region[:, None, None], own[child]] = given_patches[region, child].to(flat)

    shown = (given >= 0) & level.sees_ahead
    interior(canvas, level.margin).copy_(torch.where(shown, given, level.unknown))
    read = Reader(level, regions, cond, draw.streams)
    degrees = streams(level.degrees(cond, grid), draw)
    # under a limit on polyphony children are drawn one at a time, since each leaves less room to the others
    alone = limits is not None and limits.room is not None
    iterations = len(grid) if alone else draw.settings.num_iter_list[level.index]
    total = len(grid) if level.config.generator == "ar" else iterations
    schedule = (iterations, draw.settings.mar_order)
    for step in level.generator.walk(read, undecided, noise[..., ORDER], schedule):
        dice = draw.at(level.index, (step.iteration + 1) / total)
        undecided[:, step.children] &= ~step.target
        possible = undecided.new_ones(()) if limits is None else limits.possible(given_patches)
        may = step.target & (possible if limits is None else (possible | filled)[:, step.children])
        last = sounds & silent & may.any(1) & ~(undecided & possible).any(1)
        logits, numbers = streams(level.gate(step.z)[..., 0], draw), noise[:, step.children, GATE]
        opened, chance = dice.gates(logits, numbers, may, filled[:, step.children], last)
        silent = silent & ~opened.any(1)
        reveal(step.children)

        region, slot = step.target.nonzero(as_tuple=True)
        child, sounding = step.children[slot], opened[region, slot]
        if chances is not None:
            chances[region, child] = chance[region, slot].to(chances)[:, None, None]
        cells = flat[region[:, None, None], around[child]]
        z, degree = streams(step.z, draw)[:, region, slot], degrees[:, region, child]
        echo = level.echo(regions, region, child)
        batch = (step.target.cumsum(1) - 1)[region, slot] // draw.settings.batch_generate_size
        for number in range(int(batch.max()) + 1 if len(batch) else 0):
            moment = log.add(step.iteration, number) if log else step.iteration
            mine = batch == number
            flat[region[mine][:, None, None], own[child[mine]]] = SILENCE
            if planes is not None:
                planes[region[mine], child[mine], 0] = moment
            mine &= sounding
            if mine.any():
                r, c = region[mine], child[mine]
                parts = Regions(
                    cells[mine],
                    given_patches[r, c],
                    None if echo is None else echo[mine],
                    None if limits is None else limits.at(r, c),
                    noise[r, c, INSIDE:],
                )
                below = Condition(z[:, mine].flatten(0, 1), degree[:, mine].flatten())
                part = level.child.sample(parts, below, dice, record)
                if limits is not None:
                    limits.fill(r, c, (part.tokens > SILENCE) & (given_patches[r, c] < 0))
                flat[r[:, None, None], own[c]] = part.tokens.to(flat)
                if planes is not None:
                    planes[r, c, 1:] = 0 if part.planes is None else part.planes
                if chances is not None and part.chances is not None:
                    chances[r, c] *= part.chances
            if log:
                log.progress(float(undecided.float().mean()))
        if not undecided.any():
            break
    return finished(level, regions, grid, planes, chances)


def leap(level: FractalLevel, regions: Regions, cond: Condition, draw: Draw, record: bool) -> Composed:
    """Draw regions of an AR level as :func:`walk` does, in fewer passes, the random numbers being the same.

    Most children are silent.  So it is guessed that all are; one pass of teacher forcing gives the conditions of all
    children under the guess, which are right up to the first child that comes out to sound.  That one is filled, and
    from there on the guess begins anew: as many passes as children that sound, instead of one for every child.
    """
    assert isinstance(level.generator, Autoregressive)
    canvas, given, noise = regions.canvas, regions.given, regions.noise
    assert given is not None
    assert noise is not None
    grid = level.grid(canvas)
    count, device = len(grid), canvas.device
    noise = noise.unflatten(1, (count, -1))
    undecided, filled, sounds = level.tasks(regions, grid)
    given_patches = grid.split(given)
    limits = None if regions.limits is None else regions.limits.split(grid)
    may = undecided if limits is None else undecided & (limits.possible(given_patches) | filled)
    last = sounds[:, None] & may & (may.flip(1).cumsum(1).flip(1) == 1)  # opens where all before it are silent
    own, _ = windows(grid, level.margin, Margin(), device)
    around, owner = windows(grid, level.margin, level.child.margin, device)
    flat = canvas.view(len(canvas), -1)
    heard = given if level.sees_ahead and bool((given >= 0).any()) else None
    shown = None if heard is None else surround(heard, level.margin, outside=-1).flatten(1) >= 0
    base, degrees = streams(level.base(cond, grid), draw), streams(level.degrees(cond, grid), draw)
    recalled = level.recalled(regions)
    rank = torch.arange(count, device=device)
    earlier = (rank[:, None] > rank)[None]
    dice = draw.at(level.index, (rank[:, None] + 1) / count)
    deep = record and level.height > 2  # cells leave nothing to be recorded inside them
    chances = base.new_zeros(may.shape)
    if deep:
        shape = (len(canvas), count, level.height - 1, grid.patch, grid.patch)
        planes = torch.full(shape, -1, dtype=torch.int16, device=device)
        inside = base.new_ones(given_patches.shape)

    interior(canvas, level.margin).copy_(given.clamp(min=SILENCE))
    begin = torch.zeros(len(canvas), dtype=torch.long, device=device)  # the first child not decided yet
    live = torch.arange(len(canvas), device=device)
    while len(live):
        now = slice(None) if len(live) == len(canvas) else live  # all of them: nothing needs to be copied
        part = Regions(canvas[now], None if heard is None else heard[now])
        context = level.look(part, earlier) + (recalled[now] if recalled.ndim else recalled)
        content = level.embed(level.features(grid.split(interior(part.canvas, level.margin))))
        query = (base[:, now] + context).flatten(0, 1)
        z = streams(level.generator(content.repeat(draw.streams, 1, 1), query), draw)
        opened, chance = dice.gates(level.gate(z)[..., 0], noise[now, :, GATE], may[now], filled[now])
        forced = last[now] & (begin[now] == 0)[:, None]
        ahead = rank >= begin[now, None]
        opened = (opened | forced) & ahead
        found = opened.any(1)
        first = torch.where(found, opened.byte().argmax(1), count)
        if record:  # of those after the first that sounds it will be said anew
            chances[now] = torch.where(ahead, chance.masked_fill(forced, 1.0), chances[now])

        region, child, slot = live[found], first[found], found.nonzero()[:, 0]
        if not len(region):
            break
        visible = (owner[child] <= child[:, None, None]) | (owner[child] == count)
        place = (region[:, None, None], around[child])
        if shown is not None:
            visible = visible | shown[place]
        parts = Regions(
            torch.where(visible, flat[place], level.unknown),
            given_patches[region, child],
            level.echo(regions, region, child),
            None if limits is None else limits.at(region, child),
            noise[region, child, INSIDE:],
        )
        below = Condition(z[:, slot, child].flatten(0, 1), degrees[:, region, child].flatten())
        filling = level.child.sample(parts, below, draw, record)
        flat[region[:, None, None], own[child]] = filling.tokens.to(flat)
        if deep:
            assert filling.planes is not None
            assert filling.chances is not None
            planes[region, child] = filling.planes
            inside[region, child] = filling.chances
        begin[region] = child + 1
        live = region[(may[region] & (rank > child[:, None])).any(1)]
    if not record:
        return finished(level, regions, grid)
    when = torch.where(undecided, rank, -1).to(torch.int16)[..., None, None, None]
    if deep:
        when = when.expand(-1, -1, 1, grid.patch, grid.patch)
        return finished(level, regions, grid, torch.cat([when, planes], 2), chances[..., None, None] * inside)
    sounds = undecided & grid.split(interior(canvas, level.margin)).flatten(2).any(-1)
    planes = torch.cat([when, (sounds.to(torch.int16) - 1)[..., None, None, None]], 2)
    return finished(level, regions, grid, planes, chances[..., None, None])


def finished(
    level: FractalLevel,
    regions: Regions,
    grid: Grid,
    planes: Tensor | None = None,
    chances: Tensor | None = None,
) -> Composed:
    """The regions as they are now, and what was recorded of their children."""
    assert regions.given is not None
    tokens = torch.where(regions.given >= 0, regions.given, interior(regions.canvas, level.margin).to(regions.given))
    if planes is None or chances is None:
        return Composed(tokens)
    planes = grid.join(planes.transpose(1, 2).flatten(0, 1)).unflatten(0, (-1, level.height))
    return Composed(tokens, planes, grid.join(chances))


class Reader:
    """Answers a generator's questions while its level is sampling; see :class:`fractalgen.model.ar.Reader`."""

    def __init__(self, level: FractalLevel, regions: Regions, cond: Condition, streams: int) -> None:
        self.level, self.canvas, self.streams = level, regions.canvas, streams
        canvas, grid = regions.canvas, level.grid(regions.canvas)
        self.recalled = level.recalled(regions)
        self.bases = level.base(cond, grid)
        self.own, _ = windows(grid, level.margin, Margin(), canvas.device)
        self.window, _ = windows(grid, level.margin, level.context, canvas.device)

    def content(self, children: Int[Tensor, " g"]) -> Float[Tensor, "sb g d"]:
        embedded = self.level.embed(self.level.features(cut(self.canvas, self.own[children])))
        return embedded.repeat(self.streams, 1, 1)

    def base(self, children: Int[Tensor, " g"]) -> Float[Tensor, "sb g d"]:
        return self.bases[:, children]

    def look(self, children: Int[Tensor, " g"]) -> Float[Tensor, "sb g d"]:
        context = self.recalled[:, children] if self.recalled.ndim else self.recalled
        if self.level.looks:
            context = context + self.level.surroundings(self.level.features(cut(self.canvas, self.window[children])))
        return context.repeat(self.streams, 1, 1) if context.ndim else context

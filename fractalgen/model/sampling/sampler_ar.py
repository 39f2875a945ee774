"""The AR sampler: children one after the other in scan order, several of them in a pass by Jacobi decoding."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fractalgen.model.absent import carried
from fractalgen.model.ar import Autoregressive
from fractalgen.model.grid import Margin, earlier, interior, surround, windows
from fractalgen.model.level import FractalLevel
from fractalgen.model.limits import PatchLimits
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.sampling.recorder import Composed, RegionSampler, StepLog, finished
from fractalgen.model.sampling.token_sampler import GATE, INSIDE, TokenSampler, streams
from fractalgen.music.tokens import ABSENT, HOLD, SILENCE

SPAN = 8
"""Children of a region that a pass computes; more of them need fewer passes, fewer of them need less work."""


def sample_ar(
    level: FractalLevel,
    regions: Regions,
    cond: Condition,
    sampler: TokenSampler,
    below: RegionSampler,
    record: bool,
    log: StepLog | None = None,
) -> Composed:
    """Draw regions of an AR level: the result is that of drawing child by child, in far fewer passes.

    The random numbers are drawn beforehand, so each child is a function of the children before it.  A pass guesses the
    next ``SPAN`` children (silence, or that a note is held) and computes what each of them is if the guesses before it
    are right.  The results are the next guesses.  All children up to and including the first one that differs from its
    guess are final (Jacobi decoding: Song et al. 2021, arXiv 2002.03629).  Multi-cell children are expensive, so
    ``below`` samples one only when its prefix is final.  Each region advances at its own pace.
    """
    given, noise = regions.given, regions.noise
    assert given is not None
    assert noise is not None
    state = ArState(level, regions, cond, sampler)
    grid, flat, device = state.grid, state.flat, given.device
    count = len(grid)
    noise = noise.unflatten(1, (count, -1))
    undecided, filled, sounds = level.tasks(regions, grid)
    given_patches = grid.split(given)
    silent = grid.split(state.roll).clone()  # what was given, and silence
    absent = level.absent_steps(given, grid)
    limits = None if regions.limits is None else regions.limits.split(grid)
    crowded = limits is not None and limits.room is not None
    one = (
        crowded or not level.above_cells
    )  # fill one child per pass: it is expensive, or leaves less room to the others
    ended = level.ended(given, grid)
    may = undecided if limits is None else undecided & (limits.possible(given_patches) | filled)
    rank = torch.arange(count, device=device)
    end = (may * (rank + 1)).amax(1)  # behind the last child that may sound
    last = (sounds[:, None] & may) & (rank == end[:, None] - 1)  # it sounds if all children before it are silent
    fractions = (rank + 1) / count
    if not one:
        state.guess_holds(grid.join(may[..., None, None]))
    recorder = ArRecorder(level, undecided, given_patches, log)
    span = torch.arange(min(SPAN, count), device=device)
    begin = torch.where(end > 0, 0, count)  # the first child that is not final
    quiet = torch.ones_like(end, dtype=torch.bool)  # no final child was drawn to sound
    live = (end > 0).nonzero()[:, 0]  # regions that are not finished
    while len(live):
        # the next children of every region, and their conditions if the guesses are right
        row, start = live[:, None], begin[live]
        child = start.clamp(max=count - len(span))[:, None] + span
        new = child >= start[:, None]
        z = state.conditions(row, child)
        # their gates
        if limits is not None and crowded:
            may = undecided & (limits.possible(given_patches) | filled)
        gates = level.gate(z)[..., 0]
        if ended is not None:
            number, slot = ended[row, child].nonzero(as_tuple=True)
            cells = state.look(live[number], child[number, slot], state.inner)
            gates[:, number, slot] += level.struck_share(z[:, number, slot], cells).to(gates)
        opened, chance = sampler.at(level.index, fractions[child]).gates(
            gates, noise[row, child, GATE], may[row, child] & new, filled[row, child]
        )
        forced = last[row, child]
        forced = forced & quiet[row] & ~(opened & ~forced).any(1, keepdim=True)
        opened = opened | forced
        if record:
            recorder.chances[row, child] = torch.where(
                new, chance.masked_fill(forced, 1.0).to(recorder.chances), recorder.chances[row, child]
            )

        # what is inside the open ones: all cells, or the first child only where children are filled one by one
        fill = opened & (opened.cumsum(1) == 1) if one else opened
        patch = (row[..., None, None], state.own[child])
        guess = flat[patch]
        found = torch.where((opened | ~new)[..., None, None], guess, silent[row, child])
        number, slot = fill.nonzero(as_tuple=True)
        if len(number):
            r, c = live[number], child[number, slot]
            parts, under = state.below(r, c, z[:, number, slot], given_patches, limits, noise)
            part = below(level.child, parts, under, sampler, record)
            if absent is not None:
                part.tokens = carried(part.tokens, absent[r, c], level.steps)
            if limits is not None:
                limits.fill(r, c, (part.tokens > SILENCE) & (given_patches[r, c] < 0))
            found[number, slot] = part.tokens.to(found)
            if record:
                recorder.keep(r, c, part)
        flat[patch] = found

        # final are the children up to and including the first one that differs from its guess
        after = torch.where((found != guess).flatten(2).any(-1), child + 1, child[:, -1:] + 1)
        if one:
            after = torch.where(opened & ~fill, child, after)
        start = after.amin(1)
        quiet[live] &= ~(opened & (child < start[:, None])).any(1)
        going = start < end[live]
        begin[live] = torch.where(going, start, count)
        live = live[going]
        recorder.tell(begin, state)
    recorder.tell(begin, state)
    return finished(level, state.regions, grid, *(recorder.finished(grid.split(state.roll)) if record else ()))


class ArRecorder:
    """Records for each child of an AR level when it was decided, how probably it sounds, and what is inside it."""

    def __init__(
        self, level: FractalLevel, undecided: Bool[Tensor, "b n"], given: Int[Tensor, "b n h w"], log: StepLog | None
    ) -> None:
        self.undecided, self.given, self.log, self.size = undecided, given, log, (level.patch, level.steps)
        self.rank = torch.arange(undecided.shape[1], device=undecided.device)
        self.moments = self.rank.tolist()
        self.asked = undecided.any(0).tolist() if log else []
        self.told = 0
        self.chances = torch.zeros(undecided.shape, device=undecided.device)
        self.inner: tuple[Tensor, Tensor] | None = None  # cells leave nothing to be noted inside them
        if not level.above_cells:
            shape = (*undecided.shape, level.height - 1, *self.size)
            planes = torch.full(shape, -1, dtype=torch.int32, device=undecided.device)
            self.inner = planes, self.chances.new_ones(*undecided.shape, *self.size)

    def keep(self, region: Int[Tensor, " m"], child: Int[Tensor, " m"], part: Composed) -> None:
        """Note what is inside of children that were filled."""
        if self.inner is not None:
            assert part.planes is not None
            assert part.chances is not None
            for store, value in zip(self.inner, (part.planes, part.chances), strict=True):
                store[region, child] = value

    def tell(self, begin: Int[Tensor, " b"], state: ArState) -> None:
        """Log the children that are certain in all regions now, ``begin`` being the first that is not."""
        if self.log is None:
            return
        certain = int(begin.amin())
        left = float((self.undecided & (self.rank >= begin[:, None])).float().mean())
        for child in range(self.told, certain):
            if self.asked[child]:
                step = self.moments[child] = self.log.add(child, 0)
                self.log.progress(left)
                if self.log.watch and self.inner is not None:
                    region = self.undecided[:, child].nonzero()[:, 0]
                    given = self.given[region, child]
                    tokens = torch.where(given < 0, state.grid.split(state.roll)[region, child], -1)
                    place = torch.stack([region, torch.full_like(region, child)], 1)
                    self.log.decided(step, state.grid, place, tokens, self.inner[0][region, child])
        self.told = certain

    def finished(self, patches: Int[Tensor, "b n h w"]) -> tuple[Tensor, Tensor]:
        """Step planes and chances of all cells, child by child; ``patches``: what the children came out as."""
        moments = torch.tensor(self.moments, device=self.rank.device)
        when = torch.where(self.undecided, moments, -1).to(torch.int32)[..., None, None, None]
        chances = self.chances[..., None, None]
        if self.inner is None:
            sounds = self.undecided & (patches > SILENCE).flatten(2).any(-1)
            return torch.cat([when, (sounds.to(torch.int32) - 1)[..., None, None, None]], 2), chances
        planes, inside = self.inner
        return torch.cat([when.expand(-1, -1, 1, *self.size), planes], 2), chances * inside


class ArState:
    """The state of an AR level while it samples: the cells decided or guessed so far, and the key-value cache.

    ``flat`` (b, cells + 1) holds the canvas, with guesses ahead, and behind it one cell that is unknown; ``canvas`` is
    a view of it.
    """

    def __init__(self, level: FractalLevel, regions: Regions, cond: Condition, sampler: TokenSampler) -> None:
        given, shape, generator = regions.given, regions.canvas.shape[1:], level.generator
        assert given is not None
        assert isinstance(generator, Autoregressive)
        self.level, self.generator, self.sampler = level, generator, sampler
        self.grid = grid = level.grid(regions.canvas)
        self.flat = F.pad(regions.canvas.flatten(1), (0, 1), value=level.unknown)
        self.canvas = self.flat[:, :-1].unflatten(1, shape)
        self.regions = replace(regions, canvas=self.canvas)
        self.roll = interior(self.canvas, level.margin)
        self.roll.copy_(given.clamp(min=SILENCE))
        if level.index == 0 and bool((given == ABSENT).any()):
            self.roll.copy_(carried(self.roll, given[:, 0] == ABSENT, level.steps))
        self.shown = None
        if level.sees_future and bool((given >= 0).any()):
            self.shown = F.pad(surround(given, level.margin, outside=-1).flatten(1) >= 0, (0, 1))
        device = given.device
        self.own, _ = windows(grid, level.margin, Margin(), device)
        self.around = (
            earlier(grid, level.margin, level.context, False, device),
            windows(grid, level.margin, level.context, device)[0],
        )
        self.inner = (
            earlier(grid, level.margin, level.child.margin, True, device),
            windows(grid, level.margin, level.child.margin, device)[0],
        )
        self.base = streams(level.base(cond, grid, sampler.kept), sampler) + level.embedded_context(regions)
        self.cond = cond
        nothing = cond.vector.new_zeros(len(cond.vector), len(grid), 0)
        self.inside = level.inside(cond, grid, nothing).each(lambda x: streams(x, sampler))
        if regions.returned is not None and level.index > 0:
            self.base = self.base + level.embedded_returns(self.regions, cond)
        self.echoes = None if regions.long_context is None else grid.split_layers(regions.long_context)
        self.steps = torch.arange(len(grid), device=device).expand(len(self.flat), -1)
        self.returning = regions.returns is not None and bool((regions.returns >= 0).any())
        self.decoder = generator.decoder(sampler.streams * len(self.flat), len(grid))

    def guess_holds(self, free: Bool[Tensor, "b p t"]) -> None:
        """Guess that what sounds beside a region of cells is held for two steps more where a cell is ``free``."""
        top, past = self.level.margin.pitch, self.level.margin.past
        if past:
            left = self.canvas[:, top : self.canvas.shape[1] - top, past - 1, None]
            sounds = (left > SILENCE) & (left < self.level.unknown)
            self.roll[:, :, :2].masked_fill_(sounds & free[:, :, :2], HOLD)

    def conditions(self, row: Int[Tensor, "r 1"], child: Int[Tensor, "r s"]) -> Float[Tensor, "g r s d"]:
        """Conditions of children, by guidance stream."""
        level = self.level
        before = self.flat[row[..., None, None], self.own[(child - 1).clamp(min=0)]]
        query = self.base[:, row, child]
        if level.looks:
            query = query + level.surroundings(level.features(self.look(row, child, self.around)))
        if level.index == 0 and self.returning:
            query = query + level.embedded_return(self.regions, self.cond, row, child, steps=self.steps)
        x = self.generator.read(level.embed(level.features(before)), query, child)
        if len(x) > 1:
            row = torch.cat([row + stream * len(self.flat) for stream in range(len(x))])
            child = child.repeat(len(x), 1)
        return streams(self.decoder(x.flatten(0, 1), row, child), self.sampler)

    def below(
        self,
        region: Int[Tensor, " m"],
        child: Int[Tensor, " m"],
        z: Float[Tensor, "g m d"],
        given: Int[Tensor, "b n h w"],
        limits: PatchLimits | None,
        noise: Float[Tensor, "b n k"],
    ) -> tuple[Regions, Condition]:
        """Some children as regions of the level below."""
        long_context = returned = None
        condition = replace(self.inside, vector=z.flatten(0, 1))  # of which cells look at the vector alone
        if not self.level.above_cells:  # a cell knows no echo
            condition = replace(self.inside.each(lambda x: x[:, region, child].flatten(0, 1)), vector=condition.vector)
            returned = self.level.returned_cells(self.regions, region, child, steps=self.steps)
            split = self.echoes  # cut once for all passes
            long_context = (
                self.level.long_context(self.regions, region, child, self.steps)
                if split is None
                else split[region, child]
            )
        parts = Regions(
            self.look(region, child, self.inner),
            given[region, child],
            long_context,
            returned,
            limits=None if limits is None else limits.at(region, child),
            noise=noise[region, child, INSIDE:],
        )
        return parts, condition

    def look(self, row: Tensor, child: Tensor, tables: tuple[Tensor, Tensor]) -> Int[Tensor, "*n h w"]:
        """Cells of the windows of some children, without those of later children that are not given."""
        row, (past, everything) = row[..., None, None], tables
        codes = self.flat[row, past[child]]
        if self.shown is None:
            return codes
        place = (row, everything[child])
        return torch.where(self.shown[place], self.flat[place], codes)

"""The AR sampler: children one after the other in scan order, several of them in a pass by Jacobi decoding."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fractalgen.model.absent import carried
from fractalgen.model.ar import Autoregressive
from fractalgen.model.grid import earlier, interior, surround, windows
from fractalgen.model.level import FractalLevel
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.sampling.recorder import Composed, Recorder, RegionSampler, StepLog
from fractalgen.model.sampling.state import LevelState
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
    state = ArState(level, regions, cond, sampler)
    recorder = ArRecorder(level, state.regions, state.undecided, log)
    count, device = len(state.grid), state.flat.device
    # children are filled one per pass where they are expensive or leave less room to the others
    one = state.alone or not level.above_cells
    silent = state.grid.split(state.roll).clone()  # what was given, and silence
    may = state.possible()
    if not one:
        state.guess_holds(state.grid.join(may[..., None, None]))
    rank = torch.arange(count, device=device)
    end = (may * (rank + 1)).amax(1)  # behind the last child that may sound
    last = (state.sounds[:, None] & may) & (rank == end[:, None] - 1)  # it sounds if all children before it are silent
    span = rank[:SPAN]
    begin = torch.where(end > 0, 0, count)  # the first child that is not final
    quiet = torch.ones_like(state.sounds)  # no final child was drawn to sound
    live = (end > 0).nonzero()[:, 0]  # regions that are not finished
    while len(live):
        # the gates of the next children of every region, if the guesses are right
        row, start = live[:, None], begin[live]
        child = start.clamp(max=count - len(span))[:, None] + span
        new = child >= start[:, None]
        if state.alone:
            may = state.possible()
        z = state.conditions(row, child)
        opened, chance = sampler.at(level.index, (child + 1) / count).gates(
            state.gates(z, row, child, new),
            state.noise[row, child, GATE],
            may[row, child] & new,
            state.filled[row, child],
        )
        forced = last[row, child]
        forced = forced & quiet[row] & ~(opened & ~forced).any(1, keepdim=True)
        opened, chance = opened | forced, chance.masked_fill(forced, 1.0).to(recorder.chances)
        recorder.chances[row, child] = torch.where(new, chance, recorder.chances[row, child])

        # what is inside the open ones: all cells, or the first child only where children are filled one by one
        fill = opened & (opened.cumsum(1) == 1) if one else opened
        patch = (row[..., None, None], state.own[child])
        guess = state.flat[patch]
        found = torch.where((opened | ~new)[..., None, None], guess, silent[row, child])
        number, slot = fill.nonzero(as_tuple=True)
        if len(number):
            place = live[number], child[number, slot]
            part = state.fill(below, place, state.below(*place, z[:, number, slot]), sampler, record)
            found[number, slot] = part.tokens.to(found)
            if record:
                recorder.keep(*place, part)
        state.flat[patch] = found

        # final are the children up to and including the first one that differs from its guess
        after = torch.where((found != guess).flatten(2).any(-1), child + 1, child[:, -1:] + 1)
        if one:
            after = torch.where(opened & ~fill, child, after)
        start = after.amin(1)
        quiet[live] &= ~(opened & (child < start[:, None])).any(1)
        going = start < end[live]
        begin[live] = torch.where(going, start, count)
        live = live[going]
        recorder.tell(begin)
    recorder.tell(begin)
    return recorder.finished(record)


class ArRecorder(Recorder):
    """A recorder of children that are decided in scan order: a step is a child, of all regions at once."""

    def __init__(
        self, level: FractalLevel, regions: Regions, undecided: Bool[Tensor, "b n"], log: StepLog | None
    ) -> None:
        super().__init__(level, regions, undecided, log)
        self.rank = torch.arange(undecided.shape[1], device=undecided.device)
        self.when = torch.where(undecided, self.rank, -1).to(self.when)
        self.asked = undecided.any(0).tolist() if log else []
        self.told = 0

    def tell(self, begin: Int[Tensor, " b"]) -> None:
        """Log the children that are certain in all regions now, ``begin`` being the first that is not."""
        if self.log is None:
            return
        certain = int(begin.amin())
        left = float((self.undecided & (self.rank >= begin[:, None])).float().mean())
        for child in range(self.told, certain):
            if self.asked[child]:
                step = self.log.add(child, 0)
                region = self.undecided[:, child].nonzero()[:, 0]
                self.when[region, child] = step
                self.log.progress(left)
                self.show(step, region, torch.full_like(region, child))
        self.told = certain


class ArState(LevelState):
    """The state of an AR level while it samples: the cells decided or guessed so far, and the key-value cache.

    ``flat`` (b, cells + 1) holds the canvas, with guesses ahead, and behind it one cell that is unknown; ``canvas`` is
    a view of it.
    """

    def __init__(self, level: FractalLevel, regions: Regions, cond: Condition, sampler: TokenSampler) -> None:
        super().__init__(level, regions, cond, sampler)
        given, shape, generator, grid = regions.given, regions.canvas.shape[1:], level.generator, self.grid
        assert given is not None
        assert isinstance(generator, Autoregressive)
        self.generator = generator
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
        self.around = (
            earlier(grid, level.margin, level.context, False, device),
            windows(grid, level.margin, level.context, device)[0],
        )
        self.inner = (
            earlier(grid, level.margin, level.child.margin, True, device),
            windows(grid, level.margin, level.child.margin, device)[0],
        )
        self.base = streams(level.base(cond, grid, sampler.kept), sampler) + level.embedded_context(regions)
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
            query = query + level.surroundings(level.features(self.seen(row, child, self.around)))
        if level.index == 0 and self.returning:
            query = query + level.embedded_return(self.regions, self.cond, row, child, steps=self.steps)
        x = self.generator.read(level.embed(level.features(before)), query, child)
        if len(x) > 1:
            row = torch.cat([row + stream * len(self.flat) for stream in range(len(x))])
            child = child.repeat(len(x), 1)
        return streams(self.decoder(x.flatten(0, 1), row, child), self.sampler)

    def below(
        self, region: Int[Tensor, " m"], child: Int[Tensor, " m"], z: Float[Tensor, "g m d"]
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
            self.look(region, child),
            self.given[region, child],
            long_context,
            returned,
            limits=None if self.limits is None else self.limits.at(region, child),
            noise=self.noise[region, child, INSIDE:],
        )
        return parts, condition

    def look(self, region: Int[Tensor, " m"], child: Int[Tensor, " m"]) -> Int[Tensor, "m h w"]:
        """Cells of some children and of the margin around them, as far as they are decided."""
        return self.seen(region, child, self.inner)

    def seen(self, row: Tensor, child: Tensor, tables: tuple[Tensor, Tensor]) -> Int[Tensor, "*n h w"]:
        """Cells of the windows of some children, without those of later children that are not given."""
        row, (past, everything) = row[..., None, None], tables
        codes = self.flat[row, past[child]]
        if self.shown is None:
            return codes
        place = (row, everything[child])
        return torch.where(self.shown[place], self.flat[place], codes)

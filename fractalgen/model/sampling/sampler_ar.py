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
from fractalgen.model.sampling.token_sampler import GATE, TokenSampler, streams
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
    count = len(state.grid)
    span = torch.arange(min(SPAN, count), device=state.flat.device)
    begin = torch.where(state.end > 0, 0, count)  # the first child of each region that is not final
    live = (state.end > 0).nonzero()[:, 0]  # regions that are not finished
    while len(live):
        # the gates of the next children of every region, if the guesses are right
        row, start = live[:, None], begin[live][:, None]
        child = start.clamp(max=count - len(span)) + span
        new = child >= start
        z = state.conditions(row, child)
        opened, chance = state.open(z, row, child, new)
        recorder.chances[row, child] = torch.where(new, chance.to(recorder.chances), recorder.chances[row, child])

        # what is inside the open ones: all cells, or the first child only where children are filled one by one
        fill = opened & (opened.cumsum(1) == 1) if state.one_by_one else opened
        patch = (row[..., None, None], state.own[child])
        guess = state.flat[patch]
        found = torch.where((opened | ~new)[..., None, None], guess, state.silent[row, child])
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
        if state.one_by_one:
            after = torch.where(opened & ~fill, child, after)
        final = after.amin(1)
        state.quiet[live] &= ~(opened & (child < final[:, None])).any(1)
        going = final < state.end[live]
        begin[live] = torch.where(going, final, count)
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
    a view of it.  ``silent`` (b, n, h, w): the children as they are where their gates stay shut.  ``one_by_one``: one
    child of a region is filled in a pass, because children are expensive or leave less room to the others.  ``end``
    (b): behind the last child that may sound.  ``quiet`` (b): no final child was drawn to sound.
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
        self.one_by_one = self.alone or not level.above_cells
        self.silent = grid.split(self.roll).clone()
        self.may = self.possible()
        if not self.one_by_one:
            self.guess_holds(grid.join(self.may[..., None, None]))
        rank = self.steps[:1]
        self.end = (self.may * (rank + 1)).amax(1)
        # it sounds if all children before it are silent
        self.last = (self.sounds[:, None] & self.may) & (rank == self.end[:, None] - 1)
        self.quiet = torch.ones_like(self.sounds)

    def guess_holds(self, free: Bool[Tensor, "b p t"]) -> None:
        """Guess that what sounds beside a region of cells is held for two steps more where a cell is ``free``."""
        top, past = self.level.margin.pitch, self.level.margin.past
        if past:
            left = self.canvas[:, top : self.canvas.shape[1] - top, past - 1, None]
            sounds = (left > SILENCE) & (left < self.level.unknown)
            self.roll[:, :, :2].masked_fill_(sounds & free[:, :, :2], HOLD)

    def open(
        self,
        z: Float[Tensor, "g r s d"],
        row: Int[Tensor, "r 1"],
        child: Int[Tensor, "r s"],
        asked: Bool[Tensor, "r s"],
    ) -> tuple[Bool[Tensor, "r s"], Float[Tensor, "r s"]]:
        """Which of the children that are ``asked`` sound, if the guesses before them are right, and how probably."""
        if self.alone:
            self.may = self.possible()
        opened, chance = self.sampler.at(self.level.index, (child + 1) / len(self.grid)).gates(
            self.gates(z, row, child, asked),
            self.noise[row, child, GATE],
            self.may[row, child] & asked,
            self.filled[row, child],
        )
        forced = self.last[row, child]
        forced = forced & self.quiet[row] & ~(opened & ~forced).any(1, keepdim=True)
        return opened | forced, chance.masked_fill(forced, 1.0)

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
        """Some children as regions of the level below, and their conditions."""
        vector = z.flatten(0, 1)
        if self.level.above_cells:  # a cell knows no echo, and looks at the vector alone
            return self.parts(region, child, None, None), replace(self.inside, vector=vector)
        if self.echoes is not None:  # cut once for all passes
            long_context: Tensor | None = self.echoes[region, child]
        else:
            long_context = self.level.long_context(self.regions, region, child, self.steps)
        returned = self.level.returned_cells(self.regions, region, child, steps=self.steps)
        inside = self.inside.each(lambda x: x[:, region, child].flatten(0, 1))
        return self.parts(region, child, long_context, returned), replace(inside, vector=vector)

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

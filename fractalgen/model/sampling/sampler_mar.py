"""The MAR sampler: several children at a time, in a random order or in scan order."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fractalgen.model.absent import carried
from fractalgen.model.grid import cut, interior, windows
from fractalgen.model.level import FractalLevel
from fractalgen.model.mar import MaskedAutoregressive
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.sampling.recorder import Composed, Recorder, RegionSampler, StepLog
from fractalgen.model.sampling.state import LevelState
from fractalgen.model.sampling.token_sampler import GATE, ORDER, TokenSampler, streams
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
    """Draw regions of a MAR level: an iteration decides the gates of some children; ``below`` samples the open ones.

    All children of an iteration are drawn from the same conditions.  ``batch_generate_size`` children of each region
    are filled together; these are the steps of the log.
    """
    state = MarState(level, regions, cond, sampler)
    recorder = Recorder(level, regions, state.undecided, log)
    iterations = len(state.grid) if state.alone else sampler.settings.num_iter_list[level.index]
    schedule = iterations, sampler.settings.mar_order
    steps = state.generator.steps(state.undecided, state.noise[..., ORDER], schedule)
    row, column = (torch.arange(size, device=steps.device) for size in steps.shape)
    quiet = torch.ones_like(state.sounds)  # no child was drawn to sound
    for iteration in range(iterations):
        target = steps == iteration
        if not target.any():
            continue
        # the gates of this iteration's children
        z = state.conditions(decided=steps < iteration)
        gates = state.gates(z, row[:, None], column.expand_as(steps), target)
        may = target & state.possible()
        state.undecided = state.undecided & ~target
        last = state.sounds & quiet & may.any(1) & ~state.possible().any(1)
        now = sampler.at(level.index, (iteration + 1) / iterations)
        opened, chance = now.gates(gates, state.noise[..., GATE], may, state.filled, last)
        quiet &= ~opened.any(1)
        recorder.chances = torch.where(target, chance.to(recorder.chances), recorder.chances)

        # what is inside the open ones
        region, child = opened.nonzero(as_tuple=True)
        parts, conditions = state.below(region, child, z)
        state.put(target.nonzero(as_tuple=True), SILENCE)
        batch = (target.cumsum(1) - 1) // sampler.settings.batch_generate_size
        for number in range(int(batch[target].max()) + 1):
            step = log.add(iteration, number) if log else iteration
            decided = target & (batch == number)
            recorder.when[decided] = step
            mine = batch[region, child] == number
            if mine.any():
                place = region[mine], child[mine]
                condition = conditions.each(lambda x, mine=mine: x[:, mine].flatten(0, 1))  # type: ignore[misc]
                part = state.fill(below, place, (parts[mine], condition), now, record)
                state.put(place, part.tokens)
                if record:
                    recorder.keep(*place, part)
            if log:
                log.progress(float(state.undecided.float().mean()))
                recorder.show(step, *decided.nonzero(as_tuple=True))
    return recorder.finished(record)


class MarState(LevelState):
    """The state of a MAR level while it samples: the cells decided so far are in the canvas of ``regions``."""

    def __init__(self, level: FractalLevel, regions: Regions, cond: Condition, sampler: TokenSampler) -> None:
        super().__init__(level, regions, cond, sampler)
        given, canvas, grid = regions.given, regions.canvas, self.grid
        assert given is not None
        assert isinstance(level.generator, MaskedAutoregressive)
        self.generator = level.generator
        self.flat, self.roll = canvas.view(len(canvas), -1), interior(canvas, level.margin)
        known = torch.where(given >= 0, given, level.unknown)
        absent = given == ABSENT
        if bool(absent.any()):  # nothing is known of steps that do not exist before their patch is decided
            decided = ~grid.join(self.undecided[..., None, None].expand_as(self.given)) & absent
            behind = SILENCE if self.absent is None else carried(given, absent[:, 0], level.steps)
            known = torch.where(decided, behind, known)
        self.roll.copy_(known)
        self.inner, _ = windows(grid, level.margin, level.child.margin, canvas.device)
        self.around, _ = windows(grid, level.margin, level.context, canvas.device)
        self.base = level.base(cond, grid, sampler.kept)
        self.embedded_context = level.embedded_context(regions)

    def conditions(self, decided: Bool[Tensor, "b n"]) -> Float[Tensor, "g b n d"]:
        """Conditions of all children from those that are decided, by guidance stream."""
        level = self.level
        content = level.embed(level.features(self.grid.split(self.roll)))
        context = level.surroundings(level.features(cut(self.regions.canvas, self.around))) + self.embedded_context
        content, context, sees = (x.repeat(self.sampler.streams, 1, 1) for x in (content, context, decided[:, None]))
        shown = level.embedded_returns(self.regions, self.cond)
        base = self.base + (shown.flatten(0, 1) if shown.ndim else shown)
        return streams(self.generator(content, base, context, sees), self.sampler)

    def below(
        self, region: Int[Tensor, " m"], child: Int[Tensor, " m"], z: Float[Tensor, "g b n d"]
    ) -> tuple[Regions, Condition]:
        """Some children as regions of the level below, and their conditions by guidance stream, (g, m, ...)."""
        returned = None if self.level.above_cells else self.level.returned_cells(self.regions, region, child)
        parts = self.parts(region, child, self.level.long_context(self.regions, region, child), returned)
        return parts, replace(self.inside, vector=z).each(lambda x: x[:, region, child])

    def look(self, region: Int[Tensor, " m"], child: Int[Tensor, " m"]) -> Int[Tensor, "m h w"]:
        """Cells of some children and of the margin around them."""
        return self.flat[region[:, None, None], self.inner[child]]

    def put(self, place: tuple[Tensor, ...], tokens: Int[Tensor, "m h w"] | int) -> None:
        """Decide the cells of some children, whose regions and numbers are ``place``."""
        region, child = place
        tokens = tokens.to(self.flat) if isinstance(tokens, Tensor) else tokens
        self.flat[region[:, None, None], self.own[child]] = tokens

"""What is written down while a roll is drawn."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fractalgen.model.grid import Grid, interior
from fractalgen.model.level import FractalLevel
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.sampling.token_sampler import TokenSampler
from fractalgen.model.velocity_head import VelocityHead
from fractalgen.music.tokens import SILENCE


class Decisions(NamedTuple):
    """What is recorded of regions: a step plane for each level from this one down, and chances.

    The chance of a cell is how probable it was that the smallest patch around it that was asked about would sound,
    given that the region does.
    """

    planes: Int[Tensor, "b levels p t"]
    chances: Float[Tensor, "b p t"]


@dataclass
class Composed:
    """What sampling a region returns: its tokens and, if recorded, how they were decided."""

    tokens: Int[Tensor, "b p t"]
    decisions: Decisions | None = None


@dataclass(frozen=True, eq=False)
class DecidedPatch:
    """A patch of the first level, at the moment at which it is decided.

    ``sample``: number of the roll.  ``step``: number of the first level's step, as in a trace.  ``pitch``, ``time``:
    its lowest pitch and first time step.  ``tokens``: (pitches, steps), -1 on cells that were given.  ``planes``:
    (levels - 1, pitches, steps), the local step at which each lower level decided the child around a cell, -1 where it
    never went.
    """

    sample: int
    step: int
    pitch: int
    time: int
    tokens: npt.NDArray[np.integer]
    planes: npt.NDArray[np.integer]


class StepLog:
    """The chronology of the first level: (iteration, batch) of every step and when it ended, in seconds.

    A long piece is composed window by window; iterations count on from one to the next.  ``watch`` is called with each
    patch as soon as it is decided.
    """

    def __init__(
        self,
        total: int,
        progress: Callable[[int, int], None] | None = None,
        watch: Callable[[DecidedPatch], None] | None = None,
    ) -> None:
        self.steps: list[tuple[int, int]] = []
        self.seconds: list[float] = []
        self.ranks: Sequence[int] | None = None
        self.offset, self.total, self.here, self.later = 0, total, total, 0
        self.began, self.report, self.watch, self.start = time.perf_counter(), progress, watch, 0

    def begin_window(self, ranks: Sequence[int] | None, here: int, later: int, start: int = 0) -> None:
        """Of ``total`` patches, ``here`` lie in this window, which begins at step ``start``, and ``later`` after it.

        ``ranks``: the rank in the piece of each patch of the window, where iterations are patches (AR).
        """
        self.ranks, self.offset = ranks, self.steps[-1][0] + 1 if self.steps else 0
        self.here, self.later, self.start = here, later, start

    def add(self, iteration: int, batch: int) -> int:
        """Begin a step; returns its number."""
        self.steps.append((self.offset + iteration if self.ranks is None else self.ranks[iteration], batch))
        return len(self.steps) - 1

    def progress(self, left: float) -> None:
        """End a step: this share of the window's patches is not decided."""
        self.seconds.append(time.perf_counter() - self.began)
        if self.report:
            self.report(self.total - self.later - round(left * self.here), self.total)

    def decided(
        self,
        step: int,
        grid: Grid,
        place: Int[Tensor, "m 2"],
        tokens: Int[Tensor, "m h w"],
        planes: Int[Tensor, "m levels h w"],
    ) -> None:
        """Show the watcher, which there must be, patches by (sample, number of the patch) that a step has decided."""
        assert self.watch is not None
        cells, steps = tokens.cpu().numpy(), planes.cpu().numpy()
        for (sample, patch), inside, inner in zip(place.tolist(), cells, steps, strict=True):
            pitch, first = grid.corner(patch)
            self.watch(DecidedPatch(sample, step, pitch, self.start + first, inside, inner))

    def unwatched(self) -> StepLog:
        """The same log, which shows nothing."""
        log = copy.copy(self)
        log.watch = None
        return log


class Recorder:
    """Records for each child of a level when it was decided, how probably it sounds, and what is inside it.

    ``when`` (b, n): the step, -1 where a child was not decided; ``chances`` (b, n).
    """

    def __init__(
        self, level: FractalLevel, regions: Regions, undecided: Bool[Tensor, "b n"], log: StepLog | None
    ) -> None:
        assert regions.given is not None
        self.undecided, self.level, self.regions, self.log = undecided, level, regions, log
        self.grid, device = level.grid(regions.canvas), undecided.device
        self.given, self.roll = self.grid.split(regions.given), interior(regions.canvas, level.margin)
        self.when = torch.full(undecided.shape, -1, dtype=torch.int32, device=device)
        self.chances = torch.zeros(undecided.shape, device=device)
        self.inner: Decisions | None = None  # cells leave nothing to be noted inside them
        if not level.above_cells:
            size = (level.patch, level.steps)
            planes = torch.full((*undecided.shape, level.height - 1, *size), -1, dtype=torch.int32, device=device)
            self.inner = Decisions(planes, self.chances.new_ones(*undecided.shape, *size))

    def keep(self, region: Int[Tensor, " m"], child: Int[Tensor, " m"], part: Composed) -> None:
        """Note what is inside of children that were filled."""
        if self.inner is not None:
            assert part.decisions is not None
            for store, value in zip(self.inner, part.decisions, strict=True):
                store[region, child] = value

    def show(self, step: int, region: Int[Tensor, " m"], child: Int[Tensor, " m"]) -> None:
        """Show children that a step decided to who watches."""
        if self.log is not None and self.log.watch and self.inner is not None:
            tokens = torch.where(self.given[region, child] < 0, self.grid.split(self.roll)[region, child], -1)
            self.log.decided(step, self.grid, torch.stack([region, child], 1), tokens, self.inner.planes[region, child])

    def finished(self, record: bool) -> Composed:
        """The regions as they are now, and if asked to ``record``, what was recorded of their children."""
        given = self.regions.given
        assert given is not None
        tokens = torch.where(given >= 0, given, self.roll.to(given))
        if not record:
            return Composed(tokens)
        when, chances = self.when[..., None, None, None], self.chances[..., None, None]
        if self.inner is None:
            sounds = self.undecided & (self.grid.split(self.roll) > SILENCE).flatten(2).any(-1)
            planes = torch.cat([when, (sounds.to(torch.int32) - 1)[..., None, None, None]], 2)
        else:
            planes = torch.cat([when.expand(-1, -1, 1, *self.inner.planes.shape[3:]), self.inner.planes], 2)
            chances = chances * self.inner.chances
        planes = self.grid.join(planes.transpose(1, 2).flatten(0, 1)).unflatten(0, (-1, self.level.height))
        return Composed(tokens, Decisions(planes, self.grid.join(chances)))


RegionSampler = Callable[[FractalLevel | VelocityHead, Regions, Condition, TokenSampler, bool], Composed]
"""Draws regions of a level and everything below them, and records it if asked to."""

LevelSampler = Callable[[FractalLevel, Regions, Condition, TokenSampler, RegionSampler, bool, StepLog | None], Composed]
"""Draws regions of a level whose generator is of one kind; the region sampler draws their children."""

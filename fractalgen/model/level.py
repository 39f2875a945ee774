"""The recursion: a level asks its generator what each child is to be and hands what is not silent to the child.

``-log p(region)`` is the sum over children of the gate terms (is the child silent?) plus, for children that are not
silent, the child's own terms.  Li, Sun, Fan, He: Fractal Generative Models (TMLR 2025, arXiv 2502.17437).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fractalgen.config import LevelConfig, ModelConfig
from fractalgen.model.degrees import DEGREES, raised
from fractalgen.model.embeddings import CellFeatures, Place, mlp
from fractalgen.model.generators import GENERATORS
from fractalgen.model.grid import Grid, Margin, columns_and_rows, cut, interior, surround, windows
from fractalgen.model.harmony import Harmony
from fractalgen.model.long_context import find_long_context, find_returned
from fractalgen.model.losses import LossTerms, gate_nll, wide
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.schedule import Schedule
from fractalgen.model.teacher_forcing import TeacherForcing
from fractalgen.model.velocity_head import VelocityHead
from fractalgen.music.form import NEW
from fractalgen.music.plan import MOST_LEFT
from fractalgen.music.tokens import ABSENT, NO_HOLD, SILENCE


class FractalLevel(nn.Module):
    """A grid of child patches: a generator says what each child is to be, a gate whether it is silent at all."""

    def __init__(
        self, config: LevelConfig, parent_width: int, child: FractalLevel | VelocityHead, model: ModelConfig, index: int
    ) -> None:
        super().__init__()
        self.name, self.index, self.config = f"L{index}", index, config
        self.patch, self.steps = model.levels[index + 1].region  # pitches and steps of a child
        self.rows, self.columns = config.patch // self.patch, config.region[1] // self.steps
        self.scan_order = model.scan_order
        self.max_children = model.max_children[index + 1] if model.max_children else 0
        self.unknown = model.vocabulary
        self.context = Margin(*config.context)
        self.margin: Margin = self.context.union(child.margin)
        self.features = CellFeatures(model.velocity_bins)
        cells = self.patch * self.steps
        self.embed = mlp(4 * cells, config.width)
        self.generator = GENERATORS[config.generator](config, model.dropout)
        self.sees_future = self.generator.sees_future or model.future_context  # known cells, wherever they are
        self.looks = any(self.context) or self.sees_future
        if self.looks:
            window = (self.patch + 2 * self.context.pitch) * (self.steps + self.context.past + self.context.future)
            self.surroundings = mlp(4 * window, config.width)
        self.distances = model.echoes
        if index > 0 and self.distances:
            self.recall = mlp(4 * len(self.distances) * cells, config.width)
        # below the first level columns are as far apart as rows: what is learned on one grid serves on finer ones
        self.place = Place(self.rows, config.width, self.rows / self.columns if index else 1.0)
        self.cond = nn.Linear(parent_width, config.width)
        self.degree = None
        if "key" in model.label_names:
            self.degree = nn.Parameter(torch.zeros(DEGREES, config.width))
        self.harmony = None
        if model.plan_width:  # all that is told of a plan weighs nothing at first
            self.harmony = Harmony(self.patch, self.steps, model.column, config.width)
            if index > 0:
                self.recall_return = mlp(4 * cells, config.width)
                for parameter in self.recall_return[2].parameters():
                    nn.init.zeros_(parameter)
            else:
                self.returned = nn.Linear(config.width, config.width, bias=False)
                nn.init.zeros_(self.returned.weight)
                self.told = nn.Parameter(torch.zeros(3, config.width))  # not said, new, comes back
                self.left = nn.Parameter(torch.zeros(1 + MOST_LEFT, config.width))
        self.gate = nn.Linear(config.width, 1)
        self.child = child
        self.height: int = 1 + child.height  # levels from here down
        self.numbers_per_child = 2 + child.numbers  # random numbers: see fractalgen.model.sampling.token_sampler
        self.numbers: int = self.rows * self.columns * self.numbers_per_child

    def grid(self, canvas: Tensor) -> Grid:
        """The grid of this level's patches in such canvases."""
        cols = (canvas.shape[2] - self.margin.past - self.margin.future) // self.steps
        return Grid(self.rows, cols, self.patch, self.steps, self.scan_order)

    @property
    def above_cells(self) -> bool:
        """Whether its children are single cells."""
        return self.height == 2

    def places(self, grid: Grid) -> Float[Tensor, "k n d"]:
        """What every child knows of its place, for each degree of the key that the region's lowest pitch may be."""
        place: Tensor = self.place(grid)
        if self.degree is None:
            return place[None]
        degree = torch.arange(DEGREES, device=place.device)[:, None]
        return place + F.embedding(raised(degree, grid.lowest(place.device)), self.degree)

    def base(
        self, cond: Condition, grid: Grid, kept: dict[tuple[int, Grid], Tensor] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Place and condition of every child: the degree of its lowest pitch in the key asked for, and the plan.

        ``kept``: where places are looked up, or put if they are missing.
        """
        places = None if kept is None else kept.get((self.index, grid))
        if places is None:
            places = self.places(grid)
            if kept is not None:
                kept[self.index, grid] = places
        if self.degree is not None:
            places = F.embedding(cond.degree, places.flatten(1)).unflatten(1, (len(grid), -1))
        base = places + self.cond(cond.vector)[:, None]
        if self.harmony is None:
            return base
        base = base + self.harmony(cond.chords, cond.lowest, grid)
        if self.index > 0:
            return base
        of_column = F.embedding((cond.returns - NEW + 1).clamp(max=2), self.told) + F.embedding(cond.left, self.left)
        return base + of_column[:, columns_and_rows(grid, base.device)[0]]

    def inside(self, cond: Condition, grid: Grid, vector: Float[Tensor, "b n d"]) -> Condition:
        """The conditions (b, n, ...) of all children as regions; ``vector``: their vectors."""
        lowest = grid.lowest(cond.degree.device)
        degree, pitch = raised(cond.degree[:, None], lowest), cond.lowest[:, None] + lowest
        nothing = cond.returns.new_zeros(*degree.shape, 0)
        if self.harmony is None or self.above_cells:  # a cell looks at neither chords nor returns
            return Condition(vector, degree, pitch, nothing, nothing, nothing)
        returns = cond.returns[:, columns_and_rows(grid, lowest.device)[0]] if self.index == 0 else cond.returns
        returns = returns[..., None] if self.index == 0 else returns[:, None].expand(-1, len(grid), -1)
        return Condition(vector, degree, pitch, self.harmony.below(cond.chords, grid), returns, nothing)

    # ------------------------------------------------------------------------------------------------ likelihood

    def look(self, regions: Regions, sees: Bool[Tensor, "b i n"]) -> Float[Tensor, "b n d"]:
        """Context of every child: its window of the canvas without cells that it may not see."""
        canvas = regions.canvas
        if not self.looks:
            return self.gate.weight.new_zeros(())
        index, owner = windows(self.grid(canvas), self.margin, self.context, canvas.device)
        row = torch.arange(len(index), device=canvas.device)[:, None, None] if sees.shape[1] > 1 else 0
        visible = F.pad(sees, (0, 1), value=True)[:, row, owner]
        if regions.given is not None and self.sees_future:
            visible = visible | cut(surround(regions.given, self.margin, outside=-1) >= 0, index)
        return self.surroundings(self.features(torch.where(visible, cut(canvas, index), self.unknown)))

    def embedded_context(self, regions: Regions) -> Float[Tensor, "b n d"]:
        """The embedded long context of every child (below the first level, whose children see each other)."""
        if regions.long_context is None:
            return self.gate.weight.new_zeros(())
        return self.recall(self.features(self.grid(regions.canvas).split_layers(regions.long_context)).flatten(2))

    def embedded_return(
        self, regions: Regions, cond: Condition, region: Tensor, child: Tensor, **decided: Tensor
    ) -> Float[Tensor, "s *m d"]:
        """What some children, each a (region, child), are shown of the bar that comes back, by guidance stream.

        ``decided``: ``steps`` or ``sees``, see :func:`.find_returned`.
        """
        cells = self.returned_cells(regions, region, child, **decided)
        if cells is None:
            return self.gate.weight.new_zeros(())
        returns = cond.returns.unflatten(0, (-1, len(regions.canvas)))
        if self.index > 0:
            embedded: Tensor = self.recall_return(self.features(cells))
            told = returns[:, region, 0]
        else:
            embedded = self.returned(self.embed(self.features(cells)))
            told = returns[:, region, columns_and_rows(self.grid(regions.canvas), region.device)[0][child]]
        return embedded * (told >= 0)[..., None].to(embedded)

    def embedded_returns(self, regions: Regions, cond: Condition, **decided: Tensor) -> Float[Tensor, "s *b n d"]:
        """What all children of all regions are shown of the bar that comes back."""
        region = torch.arange(len(regions.canvas), device=regions.canvas.device)[:, None]
        child = torch.arange(len(self.grid(regions.canvas)), device=regions.canvas.device)
        return self.embedded_return(regions, cond, region, child, **decided)

    def returned_cells(
        self, regions: Regions, region: Tensor, child: Tensor, **decided: Tensor
    ) -> Int[Tensor, "*m h w"] | None:
        """The cells of the bar that comes back at the places of some children; None if there are none."""
        if self.harmony is None or regions.returned is None:
            return None
        grid = self.grid(regions.canvas)
        if self.index > 0:
            return grid.split(regions.returned)[region, child]
        assert regions.returns is not None
        given = regions.given if self.sees_future else None
        roll = interior(regions.canvas, self.margin)
        shown = (regions.returned, regions.returns)
        return find_returned(grid, roll, *shown, region, child, self.unknown, given=given, **decided)

    def long_context(
        self, regions: Regions, region: Int[Tensor, " m"], child: Int[Tensor, " m"], steps: Tensor | None = None
    ) -> Int[Tensor, "m e h w"] | None:
        """The long context of some children; ``steps``: see :func:`find_long_context`."""
        grid = self.grid(regions.canvas)
        if not self.distances:
            return None
        if regions.long_context is not None:
            return grid.split_layers(regions.long_context)[region, child]
        given = regions.given if self.sees_future else None
        roll = interior(regions.canvas, self.margin)
        return find_long_context(grid, roll, self.distances, region, child, self.unknown, steps, given)

    def nll(
        self,
        regions: Regions,
        cond: Condition,
        crop: Int[Tensor, " b"],
        weight: Float[Tensor, " b"],
        losses: LossTerms,
        schedule: Schedule | None = None,
    ) -> None:
        """Add up the NLL of regions: this level's gates and, through the child, everything below them.

        The canvas holds the region (complete) and its surroundings as far as they are known.  Below the first level
        the region is known not to be silent.  ``schedule``: see :meth:`.MaskedAutoregressive.teacher_forcing`.
        """
        grid, given = self.grid(regions.canvas), regions.given
        patches = grid.split(interior(regions.canvas, self.margin))
        absent = self.absent_cells(given)
        real = patches if absent is None else patches.masked_fill(grid.split(absent), SILENCE)
        active = real.flatten(2).any(-1)
        undecided, filled, sounds = self.tasks(regions, grid)
        content, base = self.embed(self.features(patches)), self.base(cond, grid)
        forcing = self.generator.teacher_forcing(
            undecided, None if schedule is None else (schedule.iterations[self.index], schedule.order)
        )
        z = self.conditions(regions, cond, content, base, forcing)
        gates = wide(self.gate(z)[..., 0])
        if (ended := self.ended(given, grid)) is not None:
            region, child = ended.nonzero(as_tuple=True)
            share = self.struck_share(
                z[region, child][None], self.child_canvases(regions, region, child, forcing.steps, absent)
            )
            gates = gates.index_put((region, child), share[0], accumulate=True)
        weight = weight * forcing.weight
        nats = gate_nll(gates, active, forcing.target & ~filled, forcing.final, sounds)
        for kind, which in (("sound", active), ("silence", ~active)):
            losses.add(f"{self.name}/gate", (nats * which).sum(1), crop, weight, kind)

        region, child = (active & forcing.target).nonzero(as_tuple=True)
        if losses.subsample and 0 < self.max_children < len(region):  # a random subset, weighted up: unbiased
            weight = weight * (len(region) / self.max_children)
            chosen = torch.randperm(len(region), device=region.device)[: self.max_children]
            region, child = region[chosen], child[chosen]
        parts = Regions(
            self.child_canvases(regions, region, child, forcing.steps, absent),
            None if given is None else grid.split(given)[region, child],
            self.long_context(regions, region, child, forcing.steps),
            self.returned_cells(regions, region, child, steps=forcing.steps) if not self.above_cells else None,
        )
        below = self.inside(cond, grid, z).each(lambda x: x[region, child])
        self.child.nll(parts, below, crop[region], weight[region], losses, schedule)

    def child_canvases(
        self,
        regions: Regions,
        region: Int[Tensor, " m"],
        child: Int[Tensor, " m"],
        steps: Int[Tensor, "b n"],
        absent: Bool[Tensor, "b p t"] | None,
    ) -> Int[Tensor, "m h w"]:
        """Some children and their surroundings: known where given, or decided in a step before the child's own.

        ``absent``: see :meth:`absent_cells`.
        """
        canvas, given = regions.canvas, regions.given
        index, owner = (
            table[child] for table in windows(self.grid(canvas), self.margin, self.child.margin, canvas.device)
        )
        row = region[:, None, None]
        own = owner == child[:, None, None]
        steps = F.pad(steps, (0, 1), value=-1)
        visible = own | (steps[row, owner] < steps[region, child][:, None, None])
        if given is not None and self.sees_future:
            visible = visible | (surround(given, self.margin, outside=-1).flatten(1)[row, index] >= 0)
        cells = torch.where(visible, canvas.flatten(1)[row, index], self.unknown)
        if absent is not None:
            cells = cells.masked_fill(own & surround(absent, self.margin, outside=0).flatten(1)[row, index], SILENCE)
        return cells

    def conditions(
        self,
        regions: Regions,
        cond: Condition,
        content: Float[Tensor, "b n d"],
        base: Float[Tensor, "b n d"],
        forcing: TeacherForcing,
    ) -> Float[Tensor, "b n d"]:
        """Condition of every child from the embedded children that it may see and the cells around it."""
        embedded_context = self.embedded_context(regions)
        z = torch.zeros_like(content)
        for step in forcing.passes:
            shown = self.embedded_returns(regions, cond, sees=step.sees)
            here = base + (shown[0] if shown.ndim else shown)
            found = self.generator(content, here, self.look(regions, step.sees) + embedded_context, step.sees)
            z = found if step.target is None else torch.where(step.target[..., None], found, z)
        return z

    def absent_cells(self, given: Int[Tensor, "b p t"] | None) -> Bool[Tensor, "b p t"] | None:
        """In the first level the cells of steps that do not exist; None if all do.  Below it they are silent."""
        if self.index > 0 or given is None or not bool((given == ABSENT).any()):
            return None
        return given == ABSENT

    def absent_steps(self, given: Int[Tensor, "b p t"], grid: Grid) -> Bool[Tensor, "b n w"] | None:
        """The steps of each child that do not exist; None if all do."""
        absent = self.absent_cells(given)
        return None if absent is None else grid.split(absent)[:, :, 0]

    def ended(self, given: Int[Tensor, "b p t"] | None, grid: Grid) -> Bool[Tensor, "b n"] | None:
        """Children that are cells in which a hold is ruled out; None if there are none."""
        if given is None or not self.above_cells or not bool((given == NO_HOLD).any()):
            return None
        return grid.split(given).flatten(2)[..., 0] == NO_HOLD

    def struck_share(self, z: Float[Tensor, "s m d"], canvas: Int[Tensor, "m 1 2"]) -> Float[Tensor, "s m"]:
        """What the gates of cells of :meth:`ended` change by: log odds of a cell that is struck, or else silent."""
        assert isinstance(self.child, VelocityHead)
        return self.child.struck_share(z, canvas)

    def tasks(self, regions: Regions, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """Children with a cell to decide (b, n), children known to sound (b, n), regions that must not be silent (b).

        Below the first level a region is visited only when it sounds, which known cells may have settled already.
        """
        batch, count = len(regions.canvas), len(grid)
        below = torch.full((batch,), self.index > 0, device=regions.canvas.device)
        if regions.given is None:
            return below[:, None].new_ones(batch, count), below[:, None].new_zeros(batch, count), below
        given = grid.split(regions.given).flatten(2)
        filled = (given > SILENCE).any(-1)
        return ((given < 0) & (given != ABSENT)).any(-1), filled, below & ~filled.any(1)

"""The recursion: a level asks its generator what each child is to be and hands what is not silent to the child.

``-log p(region)`` is the sum over children of the gate terms (is the child silent?) plus, for children that are not
silent, the child's own terms.  Li, Sun, Fan, He: Fractal Generative Models (TMLR 2025, arXiv 2502.17437).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fractalgen.config import LevelConfig, ModelConfig
from fractalgen.model.ar import Autoregressive
from fractalgen.model.grid import Grid, Margin, cut, interior, windows
from fractalgen.model.mar import MaskedAutoregressive
from fractalgen.model.parts import (
    HOLD,
    ONSET,
    SILENCE,
    CellFeatures,
    Composed,
    Ledger,
    Place,
    StepLog,
    mlp,
    streams,
)
from fractalgen.model.transformer import Transformer
from fractalgen.sampling import Draw, gate_nll, wide


class VelocityHead(nn.Module):
    """The last level: one cell that is known to sound.  The gate above has ruled silence out.

    ``ar``: the articulation (hold or onset), then for an onset its velocity; ``mar``: both as one categorical.
    A hold after a cell known to be silent has probability zero, so autoregressive levels never leave an orphan.
    """

    margin = Margin(past=1)
    height = 1

    def __init__(self, config: LevelConfig, parent_width: int, model: ModelConfig, index: int) -> None:
        super().__init__()
        self.name, self.joint = f"L{index}", config.generator == "mar"
        self.cond = nn.Linear(parent_width, config.width)
        self.transformer = Transformer(config.width, config.depth, config.heads, model.dropout)
        if self.joint:
            self.token = nn.Linear(config.width, 1 + model.velocity_bins)
        else:
            self.articulation = nn.Linear(config.width, 2)
            self.struck = nn.Parameter(0.02 * torch.randn(config.width))
            self.velocity = nn.Linear(config.width, model.velocity_bins)

    def first(self, canvas: Int[Tensor, "m 1 2"], cond: Float[Tensor, "sm d"]) -> tuple[Tensor, Tensor]:
        """Logits of the first decision, whose entry 0 is the hold, and the embedded condition."""
        x = self.cond(cond)
        head = self.token if self.joint else self.articulation
        logits = head(self.transformer(x[:, None], causal=True)[:, 0])
        orphan = (canvas[:, 0, 0] == SILENCE).repeat(len(x) // max(len(canvas), 1))
        return torch.cat([logits[:, :1].masked_fill(orphan[:, None], float("-inf")), logits[:, 1:]], 1), x

    def velocities(self, x: Float[Tensor, "m d"]) -> Float[Tensor, "m v"]:
        """Velocity logits of struck cells."""
        return self.velocity(self.transformer(torch.stack([x, x + self.struck], 1), causal=True)[:, 1])

    def nll(
        self,
        canvas: Int[Tensor, "m 1 2"],
        cond: Float[Tensor, "m d"],
        crop: Int[Tensor, " m"],
        weight: Float[Tensor, " m"],
        ledger: Ledger,
        iterations: tuple[int, ...] | None = None,
    ) -> None:
        """Book the NLL of cells that sound."""
        token = canvas[:, 0, 1].long()
        logits, x = self.first(canvas, cond)
        choice = token - HOLD if self.joint else (token >= ONSET).long()
        nats = F.cross_entropy(wide(logits), choice, reduction="none")
        ledger.add(f"{self.name}/{'token' if self.joint else 'articulation'}", nats, crop, weight)
        if not self.joint:
            onset = token >= ONSET
            nats = F.cross_entropy(wide(self.velocities(x[onset])), token[onset] - ONSET, reduction="none")
            ledger.add(f"{self.name}/velocity", nats, crop[onset], weight[onset])

    def sample(
        self,
        canvas: Int[Tensor, "m 1 2"],
        cond: Float[Tensor, "sm d"],
        given: Int[Tensor, "m 1 1"],
        sounds: Bool[Tensor, " m"],
        draw: Draw,
        record: bool,
    ) -> Composed:
        """Draw cells that sound."""
        draw = draw.at(1.0)
        logits, x = self.first(canvas, cond)
        choice = draw.categorical(streams(logits, draw))
        if not self.joint:
            onset = choice == 1
            if onset.any():
                struck = self.velocities(streams(x, draw)[:, onset].flatten(0, 1))
                choice[onset] += draw.categorical(streams(struck, draw))
        tokens = (choice + HOLD).view(-1, 1, 1)
        return Composed(tokens, torch.zeros_like(tokens, dtype=torch.int16)[:, None] if record else None)


class FractalLevel(nn.Module):
    """A grid of child patches: a generator says what each child is to be, a gate whether it is silent at all."""

    def __init__(
        self, config: LevelConfig, parent_width: int, child: FractalLevel | VelocityHead, model: ModelConfig, index: int
    ) -> None:
        super().__init__()
        self.name, self.index, self.config = f"L{index}", index, config
        self.patch = model.levels[index + 1].patch
        self.rows = config.patch // self.patch
        self.scan_order = model.scan_order
        self.max_children = model.max_children[index + 1] if model.max_children else 0
        self.unknown = model.vocabulary
        self.context = Margin(*config.context)
        self.margin: Margin = self.context.union(child.margin)
        self.features = CellFeatures(model.velocity_bins)
        self.embed = mlp(4 * self.patch**2, config.width)
        if any(self.context):
            window = (self.patch + 2 * self.context.pitch) * (self.patch + self.context.past + self.context.future)
            self.surroundings = mlp(4 * window, config.width)
        self.place = Place(self.rows, config.width)
        self.cond = nn.Linear(parent_width, config.width)
        generator = Autoregressive if config.generator == "ar" else MaskedAutoregressive
        self.generator = generator(config, model.dropout)
        self.gate = nn.Linear(config.width, 1)
        self.child = child
        self.height: int = 1 + child.height  # levels from here down

    def grid(self, canvas: Tensor) -> Grid:
        """The grid of this level's patches in such canvases."""
        cols = (canvas.shape[2] - self.margin.past - self.margin.future) // self.patch
        return Grid(self.rows, cols, self.patch, self.scan_order)

    # ------------------------------------------------------------------------------------------------ likelihood

    def look(self, canvas: Int[Tensor, "b ch cw"], sees: Bool[Tensor, "b i n"]) -> Float[Tensor, "b n d"]:
        """Context of every child: its window of the canvas, without the children that it may not see."""
        if not any(self.context):
            return canvas.new_zeros((), dtype=self.gate.weight.dtype)
        index, owner = windows(self.grid(canvas), self.margin, self.context, canvas.device)
        row = torch.arange(len(index), device=canvas.device)[:, None, None] if sees.shape[1] > 1 else 0
        visible = F.pad(sees, (0, 1), value=True)[:, row, owner]
        return self.surroundings(self.features(torch.where(visible, cut(canvas, index), self.unknown)))

    def nll(
        self,
        canvas: Int[Tensor, "b ch cw"],
        cond: Float[Tensor, "b d"],
        crop: Int[Tensor, " b"],
        weight: Float[Tensor, " b"],
        ledger: Ledger,
        iterations: tuple[int, ...] | None = None,
    ) -> None:
        """Book the NLL of regions: this level's gates and, through the child, everything below them.

        ``canvas`` holds the region (complete) and its surroundings as far as they are known.  Below the first level
        the region is known not to be silent.  ``iterations``: see :meth:`MaskedAutoregressive.teach`.
        """
        grid = self.grid(canvas)
        patches = grid.split(interior(canvas, self.margin))
        active = patches.flatten(2).any(-1)
        base = self.place(grid) + self.cond(cond)[:, None]
        lesson = self.generator.teach(
            self.embed(self.features(patches)),
            base,
            lambda sees: self.look(canvas, sees),
            None if iterations is None else iterations[self.index],
        )
        gates = wide(self.gate(lesson.z)[..., 0])
        weight = weight * lesson.weight
        nats = gate_nll(gates, active, lesson.target, lesson.final, not_all_silent=self.index > 0)
        ledger.add(f"{self.name}/gate", nats, crop, weight)

        region, child = (active & lesson.target).nonzero(as_tuple=True)
        if self.training and 0 < self.max_children < len(region):  # a random subset, weighted up: unbiased
            weight = weight * (len(region) / self.max_children)
            chosen = torch.randperm(len(region), device=region.device)[: self.max_children]
            region, child = region[chosen], child[chosen]
        index, owner = windows(grid, self.margin, self.child.margin, canvas.device)
        steps = F.pad(lesson.steps, (0, 1), value=-1)
        own = owner[child] == child[:, None, None]
        before = steps[region[:, None, None], owner[child]] < steps[region, child][:, None, None]
        cells = canvas.flatten(1)[region[:, None, None], index[child]]
        cells = torch.where(own | before, cells, self.unknown)
        self.child.nll(cells, lesson.z[region, child], crop[region], weight[region], ledger, iterations)

    # -------------------------------------------------------------------------------------------------- sampling

    @torch.no_grad()
    def sample(
        self,
        canvas: Int[Tensor, "b ch cw"],
        cond: Float[Tensor, "sb d"],
        given: Int[Tensor, "b p t"],
        sounds: Bool[Tensor, " b"],
        draw: Draw,
        record: bool,
        log: StepLog | None = None,
    ) -> Composed:
        """Draw regions: decide the gates step by step and let the child fill what is not silent.

        ``canvas`` comes with an interior of UNKNOWN and is written to.  ``given`` holds cells decided beforehand
        (-1 elsewhere), which come out as they went in.  ``sounds`` marks regions that must not come out silent.
        """
        grid = self.grid(canvas)
        given_patches = grid.split(given)
        fixed = (given_patches >= 0).flatten(2).all(-1)
        filled = (given_patches > SILENCE).flatten(2).any(-1)
        undecided, silent = ~fixed, ~filled.any(1)
        own, _ = windows(grid, self.margin, Margin(), canvas.device)
        around, _ = windows(grid, self.margin, self.child.margin, canvas.device)
        flat = canvas.view(len(canvas), -1)
        planes = None
        if record:
            shape = (*given_patches.shape[:2], self.height, self.patch, self.patch)
            planes = torch.full(shape, -1, dtype=torch.int16, device=canvas.device)

        def reveal(children: Tensor) -> None:
            region, slot = fixed[:, children].nonzero(as_tuple=True)
            child = children[slot]
            flat[region[:, None, None], own[child]] = given_patches[region, child].to(flat)

        if self.generator.sees_ahead:
            reveal(torch.arange(len(own), device=canvas.device))
        read = _Reader(self, canvas, cond, grid, draw.streams)
        iterations = draw.settings.num_iter_list[self.index]
        total = len(grid) if self.config.generator == "ar" else iterations
        for step in self.generator.walk(read, undecided, iterations, draw):
            dice = draw.at((step.iteration + 1) / total)
            undecided[:, step.children] &= ~step.target
            last = sounds & silent & step.target.any(1) & ~undecided.any(1)
            opened = dice.gates(streams(self.gate(step.z)[..., 0], draw), step.target, filled[:, step.children], last)
            silent = silent & ~opened.any(1)
            reveal(step.children)

            region, slot = step.target.nonzero(as_tuple=True)
            child, sounding = step.children[slot], opened[region, slot]
            cells, z = flat[region[:, None, None], around[child]], streams(step.z, draw)[:, region, slot]
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
                    part = self.child.sample(
                        cells[mine], z[:, mine].flatten(0, 1), given_patches[r, c], ~filled[r, c], dice, record
                    )
                    flat[r[:, None, None], own[c]] = part.tokens.to(flat)
                    if planes is not None and part.planes is not None:
                        planes[r, c, 1:] = part.planes
                if log:
                    log.progress(int((~undecided).sum()), undecided.numel())
            if not undecided.any():
                break
        tokens = torch.where(given >= 0, given, interior(canvas, self.margin).to(given))
        if planes is not None:
            planes = grid.join(rearrange(planes, "b n l h w -> (b l) n h w")).unflatten(0, (-1, self.height))
        return Composed(tokens, planes)


class _Reader:
    """Answers a generator's questions while its level is sampling; see :class:`fractalgen.model.ar.Reader`."""

    def __init__(self, level: FractalLevel, canvas: Tensor, cond: Tensor, grid: Grid, streams: int) -> None:
        self.level, self.canvas, self.streams = level, canvas, streams
        self.place = level.place(grid)
        self.cond = level.cond(cond)[:, None]
        self.own, _ = windows(grid, level.margin, Margin(), canvas.device)
        self.window, _ = windows(grid, level.margin, level.context, canvas.device)

    def content(self, children: Int[Tensor, " g"]) -> Float[Tensor, "sb g d"]:
        embedded = self.level.embed(self.level.features(cut(self.canvas, self.own[children])))
        return embedded.repeat(self.streams, 1, 1)

    def base(self, children: Int[Tensor, " g"]) -> Float[Tensor, "sb g d"]:
        return self.place[children] + self.cond

    def look(self, children: Int[Tensor, " g"]) -> Float[Tensor, "sb g d"]:
        if not any(self.level.context):
            return self.cond.new_zeros(())
        context = self.level.surroundings(self.level.features(cut(self.canvas, self.window[children])))
        return context.repeat(self.streams, 1, 1)

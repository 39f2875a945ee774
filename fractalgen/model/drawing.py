"""Drawing regions of a level: step by step, as a MAR generator orders, or in passes that look ahead (AR)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fractalgen.model.ar import Autoregressive
from fractalgen.model.dice import Draw, streams
from fractalgen.model.grid import Grid, Margin, cut, earlier, interior, surround, windows
from fractalgen.model.limits import PatchLimits
from fractalgen.model.mar import MaskedAutoregressive
from fractalgen.model.recording import Composed, StepLog
from fractalgen.model.regions import Condition, Regions
from fractalgen.pianoroll import HOLD, SILENCE

if TYPE_CHECKING:
    from fractalgen.model.level import FractalLevel

# The random numbers of a child: for its gate, its place in a random order, and from there on for what is inside it.
# They belong to the place, not to the moment, so that music does not depend on what is drawn together with what.
GATE, ORDER, INSIDE = 0, 1, 2

SPAN = 8
"""Children of a region that an AR level looks at in a pass: more of them save passes, fewer save work."""


def walk(
    level: FractalLevel,
    regions: Regions,
    cond: Condition,
    draw: Draw,
    record: bool,
    log: StepLog | None = None,
) -> Composed:
    """Draw regions of a MAR level step by step: decide the gates, let the child fill what is not silent."""
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
        shape = (*given_patches.shape[:2], level.height, level.patch, level.patch)
        planes = torch.full(shape, -1, dtype=torch.int32, device=canvas.device)
        chances = torch.zeros(given_patches.shape, device=canvas.device)
    interior(canvas, level.margin).copy_(torch.where(given >= 0, given, level.unknown))
    read = Reader(level, regions, cond, draw)
    degrees = streams(level.degrees(cond, grid), draw)
    # under a limit on polyphony children are drawn one at a time, since each leaves less room to the others
    alone = limits is not None and limits.room is not None
    iterations = len(grid) if alone else draw.settings.num_iter_list[level.index]
    schedule = (iterations, draw.settings.mar_order)
    ended = level.ended(given, grid)
    for step in level.generator.walk(read, undecided, noise[..., ORDER], schedule):
        dice = draw.at(level.index, (step.iteration + 1) / iterations)
        undecided &= ~step.target
        possible = undecided.new_ones(()) if limits is None else limits.possible(given_patches)
        may = step.target & (possible if limits is None else possible | filled)
        last = sounds & silent & may.any(1) & ~(undecided & possible).any(1)
        gates = streams(level.gate(step.z)[..., 0], draw)
        if ended is not None:
            r, c = (ended & step.target).nonzero(as_tuple=True)
            z = streams(step.z, draw)[:, r, c]
            gates[:, r, c] += level.struck_share(z, flat[r[:, None, None], around[c]]).to(gates)
        opened, chance = dice.gates(gates, noise[..., GATE], may, filled, last)
        silent = silent & ~opened.any(1)

        region, child = step.target.nonzero(as_tuple=True)
        sounding = opened[region, child]
        if chances is not None:
            chances[region, child] = chance[region, child].to(chances)[:, None, None]
        cells = flat[region[:, None, None], around[child]]
        z, degree = streams(step.z, draw)[:, region, child], degrees[:, region, child]
        echo = level.echo(regions, region, child)
        batch = (step.target.cumsum(1) - 1)[region, child] // draw.settings.batch_generate_size
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
    return finished(level, regions, grid, planes, chances)


def settle(
    level: FractalLevel,
    regions: Regions,
    cond: Condition,
    draw: Draw,
    record: bool,
    log: StepLog | None = None,
) -> Composed:
    """Draw regions of an AR level as if child by child, in far fewer passes.

    The random numbers being given, each child is a function of those before it.  So some children ahead are guessed, to
    be silent, as most are, or that a note is held; one pass says what each would be if the guess were right, and that
    is the next guess.  Where all before a child is right it comes out right: up to and including the first that differs
    from its guess all are certain, and never looked at again (Jacobi decoding: Song et al. 2021, arXiv 2002.03629).
    Children of several cells are dear: they are filled when all before them is certain.  Every region goes at its own
    pace.
    """
    given, noise = regions.given, regions.noise
    assert given is not None
    assert noise is not None
    sight = Sight(level, regions, cond, draw)
    grid, flat, device = sight.grid, sight.flat, given.device
    count = len(grid)
    noise = noise.unflatten(1, (count, -1))
    undecided, filled, sounds = level.tasks(regions, grid)
    given_patches = grid.split(given)
    silent = given_patches.clamp(min=SILENCE).to(flat)
    limits = None if regions.limits is None else regions.limits.split(grid)
    crowded = limits is not None and limits.room is not None
    one = crowded or level.patch > 1  # fill one child a pass: it is dear, or leaves less room to the others
    ended = level.ended(given, grid)
    may = undecided if limits is None else undecided & (limits.possible(given_patches) | filled)
    rank = torch.arange(count, device=device)
    end = (may * (rank + 1)).amax(1)  # behind the last child that may sound,
    last = (sounds[:, None] & may) & (rank == end[:, None] - 1)  # which does if all before it are silent
    fractions = (rank + 1) / count
    if not one:
        sight.guess_holds(grid.join(may[..., None, None]))
    book = Record(level, undecided, log)

    span = torch.arange(min(SPAN, count), device=device)
    begin = torch.where(end > 0, 0, count)  # the first child that is not certain
    quiet = torch.ones_like(end, dtype=torch.bool)  # nothing that is certain was drawn to sound
    live = (end > 0).nonzero()[:, 0]
    while len(live):
        row, start = live[:, None], begin[live]
        child = start.clamp(max=count - len(span))[:, None] + span
        z = sight.conditions(row, child)
        if limits is not None and crowded:
            may = undecided & (limits.possible(given_patches) | filled)
        new = child >= start[:, None]
        gates = level.gate(z)[..., 0]
        if ended is not None:
            number, slot = ended[row, child].nonzero(as_tuple=True)
            cells = flat[live[number][:, None, None], sight.inner[1][child[number, slot]]]
            gates[:, number, slot] += level.struck_share(z[:, number, slot], cells).to(gates)
        opened, chance = draw.at(level.index, fractions[child]).gates(
            gates, noise[row, child, GATE], may[row, child] & new, filled[row, child]
        )
        forced = last[row, child]
        forced = forced & quiet[row] & ~(opened & ~forced).any(1, keepdim=True)
        opened = opened | forced
        if record:
            book.chances[row, child] = torch.where(
                new, chance.masked_fill(forced, 1.0).to(book.chances), book.chances[row, child]
            )

        fill = opened & (opened.cumsum(1) == 1) if one else opened
        patch = (row[..., None, None], sight.own[child])
        guess = flat[patch]
        found = torch.where((opened | ~new)[..., None, None], guess, silent[row, child])
        number, slot = fill.nonzero(as_tuple=True)
        if len(number):
            r, c = live[number], child[number, slot]
            below = sight.below(r, c, z[:, number, slot], given_patches, limits, noise)
            part = level.child.sample(*below, draw, record)
            found[number, slot] = part.tokens.to(found)
            if limits is not None:
                limits.fill(r, c, (part.tokens > SILENCE) & (given_patches[r, c] < 0))
            if record:
                book.keep(r, c, part)
        flat[patch] = found

        after = torch.where((found != guess).flatten(2).any(-1), child + 1, child[:, -1:] + 1)
        if one:
            after = torch.where(opened & ~fill, child, after)
        start = after.amin(1)
        quiet[live] &= ~(opened & (child < start[:, None])).any(1)
        going = start < end[live]
        begin[live] = torch.where(going, start, count)
        live = live[going]
        book.tell(begin)
    book.tell(begin)
    return finished(level, sight.regions, grid, *(book.finished(grid.split(sight.roll)) if record else ()))


class Record:
    """What is noted of the children of an AR level: when they were decided, how probably they sound, what is inside."""

    def __init__(self, level: FractalLevel, undecided: Bool[Tensor, "b n"], log: StepLog | None) -> None:
        self.undecided, self.log, self.size = undecided, log, level.patch
        self.rank = torch.arange(undecided.shape[1], device=undecided.device)
        self.moments = self.rank.tolist()
        self.asked = undecided.any(0).tolist() if log else []
        self.told = 0
        self.chances = torch.zeros(undecided.shape, device=undecided.device)
        self.inner: tuple[Tensor, Tensor] | None = None  # cells leave nothing to be noted inside them
        if level.height > 2:
            shape = (*undecided.shape, level.height - 1, level.patch, level.patch)
            planes = torch.full(shape, -1, dtype=torch.int32, device=undecided.device)
            self.inner = planes, self.chances.new_ones(*undecided.shape, level.patch, level.patch)

    def keep(self, region: Int[Tensor, " m"], child: Int[Tensor, " m"], part: Composed) -> None:
        """Note what is inside of children that were filled."""
        if self.inner is not None:
            assert part.planes is not None
            assert part.chances is not None
            for store, value in zip(self.inner, (part.planes, part.chances), strict=True):
                store[region, child] = value

    def tell(self, begin: Int[Tensor, " b"]) -> None:
        """Log the children that are certain in all regions now, ``begin`` being the first that is not."""
        if self.log is None:
            return
        certain = int(begin.amin())
        left = float((self.undecided & (self.rank >= begin[:, None])).float().mean())
        for child in range(self.told, certain):
            if self.asked[child]:
                self.moments[child] = self.log.add(child, 0)
                self.log.progress(left)
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
        return torch.cat([when.expand(-1, -1, 1, self.size, self.size), planes], 2), chances * inside


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


class Sight:
    """What an AR level and its children see while it draws: what is before them, and what is known beforehand.

    ``flat`` (b, cells + 1) holds the canvas, with guesses ahead, and behind it one cell that is unknown; ``canvas`` is
    a view of it.
    """

    def __init__(self, level: FractalLevel, regions: Regions, cond: Condition, draw: Draw) -> None:
        given, shape, generator = regions.given, regions.canvas.shape[1:], level.generator
        assert given is not None
        assert isinstance(generator, Autoregressive)
        self.level, self.generator, self.draw = level, generator, draw
        self.grid = grid = level.grid(regions.canvas)
        self.flat = F.pad(regions.canvas.flatten(1), (0, 1), value=level.unknown)
        self.canvas = self.flat[:, :-1].unflatten(1, shape)
        self.regions = replace(regions, canvas=self.canvas)
        self.roll = interior(self.canvas, level.margin)
        self.roll.copy_(given.clamp(min=SILENCE))
        self.shown = None
        if level.sees_ahead and bool((given >= 0).any()):
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
        self.base = streams(level.base(cond, grid, draw.kept), draw) + level.recalled(regions)
        self.degrees = streams(level.degrees(cond, grid), draw)
        self.echoes = None if regions.echo is None else grid.split_layers(regions.echo)
        self.steps = torch.arange(len(grid), device=device).expand(len(self.flat), -1)
        self.decoder = generator.decoder(draw.streams * len(self.flat), len(grid))

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
            query = query + level.surroundings(level.features(self._look(row, child, self.around)))
        x = self.generator.read(level.embed(level.features(before)), query, child)
        if len(x) > 1:
            row = torch.cat([row + stream * len(self.flat) for stream in range(len(x))])
            child = child.repeat(len(x), 1)
        return streams(self.decoder(x.flatten(0, 1), row, child), self.draw)

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
        echo = None
        if self.level.patch > 1:  # a cell knows no echo
            split = self.echoes  # cut once for all passes
            echo = self.level.echo(self.regions, region, child, self.steps) if split is None else split[region, child]
        parts = Regions(
            self._look(region, child, self.inner),
            given[region, child],
            echo,
            None if limits is None else limits.at(region, child),
            noise[region, child, INSIDE:],
        )
        return parts, Condition(z.flatten(0, 1), self.degrees[:, region, child].flatten())

    def _look(self, row: Tensor, child: Tensor, tables: tuple[Tensor, Tensor]) -> Int[Tensor, "*n h w"]:
        row, (past, everything) = row[..., None, None], tables
        codes = self.flat[row, past[child]]
        if self.shown is None:
            return codes
        place = (row, everything[child])
        return torch.where(self.shown[place], self.flat[place], codes)


class Reader:
    """Answers a MAR generator's questions while its level is sampling; see :class:`fractalgen.model.mar.Reader`."""

    def __init__(self, level: FractalLevel, regions: Regions, cond: Condition, draw: Draw) -> None:
        self.level, self.canvas, self.streams = level, regions.canvas, draw.streams
        self.grid = level.grid(self.canvas)
        self.recalled = level.recalled(regions)
        self.base = level.base(cond, self.grid, draw.kept)

    def content(self) -> Float[Tensor, "sb n d"]:
        patches = self.grid.split(interior(self.canvas, self.level.margin))
        return self.level.embed(self.level.features(patches)).repeat(self.streams, 1, 1)

    def look(self) -> Float[Tensor, "sb n d"]:
        window, _ = windows(self.grid, self.level.margin, self.level.context, self.canvas.device)
        context = self.level.surroundings(self.level.features(cut(self.canvas, window))) + self.recalled
        return context.repeat(self.streams, 1, 1)

"""Log-probabilities of one time step of a group of pitches, for the protocol of :mod:`benchmarks.framewise`.

A group is a region of the level below the first; its parts are decided from the lowest pitch up, down to the cells.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fractalgen.model.grid import Grid, Margin, numbers, windows
from fractalgen.model.level import FractalLevel
from fractalgen.model.losses import wide
from fractalgen.model.mar import MaskedAutoregressive
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.velocity_head import VelocityHead
from fractalgen.music.tokens import HOLD, SILENCE

SURE = 1e-5  # a silent patch below the first level whose gate is less likely to open is not looked into


class Decided(NamedTuple):
    """One time step of regions that sound: its log-probability, its cells, and whether they are the likeliest."""

    logs: Float[Tensor, " b"]
    cells: Int[Tensor, "b h"]
    usual: Bool[Tensor, " b"]


def inputs(
    level: FractalLevel,
    regions: Regions,
    grid: Grid,
    undecided: Bool[Tensor, "b n"],
    changed: Bool[Tensor, "b n"],
    before: Float[Tensor, "b n d"] | None = None,
) -> Float[Tensor, "b n d"]:
    """What the generator reads of each child: its cells if all are decided, else what lies around it.

    Only ``changed`` children are embedded; the others are copied from ``before``.  The canvas must not hold cells that
    are not given.
    """
    assert isinstance(level.generator, MaskedAutoregressive)
    canvas = regions.canvas.flatten(1)
    found = before
    own, around = (windows(grid, level.margin, margin, canvas.device)[0] for margin in (Margin(), level.context))
    for which, index in ((changed & ~undecided, own), (changed & undecided, around)):
        region, child = which.nonzero(as_tuple=True)
        features = level.features(canvas[region[:, None, None], index[child]])
        if index is own:
            new = level.embed(features)
        else:
            new = level.surroundings(features)
            if regions.long_context is not None:
                layers = grid.split_layers(regions.long_context)[region, child]
                new = new + level.recall(level.features(layers).flatten(1))
            new = new + level.generator.mask.to(new.dtype)
        if found is None:
            found = new.new_empty(*undecided.shape, new.shape[-1])
        found[region, child] = new
    assert found is not None
    return found


def put(
    regions: Regions,
    margin: Margin,
    which: Int[Tensor, " m"],
    cells: Int[Tensor, "m k"],
    step: Int[Tensor, " m"],
    tokens: Int[Tensor, "m k"],
) -> None:
    """Write cells of one time step of some regions, in place: from then on they are given."""
    assert regions.given is not None
    region, when = which[:, None], step[:, None]
    regions.given[region, cells, when] = tokens.to(regions.given)
    regions.canvas[region, cells + margin.pitch, when + margin.past] = tokens.to(regions.canvas)


def parts(
    level: FractalLevel,
    regions: Regions,
    cond: Condition,
    grid: Grid,
    z: Float[Tensor, "m d"],
    region: Int[Tensor, " m"],
    child: Int[Tensor, " m"],
) -> tuple[Regions, Condition]:
    """Some children, each a (region, child), as regions of the level below."""
    assert regions.given is not None
    index, _ = windows(grid, level.margin, level.child.margin, regions.canvas.device)
    below = Regions(
        regions.canvas.flatten(1)[region[:, None, None], index[child]].int(),
        grid.split(regions.given)[region, child],
        level.long_context(regions, region, child),
    )
    chosen = cond.each(lambda x: x[region])
    every = level.inside(chosen, grid, z[:, None].expand(-1, len(grid), -1))
    return below, every.each(lambda x: x[torch.arange(len(child), device=child.device), child])


def decide_cell(
    head: VelocityHead, regions: Regions, cond: Condition, likely: Float[Tensor, " b"], truth: Int[Tensor, "b 1"] | None
) -> Decided:
    """:func:`decide` of cells that are known to sound, if their gates are open."""
    logits, _ = head.first(regions, cond)
    logs = F.pad(wide(logits).log_softmax(-1), (HOLD, 0), value=float("-inf"))
    best = torch.where(likely >= 0.5, logs.argmax(-1), SILENCE)
    token = best if truth is None else truth[:, 0]
    return Decided(logs.gather(1, token[:, None])[:, 0], token[:, None], best == token)


def column_odds(
    level: FractalLevel,
    regions: Regions,
    cond: Condition,
    grid: Grid,
    step: Int[Tensor, " b"],
    kept: dict[tuple[int, Grid], Tensor],
) -> tuple[Float[Tensor, "b n d"], Int[Tensor, "b r"], Float[Tensor, "b r"]]:
    """Conditions of all children, the children in one step of each region, and their log odds of not being silent."""
    assert isinstance(level.generator, MaskedAutoregressive)
    undecided, filled, sounds = level.tasks(regions, grid)
    x = inputs(level, regions, grid, undecided, torch.ones_like(undecided))
    z = level.generator.transformer(x + level.base(cond, grid, kept), causal=False)
    forced = sounds[:, None] & undecided & (undecided.sum(1, keepdim=True) == 1)
    odds = wide(level.gate(z)[..., 0]).masked_fill(filled | forced, float("inf"))
    children = numbers(grid, step.device)[:, step // level.steps].T
    return z, children, odds.gather(1, children)


def next_child(
    odds: Float[Tensor, "b r"], turn: Int[Tensor, " b"], sounds: Bool[Tensor, "b r"] | None
) -> tuple[Int[Tensor, " b"], Float[Tensor, " b"]]:
    """The next of r children, from a ``turn`` on, that is looked into, and the log-probability of those passed over.

    They are silent, and it is ``r`` where none is left.  ``sounds``: which children do, where that is known.
    """
    place = torch.arange(odds.shape[1], device=odds.device)
    matters = odds.sigmoid() >= SURE
    if sounds is not None:
        matters = matters | sounds
    ahead = place >= turn[:, None]
    first = torch.where(matters & ahead, place, len(place)).amin(1)
    passed = ahead & (place < first[:, None])
    return first, torch.where(passed, F.logsigmoid(-odds), 0.0).sum(1)


def behind_gate(gate: Float[Tensor, " b"], found: Decided) -> Float[Tensor, " b"]:
    """Log-probability of what was decided behind gates of such log odds; silence comes about in two ways."""
    through = F.logsigmoid(gate) + found.logs
    silent = (found.cells == SILENCE).all(1)
    return torch.where(silent, torch.logaddexp(through, F.logsigmoid(-gate)), through)


def still_likely(likely: Float[Tensor, " b"], logs: Float[Tensor, " b"], found: Decided) -> Float[Tensor, " b"]:
    """How likely it is that regions sound once a part of them is decided, whose log-probability was ``logs`` if so."""
    chance = likely * logs.exp()
    silent = chance / (1 - likely + chance).clamp(min=torch.finfo(chance.dtype).tiny)
    return torch.where((found.cells == SILENCE).all(1), silent, 1.0).to(likely)


def decide(
    level: FractalLevel | VelocityHead,
    regions: Regions,
    cond: Condition,
    step: Int[Tensor, " b"],
    likely: Float[Tensor, " b"],
    truth: Int[Tensor, "b h"] | None,
    kept: dict[tuple[int, Grid], Tensor],
) -> Decided:
    """One time step of regions below the first level, in each of which nothing is decided but what is ``given``.

    The children in that step are decided one after the other, from the lowest pitch up: as the ``truth`` says, or else
    as is most likely.  ``logs`` is the log-probability of what was decided given that the region sounds (its cells may
    still be silent in this step); ``likely`` is the probability that it does.
    """
    if isinstance(level, VelocityHead):
        return decide_cell(level, regions, cond, likely, truth)
    assert regions.given is not None
    device, patch = step.device, level.patch
    grid = level.grid(regions.canvas)
    whole = Regions(regions.canvas.clone(), regions.given.clone(), regions.long_context)
    cells = torch.zeros(len(step), grid.rows * patch, dtype=torch.long, device=device)
    logs, usual = torch.zeros_like(likely), torch.ones_like(likely, dtype=torch.bool)
    turn, place = torch.zeros_like(step), torch.arange(grid.rows, device=device)
    active = torch.arange(len(step), device=device)
    while len(active):
        now = whole[active]
        asked = cond.each(lambda x, active=active: x[active])  # type: ignore[misc]
        z, children, odds = column_odds(level, now, asked, grid, step[active], kept)
        sounds = None if truth is None else (truth[active].unflatten(1, (-1, patch)) > SILENCE).any(2)
        first, passed = next_child(odds, turn[active], sounds)
        logs[active] += passed
        look = first < grid.rows
        turn[active] = first + 1

        mine, row = active[look], first[look]
        region, child = look.nonzero()[:, 0], children[look, row]
        below, inside = parts(level, now, asked, grid, z[region, child], region, child)
        gate = odds[look, row]
        rows = row[:, None] * patch + torch.arange(patch, device=device)
        found = decide(
            level.child,
            below,
            inside,
            step[mine] % level.steps,
            likely[mine] * gate.sigmoid(),
            None if truth is None else truth[mine].gather(1, rows),
            kept,
        )
        part = behind_gate(gate, found)
        logs[mine] += part
        usual[mine] &= found.usual
        likely = likely.index_put((mine,), still_likely(likely[mine], part, found))
        cells[mine[:, None], rows] = found.cells
        done = (place < turn[active, None]).nonzero()
        known, at = active[done[:, 0]], done[:, 1, None] * patch + torch.arange(patch, device=device)
        put(whole, level.margin, known, at, step[known], cells[known[:, None], at])
        active = active[turn[active] < grid.rows]
    return Decided(logs, cells, usual)


def group_log_probabilities(
    level: FractalLevel | VelocityHead,
    regions: Regions,
    cond: Condition,
    gate: Float[Tensor, " b"],
    step: Int[Tensor, " b"],
    truth: Int[Tensor, "b h"],
    kept: dict[tuple[int, Grid], Tensor],
    pick: bool,
) -> tuple[Float[Tensor, " b"], Int[Tensor, "b h"]]:
    """Log-probability of one time step of regions that sound if their ``gate`` opens, and the model's own picks.

    The picks are the truth unless they are asked for (``pick``).
    """
    sounds, likely = (truth > SILENCE).any(1), gate.sigmoid()
    mine = (sounds | (likely >= SURE)).nonzero()[:, 0]
    found = decide(level, regions[mine], cond.each(lambda c: c[mine]), step[mine], likely[mine], truth[mine], kept)
    logs = F.logsigmoid(-gate)
    logs[mine] = behind_gate(gate[mine], found)
    picks, other = truth.clone(), mine[~found.usual]
    if pick and len(other):
        asked = cond.each(lambda c: c[other])
        picks[other] = decide(level, regions[other], asked, step[other], likely[other], None, kept).cells
    return logs, picks

"""What the AR and the MAR sampler have in common: the regions of a level while their children are drawn."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

from fractalgen.model.absent import carried
from fractalgen.model.grid import Margin, windows
from fractalgen.model.level import FractalLevel
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.sampling.recorder import Composed, RegionSampler
from fractalgen.model.sampling.token_sampler import INSIDE, TokenSampler, streams
from fractalgen.music.tokens import SILENCE


class LevelState:
    """The regions of a level while they are drawn, and what is asked of their children.

    ``undecided``, ``filled`` (b, n), ``sounds`` (b): see :meth:`.FractalLevel.tasks`.  ``given`` (b, n, h, w): known
    tokens.  ``noise`` (b, n, k): the random numbers of each child.  ``alone``: only one child of a region may be drawn
    at a time, because each leaves less room to the others.  ``inside``: conditions of all children by guidance stream,
    (g, b, n, ...), without their vectors.  ``own`` (n, h, w): where in a canvas the cells of each child lie.
    """

    def __init__(self, level: FractalLevel, regions: Regions, cond: Condition, sampler: TokenSampler) -> None:
        assert regions.given is not None
        assert regions.noise is not None
        self.level, self.regions, self.cond, self.sampler = level, regions, cond, sampler
        self.grid = grid = level.grid(regions.canvas)
        self.undecided, self.filled, self.sounds = level.tasks(regions, grid)
        self.given, self.noise = grid.split(regions.given), regions.noise.unflatten(1, (len(grid), -1))
        self.absent, self.ended = level.absent_steps(regions.given, grid), level.ended(regions.given, grid)
        self.limits = None if regions.limits is None else regions.limits.split(grid)
        self.alone = self.limits is not None and self.limits.room is not None
        nothing = cond.vector.new_zeros(len(cond.vector), len(grid), 0)
        self.inside = level.inside(cond, grid, nothing).each(lambda x: streams(x, sampler))
        self.own, _ = windows(grid, level.margin, Margin(), regions.canvas.device)

    def possible(self) -> Bool[Tensor, "b n"]:
        """Undecided children that may sound."""
        if self.limits is None:
            return self.undecided
        return self.undecided & (self.limits.possible(self.given) | self.filled)

    def gates(
        self,
        z: Float[Tensor, "g r s d"],
        row: Int[Tensor, "r 1"],
        child: Int[Tensor, "r s"],
        asked: Bool[Tensor, "r s"],
    ) -> Float[Tensor, "g r s"]:
        """Logits of the gates of children, by guidance stream; ``z``: their conditions; ``asked``: which are drawn."""
        gates: Tensor = self.level.gate(z)[..., 0]
        if self.ended is not None:
            r, s = (self.ended[row, child] & asked).nonzero(as_tuple=True)
            cells = self.look(row[r, 0], child[r, s])
            gates[:, r, s] += self.level.struck_share(z[:, r, s], cells).to(gates)
        return gates

    def look(self, region: Int[Tensor, " m"], child: Int[Tensor, " m"]) -> Int[Tensor, "m h w"]:
        """Cells of some children and of the margin around them, as far as they are decided."""
        raise NotImplementedError

    def parts(
        self,
        region: Int[Tensor, " m"],
        child: Int[Tensor, " m"],
        long_context: Int[Tensor, "m e h w"] | None,
        returned: Int[Tensor, "m h w"] | None,
    ) -> Regions:
        """Some children as regions of the level below."""
        return Regions(
            self.look(region, child),
            self.given[region, child],
            long_context,
            returned,
            limits=None if self.limits is None else self.limits.at(region, child),
            noise=self.noise[region, child, INSIDE:],
        )

    def fill(
        self,
        below: RegionSampler,
        place: tuple[Int[Tensor, " m"], Int[Tensor, " m"]],
        parts: tuple[Regions, Condition],
        sampler: TokenSampler,
        record: bool,
    ) -> Composed:
        """What ``below`` draws inside of some children, each a (region, child)."""
        part = below(self.level.child, *parts, sampler, record)
        if self.absent is not None:
            part.tokens = carried(part.tokens, self.absent[place], self.level.steps)
        if self.limits is not None:
            self.limits.fill(*place, (part.tokens > SILENCE) & (self.given[place] < 0))
        return part

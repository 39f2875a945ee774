"""What may sound: hard limits, which every level keeps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fractalgen.model.grid import Grid
from fractalgen.music.tokens import ABSENT


@dataclass(frozen=True)
class Limits:
    """What may sound in regions: cells that are ``allowed``, and at each step no more of them than there is ``room``.

    Known cells are exempt, but those that sound have taken their room.  Without ``room`` there is no limit.
    """

    allowed: Bool[Tensor, "b p t"]
    room: Int[Tensor, "b t"] | None = None

    def __getitem__(self, which: Bool[Tensor, " b"] | Int[Tensor, " m"]) -> Limits:
        """The limits of some regions."""
        return Limits(self.allowed[which], None if self.room is None else self.room[which])

    def split(self, grid: Grid) -> PatchLimits:
        """The same for the children of the regions."""
        steps = torch.arange(self.allowed.shape[2], device=self.allowed.device)
        columns = grid.split(steps.expand(1, *self.allowed.shape[1:]))[0, :, 0]
        return PatchLimits(grid.split(self.allowed), self.room, columns)


@dataclass(frozen=True)
class PatchLimits:
    """:class:`Limits` by child patch; ``room`` shrinks as children are filled."""

    allowed: Bool[Tensor, "b n h w"]
    room: Int[Tensor, "b t"] | None
    columns: Int[Tensor, "n w"]

    def possible(self, given: Int[Tensor, "b n h w"]) -> Bool[Tensor, "b n"]:
        """Children in which a cell that is not ``given`` may sound."""
        cells = self.allowed & (given < 0) & (given != ABSENT)
        if self.room is not None:
            cells = cells & (self.room > 0)[:, self.columns][:, :, None]
        return cells.flatten(2).any(-1)

    def at(self, region: Int[Tensor, " m"], child: Int[Tensor, " m"]) -> Limits:
        """What is left to some children."""
        room = None if self.room is None else self.room[region[:, None], self.columns[child]]
        return Limits(self.allowed[region, child], room)

    def fill(self, region: Int[Tensor, " m"], child: Int[Tensor, " m"], sounding: Bool[Tensor, "m h w"]) -> None:
        """Cells of some children sound now."""
        if self.room is not None:
            taken = -sounding.sum(1).to(self.room)
            self.room.index_put_((region[:, None], self.columns[child]), taken, accumulate=True)

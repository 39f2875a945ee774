"""Plans of a batch of rolls, as tensors: chords, returns and the bars that are left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fractalgen.music.bars import units_of
from fractalgen.music.chords import UNTOLD
from fractalgen.music.form import NEW, NOT_SAID

MOST_BACK = 64
"""A bar comes back to one of so many before it."""


@dataclass(frozen=True)
class Plans:
    """Plans of windows of columns, see :class:`fractalgen.music.plan.Plan`, which counts columns of a piece.

    ``chords`` holds a code for each unit, 0 where it is not told.  ``back``: how many columns earlier lies the one that
    each column comes back to; 0: it comes back to nothing, -1: not told.  ``left``: bars left, 0: not told.
    ``before``: columns of the piece before the window.  A column that comes back to one of those finds it in ``bank``
    (tokens) and its chords in ``bank_chords``, at its own place.
    """

    chords: Int[Tensor, "b u"]
    back: Int[Tensor, "b c"]
    left: Int[Tensor, "b c"]
    before: Int[Tensor, " b"]
    bank: Int[Tensor, "b p t"]
    bank_chords: Int[Tensor, "b u"]

    @classmethod
    def free(cls, batch: int, columns: int, pitches: int, steps: int, device: torch.device) -> Plans:
        """Nothing is told; ``steps``: of a column."""

        def full(value: int, *shape: int) -> Tensor:
            return torch.full((batch, *shape), value, dtype=torch.long, device=device)

        units = columns * units_of(steps)
        bank = full(0, pitches, columns * steps)
        return cls(full(UNTOLD, units), full(-1, columns), full(0, columns), full(0), bank, full(UNTOLD, units))

    @classmethod
    def of(cls, items: Mapping[str, Tensor]) -> Plans | None:
        """The plans in a batch of items of :class:`fractalgen.data.crops.Excerpts`; None if there are none."""
        if "chords" not in items:
            return None
        return cls(**{field.name: items[field.name] for field in fields(cls)})

    def untold(self) -> Plans:
        """Plans of the same size that tell nothing."""
        nothing = torch.zeros_like(self.before, dtype=torch.bool)[:, None]
        return self.told(nothing, nothing, nothing)

    def window(self, first: int, stop: int, tokens: Int[Tensor, "b p t"] | None = None) -> Plans:
        """The plans of some columns of whole pieces.

        What comes back from columns before those is taken from ``tokens`` of the piece (what is not known is silence);
        without tokens the bank is empty.
        """
        columns = self.back.shape[1]
        units = self.chords.shape[1] // columns
        back = self.back[:, first:stop]
        number = torch.arange(first, stop, device=back.device)
        source = (number - back).clamp(0, columns - 1)
        pieces = self.chords.unflatten(1, (columns, units))
        bank_chords = pieces.gather(1, source[..., None].expand(-1, -1, units)).flatten(1)
        bank = self.bank[:, :, :0]
        if tokens is not None:
            patches = tokens.clamp(min=0).unflatten(2, (columns, -1))
            index = source[:, None, :, None].expand(-1, patches.shape[1], -1, patches.shape[3])
            bank = patches.gather(2, index).flatten(2)
        return Plans(
            self.chords[:, first * units : stop * units],
            back,
            self.left[:, first:stop],
            self.before + first,
            bank,
            bank_chords,
        )

    def each(self, change: Callable[[Tensor], Tensor]) -> Plans:
        """The same change of all tensors."""
        return Plans(**{field.name: change(getattr(self, field.name)) for field in fields(self)})

    @property
    def sources(self) -> Int[Tensor, "b c"]:
        """Where each column finds what it comes back to.

        A column of the window, or behind them (columns + its own number) in the bank; else NEW, or not said.
        """
        columns = self.back.shape[1]
        number = torch.arange(columns, device=self.back.device)
        source = torch.where(number >= self.back, number - self.back, columns + number)
        return torch.where(self.back > 0, source, torch.where(self.back == 0, NEW, NOT_SAID))

    def told(
        self,
        chords: Bool[Tensor, "b u"] | Bool[Tensor, "b 1"],
        back: Bool[Tensor, "b c"] | Bool[Tensor, "b 1"],
        left: Bool[Tensor, "b c"] | Bool[Tensor, "b 1"],
    ) -> Plans:
        """Plans of which only what is marked is told."""
        return replace(
            self,
            chords=torch.where(chords, self.chords, UNTOLD),
            back=torch.where(back, self.back, -1),
            left=torch.where(left, self.left, 0),
        )

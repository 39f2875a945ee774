"""What a level works on: regions of cells, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fractalgen.model.limits import Limits


@dataclass(frozen=True)
class Regions:
    """What a level works on: regions in the middle of a ``canvas`` of known surroundings, see :mod:`.grid`.

    ``given`` holds the tokens of cells that are known beforehand, and elsewhere -1, or -2 (``NO_HOLD``) where the note
    before is known to end, or -3 (``ABSENT``) where there is no cell; None if nothing is known.
    ``long_context``, below the first level, holds one layer for each distance, see :mod:`.long_context`.
    ``returned``: below the first level the cells at the same place in the column that comes back; in the first level
    ``Plans.bank``, and ``returns`` is ``Plans.sources``: where each column finds what it comes back to.
    While sampling, ``limits`` say what may sound, and ``noise`` holds uniform numbers in [0, 1): all that chance
    decides in a region.
    """

    canvas: Int[Tensor, "b ch cw"]
    given: Int[Tensor, "b p t"] | None = None
    long_context: Int[Tensor, "b e p t"] | None = None
    returned: Int[Tensor, "b p t"] | None = None
    returns: Int[Tensor, "b c"] | None = None
    limits: Limits | None = None
    noise: Float[Tensor, "b k"] | None = None

    def __getitem__(self, which: Bool[Tensor, " b"] | Int[Tensor, " m"]) -> Regions:
        """Some of the regions, by a mask or by their numbers."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: part[which] for name, part in parts.items() if part is not None})


@dataclass(frozen=True)
class Condition:
    """What is asked of regions: a vector, and what it means for the pitches and steps of each.

    ``degree``: which degree of the key asked for their lowest pitch is, see :mod:`.degrees`; ``lowest``: that pitch.
    ``chords``: their chords and the one after them, see :mod:`.harmony`; none in models without plans.
    ``returns``: ``Plans.sources`` of each column in the first level, and of the region's own column below, where only
    its sign is looked at; ``left``: in the first level, bars left in each column.
    """

    vector: Float[Tensor, "*n d"]
    degree: Int[Tensor, "*n"]
    lowest: Int[Tensor, "*n"]
    chords: Int[Tensor, "*n u"]
    returns: Int[Tensor, "*n c"]
    left: Int[Tensor, "*n c"]

    def each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        """The same change of all parts."""
        return Condition(*(change(getattr(self, field.name)) for field in fields(self)))

    @classmethod
    def plain(cls, vector: Float[Tensor, "*n d"], degree: Int[Tensor, "*n"] | None = None) -> Condition:
        """A vector and degrees (by default no key), from pitch 0 upwards, without a plan."""
        if degree is None:
            degree = torch.zeros(vector.shape[:-1], dtype=torch.long, device=vector.device)
        nothing = degree[..., None][..., :0]
        return cls(vector, degree, torch.zeros_like(degree), nothing, nothing, nothing)

    @classmethod
    def cat(cls, conditions: Sequence[Condition]) -> Condition:
        """Several batches as one."""
        return cls(*(torch.cat([getattr(one, field.name) for one in conditions]) for field in fields(cls)))

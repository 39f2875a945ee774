"""Teacher forcing: how a generator scores all children of a region whose content is given."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Pass:
    """One call of a generator.

    ``sees``: bool (b or 1, n or 1, n), entry ``[b, i, j]`` says whether child i may see child j (one row for all i:
    where they all see the same).  ``target``: the children whose conditions are taken from this call; None: of all.
    """

    sees: Bool[Tensor, "b i n"]
    target: Bool[Tensor, "b n"] | None = None


@dataclass(frozen=True)
class TeacherForcing:
    """The calls of a generator by which a region is scored, and what counts.

    Args:
        passes: the calls; each child gets its condition from one of them.
        steps: step at which each child would be drawn; its condition depends on children of smaller steps alone.
        target: the children whose NLL counts.
        weight: factor of each region, so that the weighted sum is the NLL or an unbiased estimate of a bound.
        final: children decided together as the last of their region; "not all silent" is conditioned on them.
    """

    passes: tuple[Pass, ...]
    steps: Int[Tensor, "b n"]
    target: Bool[Tensor, "b n"]
    weight: Float[Tensor, " b"]
    final: Bool[Tensor, "b n"]

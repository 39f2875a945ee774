"""What a level works on: regions of cells, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from fractalgen.model.limits import Limits


@dataclass(frozen=True)
class Regions:
    """What a level works on: regions in the middle of a ``canvas`` of known surroundings, see :mod:`.grid`.

    ``given`` holds the tokens of cells that are known beforehand, and elsewhere -1, or -2 (``NO_HOLD``) where the note
    before is known to end; None if nothing is known.
    ``echo``, below the first level, holds one layer for each distance, see :mod:`.long_context`.  While sampling,
    ``limits`` say what may sound, and ``noise`` holds uniform numbers in [0, 1): all that chance decides in a region.
    """

    canvas: Int[Tensor, "b ch cw"]
    given: Int[Tensor, "b p t"] | None = None
    long_context: Int[Tensor, "b e p t"] | None = None
    limits: Limits | None = None
    noise: Float[Tensor, "b k"] | None = None


@dataclass(frozen=True)
class Condition:
    """What is asked of regions: a vector, and which degree of the key asked for their lowest pitch is.

    Degrees: see :mod:`.degrees`.
    """

    vector: Float[Tensor, "*n d"]
    degree: Int[Tensor, "*n"]

    def each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        """The same change of both."""
        return Condition(change(self.vector), change(self.degree))

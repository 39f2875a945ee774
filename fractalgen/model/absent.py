"""Steps that do not exist: what lies between the end of a short bar and the next column.

Nothing is decided there, and nothing is told by it.  A note can be held from the last step of a bar to the first of the
next one: whoever looks back from the next column finds it held through the gap.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fractalgen.music.tokens import HOLD, SILENCE


def carried(tokens: Int[Tensor, "b p t"], absent: Bool[Tensor, "b t"], column: int) -> Int[Tensor, "b p t"]:
    """Tokens in which absent steps hold what sounds in the last step of their column that exists.

    ``column``: steps of a column.
    """
    step = torch.arange(tokens.shape[2], device=tokens.device)
    source = torch.where(absent, -1, step).cummax(1).values
    there = source >= step // column * column  # a column without steps is silent
    source = source.clamp(min=0)[:, None].expand_as(tokens)
    held = (tokens.gather(2, source) > SILENCE) & there[:, None]
    filled = torch.where(held, HOLD, SILENCE).to(tokens.dtype)
    return torch.where(absent[:, None], filled, tokens)

"""Optimisers of the training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from fractalgen.model.transformer import Transformer

BETAS = (0.9, 0.95)


def make_optimizer(model: nn.Module, name: Literal["muon", "adamw"], learning_rate: float) -> torch.optim.Optimizer:
    """One optimiser for all parameters of ``model``; each of its groups says in ``decays`` whether weights decay.

    Weight decay is for the matrices of linear layers, not for embeddings, norms, biases and other vectors.
    ``muon``: matrices inside the transformers take Muon (Jordan et al. 2024) with steps scaled to the size of AdamW's
    (Liu et al. 2025), so that one learning rate serves both; everything else takes AdamW.
    """
    matrices = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    inner = [
        module.weight
        for transformer in model.modules()
        if name == "muon" and isinstance(transformer, Transformer)
        for module in transformer.modules()
        if isinstance(module, nn.Linear)
    ]
    taken = set(map(id, inner))
    rest = [parameter for parameter in model.parameters() if id(parameter) not in taken]
    groups = [{"params": [p for p in rest if (id(p) in matrices) == decays], "decays": decays} for decays in (1, 0)]
    # fused: several times faster on a CPU too
    adamw = torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, fused=True)
    if not inner:
        return adamw
    muon = torch.optim.Muon(
        [{"params": inner, "decays": 1}], lr=learning_rate, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    return Together(muon, adamw)


class Together(torch.optim.Optimizer):
    """Several optimisers, each with its own parameters, as one: they share its groups and its state."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = [(part, len(part.param_groups)) for part in parts]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every part."""
        loss = None if closure is None else closure()
        first = 0
        for part, count in self.parts:  # loading a state replaces groups and state, so they are handed over each time
            part.param_groups, part.state = self.param_groups[first : first + count], self.state
            part.step()
            first += count
        return loss

"""Optimisers of the training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fractalgen.devices import fast_dtype
from fractalgen.model.transformer import Transformer

BETAS = (0.9, 0.95)


def make_optimizer(model: nn.Module, name: Literal["muon", "adamw"], learning_rate: float) -> torch.optim.Optimizer:
    """One optimiser for all parameters of ``model``; ``decays`` of each group says whether weight decay applies.

    Weight decay is for the matrices of linear layers, not for embeddings, norms, biases and other vectors.
    ``muon``: matrices inside the transformers take :class:`Muon`; everything else takes AdamW.
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
    return CombinedOptimiser(Muon([{"params": inner, "decays": 1}], lr=learning_rate), adamw)


def orthogonalise(matrix: Tensor, iterations: int = 5) -> Tensor:
    """The orthogonal matrix nearest to ``matrix`` (m, n), roughly: its singular values lie between 0.7 and 1.2.

    The quintic Newton-Schulz iteration of Jordan et al. 2024, in the arithmetic that is fast on the device.
    """
    x = matrix.to(fast_dtype(matrix.device))
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        gram = torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.addmm(x, gram, x, beta=3.4445)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024), in steps of the size of AdamW's (Liu et al. 2025).

    One learning rate serves both, therefore.  PyTorch's own Muon computes the same in bfloat16 on every device, which
    takes 20 times as long on a processor without units for it.
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all matrices that have a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonalise(matrix.grad.lerp(momentum, group["momentum"]))  # Nesterov
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)
        return loss


class CombinedOptimiser(torch.optim.Optimizer):
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

"""Recomputing activations changes what is kept in memory, and nothing else."""

from __future__ import annotations

import pytest
import torch

from fractalgen.config import TrainConfig
from fractalgen.training.module import Training


@pytest.mark.parametrize("kind", ["ar", "mar"])
def test_activation_checkpointing_keeps_less_and_learns_the_same(kind: str) -> None:
    """The loss and every gradient, dropout included; of what is remembered for the backward pass half is gone."""
    losses, gradients, sizes = [], [], []
    for checkpointing in (False, True):
        cfg = TrainConfig(
            generator_types=(kind, kind, kind, "ar"),  # type: ignore[arg-type]
            embed_dims=(32, 32, 32, 16),
            num_blocks=(4, 4, 4, 1),
            num_heads=(2, 2, 2, 2),
            context_pitches=(0, 1, 1, 0),
            context_past=(0, 1, 1, 0),
            crop_length=32,
            dropout=0.2,
            activation_checkpointing=checkpointing,
        )
        torch.manual_seed(0)
        training = Training(cfg.model_config(velocity_bins=32), cfg).train()
        tokens = torch.randint(34, (2, 128, 32)) * (torch.rand(2, 128, 32) < 0.03)
        kept = 0

        def keep(x: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += 0 if isinstance(x, torch.nn.Parameter) else x.numel()
            return x

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = training.model.nll(tokens).total.sum()
        loss.backward()
        losses.append(loss.detach())
        gradients.append([parameter.grad for parameter in training.parameters()])
        sizes.append(kept)
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(gradients[1], gradients[0])
    assert sizes[1] < sizes[0] / 2

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from fractalgen.training import optimisers
from fractalgen.training.optimisers import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (32, 32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalised_matrices_keep_their_directions(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(optimisers, "fast_dtype", lambda device: dtype)
    # well-conditioned: five iterations bring no tiny singular value near 1
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)), False)
    matrix = left * torch.linspace(0.2, 5, min(shape)) @ right
    result = orthogonalise(matrix)
    assert result.dtype == dtype
    singular = torch.linalg.svdvals(result.float())
    assert singular.min() > 0.6
    assert singular.max() < 1.3
    cosine = torch.nn.functional.cosine_similarity(result.float().flatten(), (left @ right).flatten(), dim=0)
    assert cosine > 0.97


def test_muon_is_that_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16, bit for bit: checkpoints of runs with PyTorch's go on as they were."""
    monkeypatch.setattr(optimisers, "fast_dtype", lambda device: torch.bfloat16)
    torch.manual_seed(0)
    ours, theirs = nn.Linear(12, 40, bias=False), nn.Linear(12, 40, bias=False)
    theirs.load_state_dict(ours.state_dict())
    reference = torch.optim.Muon(theirs.parameters(), lr=0.01, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    optimizer = Muon(ours.parameters(), lr=0.01)
    for step in range(6):
        gradient = torch.randn(40, 12)
        for layer, each in ((ours, optimizer), (theirs, reference)):
            layer.weight.grad = gradient.clone()
            if step == 3 and each is optimizer:  # from here on with the state of the other
                optimizer.load_state_dict(deepcopy(reference.state_dict()))
            for group in each.param_groups:
                group["weight_decay"] = 0.05
            each.step()
        assert torch.equal(ours.weight, theirs.weight)

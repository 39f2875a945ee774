"""Labels: they condition the model, and a share of them is replaced by the null condition for training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fractalgen.api import FractalGen
from fractalgen.model.masking import drop_labels
from tests.model.properties.helpers import random_model, random_rolls, tiny_config

LABELS = [torch.tensor([1, 2, 1, 2]), torch.tensor([3, 3, 0, 1])]


def totals(model: FractalGen, labels: list[Tensor] | None) -> Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return model.nll(random_rolls(4, 2, 4, 1), labels).total


def test_labels_change_the_likelihood_and_zero_means_unset() -> None:
    model = random_model(tiny_config(label_sizes=(3, 4)))
    assert not torch.allclose(totals(model, LABELS), totals(model, None))
    unset = [torch.zeros_like(label) for label in LABELS]
    assert torch.equal(totals(model, unset), totals(model, None))
    assert torch.equal(totals(model, LABELS), totals(model, LABELS))  # nothing is dropped in evaluation


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_labels_are_dropped_as_often_as_told(share: float) -> None:
    model = random_model(tiny_config(label_sizes=(3, 4)))
    expected = totals(model, None if share else LABELS)
    assert torch.allclose(totals(model, drop_labels(LABELS, share)), expected)


def test_all_or_some_labels_of_a_crop_are_dropped_by_chance() -> None:
    counts = torch.zeros(4, 2, 2)
    for seed in range(60):
        torch.manual_seed(seed)
        first, second = drop_labels(LABELS, 0.5)
        kept = torch.stack([first, second], 1) == torch.stack(LABELS, 1)
        counts[torch.arange(4), kept[:, 0].long(), kept[:, 1].long()] += 1
    assert torch.all((counts[[0, 1, 3], 0, 0] > 15) & (counts[[0, 1, 3], 0, 0] < 45))
    assert torch.all(counts[[0, 1, 3]] > 0)  # all, none, and each one alone


def test_the_null_condition_and_the_labels_learn() -> None:
    model = random_model(tiny_config(label_sizes=(3, 4))).train()
    model.nll(random_rolls(4, 2, 4, 1), LABELS).total.sum().backward()
    assert model.null.grad is not None
    assert model.null.grad.abs().sum() > 0
    for table in model.labels.parameters():
        assert table.grad is not None
        assert table.grad.abs().sum() > 0

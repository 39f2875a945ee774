"""Labels: they condition the model, and in training a share of them is replaced by the null condition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fractalgen.api import FractalGen
from tests.model.properties.helpers import random_model, random_rolls, tiny_config

LABELS = [torch.tensor([1, 2, 1, 2]), torch.tensor([3, 3, 0, 1])]


def totals(model: FractalGen, labels: list[Tensor] | None) -> Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return model.nll(random_rolls(4, 2, 4, 1), labels).total


def labelled(label_dropout: float) -> FractalGen:
    return random_model(tiny_config(label_sizes=(3, 4), label_dropout=label_dropout))


def test_labels_change_the_likelihood_and_zero_means_unset() -> None:
    model = labelled(0.5)
    assert not torch.allclose(totals(model, LABELS), totals(model, None))
    unset = [torch.zeros_like(label) for label in LABELS]
    assert torch.equal(totals(model, unset), totals(model, None))
    assert torch.equal(totals(model, LABELS), totals(model, LABELS))  # nothing is dropped in evaluation


@pytest.mark.parametrize("label_dropout", [0.0, 1.0])
def test_training_drops_labels_as_often_as_told(label_dropout: float) -> None:
    model = labelled(label_dropout)
    expected = totals(model, None if label_dropout else LABELS)
    assert torch.allclose(totals(model.train(), LABELS), expected)


def test_all_or_some_labels_of_a_crop_are_dropped_by_chance() -> None:
    model = labelled(0.5)
    dropped, first, second = (totals(model, [label * keep for label, keep in zip(LABELS, keeps, strict=True)])
                              for keeps in ((0, 0), (1, 0), (0, 1)))  # fmt: skip
    kept = totals(model, LABELS)
    model.train()
    counts = torch.zeros(4)
    some = False
    for seed in range(60):
        torch.manual_seed(seed)
        with torch.no_grad():
            total = model.nll(random_rolls(4, 2, 4, 1), LABELS).total
        was_dropped = torch.isclose(total, dropped)
        in_part = torch.isclose(total, first) | torch.isclose(total, second)
        assert torch.all(was_dropped | in_part | torch.isclose(total, kept))
        some |= bool((in_part & ~was_dropped & ~torch.isclose(total, kept)).any())
        counts += was_dropped
    assert some
    assert torch.all((counts > 10) & (counts < 50))


def test_the_null_condition_and_the_labels_learn() -> None:
    model = labelled(0.0).train()
    model.nll(random_rolls(4, 2, 4, 1), LABELS).total.sum().backward()
    assert model.null.grad is not None
    assert model.null.grad.abs().sum() > 0
    for table in model.labels.parameters():
        assert table.grad is not None
        assert table.grad.abs().sum() > 0

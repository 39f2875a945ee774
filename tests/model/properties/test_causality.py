"""What a condition may depend on, measured by gradients and by changing what must not be seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fractalgen.api import FractalGen
from fractalgen.config import MarOrder
from fractalgen.model.grid import surround
from fractalgen.model.level import FractalLevel
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.velocity_head import VelocityHead
from tests.model.properties.helpers import random_model, random_rolls, tiny_config


def conditions(level: FractalLevel, canvas: Tensor, content: Tensor) -> Tensor:
    """The z of every child, from embedded children that can be differentiated."""
    grid = level.grid(canvas)
    cond = Condition.plain(torch.ones(len(canvas), level.cond.in_features).double(), torch.ones(len(canvas)).long())
    everything = torch.ones(content.shape[:2], dtype=torch.bool)
    regions = Regions(canvas)
    return level.conditions(
        regions, cond, content, level.base(cond, grid), level.generator.teacher_forcing(everything, None)
    )


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("scan_order", ["column_major", "row_major"])
def test_ar_conditions_have_gradients_from_earlier_children_only(index: int, scan_order: str) -> None:
    model = random_model(tiny_config("ar ar ar ar", patches=(8, 4, 2, 1), width=8, scan_order=scan_order))
    level = model.levels[index]
    assert isinstance(level, FractalLevel)
    size = level.config.patch
    canvas = surround(random_rolls(1, size, 8 if index == 0 else size, 1), level.margin, model.config.vocabulary + 1)
    count = len(level.grid(canvas))
    content = torch.randn(1, count, level.config.width, dtype=torch.float64)
    for i in range(count):
        tracked = content.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(conditions(level, canvas, tracked)[0, i].square().sum(), tracked)
        size_by_child = gradient[0].norm(dim=-1)
        assert torch.all(size_by_child[i:] == 0)
        assert torch.all(size_by_child[:i] > 0)


@pytest.mark.parametrize("scan_order", ["column_major", "row_major"])
@pytest.mark.parametrize("generators", ["ar ar ar", "ar mar mar"])
def test_changing_a_cell_leaves_all_earlier_decisions_alone(scan_order: str, generators: str) -> None:
    """Embedded content and windows together: with a patch changed, no condition up to its own may move."""
    model = random_model(tiny_config(generators, patches=(4, 2, 1), width=8, scan_order=scan_order, context=(2, 4, 4)))
    level = model.root
    rolls = random_rolls(1, 4, 8, 1, seed=2)
    grid = level.grid(surround(rolls, level.margin, 4))
    z = exposed(model, rolls)
    for child in range(len(grid)):
        patches = grid.split(rolls).clone()
        patches[:, child] = (patches[:, child] == 0).long() * 2
        changed = exposed(model, grid.join(patches))
        assert torch.equal(changed[:, : child + 1], z[:, : child + 1])
        if child + 1 < len(grid):
            assert not torch.allclose(changed[:, child + 1 :], z[:, child + 1 :])


def exposed(model: FractalGen, rolls: Tensor) -> Tensor:
    """First-level conditions for real rolls, content embedding and windows included."""
    level = model.root
    canvas = surround(rolls, level.margin, model.config.vocabulary + 1)
    with torch.no_grad():
        return conditions(level, canvas, level.embed(level.features(level.grid(canvas).split(rolls))))


@pytest.mark.parametrize("iterations", [None, 3])
def test_mar_values_under_the_mask_change_nothing(iterations: int | None) -> None:
    """Under one mask (or one order), children that are not known yet may hold anything."""
    model = random_model(tiny_config("mar mar ar", patches=(4, 2, 1), width=8, context=(2, 4, 4)))
    level = model.root
    rolls, others = random_rolls(1, 4, 8, 1, seed=1), random_rolls(1, 4, 8, 1, seed=2)
    schedule: tuple[int, MarOrder] | None = None if iterations is None else (iterations, "random")
    grid = level.grid(surround(rolls, level.margin, 4))

    def lesson(tokens: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        canvas = surround(tokens, level.margin, model.config.vocabulary + 1)
        content = level.embed(level.features(grid.split(tokens)))
        base = level.place(grid)[None]
        everything = torch.ones(1, len(grid), dtype=torch.bool)
        regions = Regions(canvas)
        plan = level.generator.teacher_forcing(everything, schedule)
        return level.conditions(regions, Condition.plain(base[:, 0]), content, base, plan), plan.steps

    with torch.no_grad():
        z, steps = lesson(rolls)
        for step in range(1 if iterations is None else 0, int(steps.max()) + 1):
            hidden = steps >= step
            mixed = torch.where(hidden[..., None, None], grid.split(others), grid.split(rolls))
            changed, _ = lesson(grid.join(mixed))
            assert torch.equal(changed[steps == step], z[steps == step])
        known = steps < steps.max()
        mixed = torch.where(known[..., None, None], grid.split(others), grid.split(rolls))
        changed, _ = lesson(grid.join(mixed))
        assert not torch.allclose(changed[steps == steps.max()], z[steps == steps.max()])


@pytest.mark.parametrize("generators", ["ar ar ar", "mar mar ar", "mar ar ar"])
def test_child_canvases_hide_what_is_decided_later(generators: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every canvas that reaches a cell holds UNKNOWN wherever the cell beside it is not decided before."""
    model = random_model(tiny_config(generators, patches=(4, 2, 1), width=8))
    seen = []
    head = model.levels[-1]
    assert isinstance(head, VelocityHead)
    monkeypatch.setattr(head, "nll", lambda regions, *_: seen.append(regions.canvas))
    rolls = torch.full((1, 4, 8), 2)
    torch.manual_seed(0)
    model.nll(rolls)
    left = head.cell(torch.cat(seen), steps_before=1)
    unknown, outside = model.config.vocabulary, model.config.vocabulary + 1
    if generators == "ar ar ar":
        assert set(left.tolist()) == {2, outside}  # the left neighbour is always decided before
    else:
        assert unknown in left.tolist()

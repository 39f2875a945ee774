"""The likelihood is a probability, and the sampler draws from it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fractalgen.api import FractalGen
from fractalgen.config import MarOrder
from tests.model.properties.helpers import assert_drawn_from, every_roll, random_model, random_rolls, tiny_config

MIXES = ["ar ar ar", "ar ar mar", "mar mar ar", "mar ar mar", "ar mar ar", "mar mar mar"]
ITERATIONS = (2, 3, 1)


def log_probabilities(model: FractalGen, rolls: Tensor, seed: int = 3) -> Tensor:
    """Exact log p of each roll; for MAR levels under one order, the same for every roll."""
    result = []
    for roll in rolls:
        torch.manual_seed(seed)
        result.append(-model.nll(roll[None], num_iter_list=ITERATIONS).total)
    return torch.cat(result)


def same_order(batch: int, count: int, **_: object) -> Tensor:
    """In place of ``torch.rand``: the ranks of every MAR level are the same permutation for all rolls."""
    return torch.arange(count).mul(7).add(3).remainder(count + 1).float().expand(batch, count)


@pytest.mark.parametrize("scan_order", ["column_major", "row_major"])
@pytest.mark.parametrize("context", [(0, 0, 0), (1, 2, 1)])
def test_ar_probabilities_of_all_rolls_sum_to_one(scan_order: str, context: tuple[int, int, int]) -> None:
    model = random_model(tiny_config(scan_order=scan_order, context=context))
    with torch.no_grad():
        total = (-model.nll(every_roll(2, 4, 3)).total).exp().sum()
    assert total.item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("generators", MIXES[1:])
def test_mar_probabilities_sum_to_one_for_a_fixed_order_and_schedule(
    generators: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One order for all rolls: the random ranks of every MAR level are replaced by a fixed permutation."""
    model = random_model(tiny_config(generators))

    monkeypatch.setattr(torch, "rand", same_order)
    with torch.no_grad():
        total = (-model.nll(every_roll(2, 4, 3), num_iter_list=ITERATIONS).total).exp().sum()
    assert total.item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("generators", ["mar mar ar", "mar ar ar", "mar ar mar"])
def test_mar_in_scan_order_is_one_distribution_from_which_the_sampler_draws(generators: str) -> None:
    """No random order is left: the probabilities of all rolls sum to one, and frequencies agree with them."""
    model = random_model(tiny_config(generators, width=2, velocity_bins=2), seed=2)
    rolls = every_roll(2, 2, 4)
    with torch.no_grad():
        first, second = (model.nll(rolls, num_iter_list=ITERATIONS, mar_order="scan").total for _ in range(2))
    assert torch.equal(first, second)
    assert (-first).exp().sum().item() == pytest.approx(1.0, abs=1e-9)
    if not generators.endswith("mar ar"):  # an orphan that comes from drawing neighbours together is silenced
        assert_frequencies(model, (-first).exp(), seed=5, mar_order="scan")


KNOWN = torch.tensor([[[-1, 0, -1, -1], [-1, 2, -1, 1]]])
"""Two rows of four cells: a patch known in part, one whose known cell sounds and one whose known hold is its last."""


@pytest.mark.parametrize("future_context", [False, True])
@pytest.mark.parametrize("generators", MIXES)
def test_probabilities_given_known_cells_sum_to_one(
    generators: str, future_context: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rolls that agree with the known cells, under one order."""
    model = random_model(tiny_config(generators, future_context=future_context))
    rolls = every_roll(2, 4, 3)
    rolls = rolls[((rolls == KNOWN) | (KNOWN < 0)).all(-1).all(-1)]
    monkeypatch.setattr(torch, "rand", same_order)
    with torch.no_grad():
        nll = model.nll(rolls, num_iter_list=ITERATIONS, known=(KNOWN >= 0).expand_as(rolls))
        nothing = model.nll(rolls, num_iter_list=ITERATIONS, known=torch.ones_like(rolls, dtype=torch.bool))
        all_open = model.nll(rolls, num_iter_list=ITERATIONS, known=torch.zeros_like(rolls, dtype=torch.bool))
        plain = model.nll(rolls, num_iter_list=ITERATIONS)
    assert len(rolls) == 3**5
    assert (-nll.total).exp().sum().item() == pytest.approx(1.0, abs=1e-9)
    assert torch.all(nothing.total == 0)
    assert torch.equal(all_open.total, plain.total)
    torch.testing.assert_close(sum(nll.kinds.values()), nll.total)


def test_ar_likelihood_of_a_piece_is_that_of_its_beginning_and_of_the_rest_given_it() -> None:
    """The chain rule over time, which scoring long pieces by sliding windows rests on."""
    model = random_model(tiny_config(width=8))
    rolls = random_rolls(3, 2, 8, 1, seed=5)
    beginning = (torch.arange(8) < 4).expand_as(rolls)
    with torch.no_grad():
        rest, first, whole = (model.nll(rolls, known=known).total for known in (beginning, ~beginning, None))
    assert torch.all(first > 0)
    assert torch.all(rest > 0)
    torch.testing.assert_close(first + rest, whole)


@pytest.mark.slow
@pytest.mark.parametrize("future_context", [False, True])
@pytest.mark.parametrize("generators", ["ar ar ar", "mar mar ar", "mar ar ar", "ar mar mar"])
def test_sampler_given_known_cells_draws_from_the_likelihood(
    generators: str, future_context: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chi-square over all rolls that agree with the known cells, averaged over the orders of MAR levels."""
    model = random_model(tiny_config(generators, future_context=future_context), seed=1)
    monkeypatch.setattr("fractalgen.model.sampling.windows.drop_orphans", lambda tokens: tokens)
    rolls = every_roll(2, 4, 3)
    agree = ((rolls == KNOWN) | (KNOWN < 0)).all(-1).all(-1)
    torch.manual_seed(0)
    orders = 100 if "mar" in generators else 1
    known = (KNOWN >= 0).expand(orders * int(agree.sum()), -1, -1)
    with torch.no_grad():
        many = model.nll(rolls[agree].repeat(orders, 1, 1), num_iter_list=ITERATIONS, known=known).total
    probability = torch.zeros(len(rolls), dtype=torch.float64)
    probability[agree] = (-many.view(orders, -1)).exp().mean(0)
    assert_frequencies(model, probability, seed=6, slack=1.3 if "mar" in generators else 1.0, known=KNOWN, width=4)


@pytest.mark.slow
def test_many_candidates_make_an_ar_model_draw_given_both_sides() -> None:
    """Chi-square against ``p(roll) / p(all rolls that agree)``: resampling corrects what the proposal cannot know."""
    model = random_model(tiny_config(), seed=1)
    rolls = every_roll(2, 4, 3)
    agree = ((rolls == KNOWN) | (KNOWN < 0)).all(-1).all(-1)
    with torch.no_grad():
        joint = torch.where(agree, (-model.nll(rolls).total).exp(), 0.0)
        past_only = -model.nll(rolls[agree], known=(KNOWN >= 0).expand(int(agree.sum()), -1, -1)).total
    given_both = joint / joint.sum()
    assert (
        0.5 * (given_both[agree] - past_only.exp()).abs().sum() > 0.1
    )  # total variation: there is something to correct
    assert_frequencies(model, given_both, seed=6, slack=1.3, known=KNOWN, width=4, candidates=30, count=1000)


def test_levels_that_listen_react_to_known_cells_ahead() -> None:
    """With future context an AR model gives the first cell another probability when the last ones change."""
    rolls = torch.zeros(2, 2, 4, dtype=torch.long)
    rolls[1, :, 2] = 2
    known = torch.zeros_like(rolls, dtype=torch.bool)
    known[:, :, 2:] = True
    for future_context in (False, True):
        model = random_model(tiny_config(future_context=future_context))
        with torch.no_grad():
            silence, sound = model.nll(rolls, known=known).total
        assert (abs(float(silence - sound)) > 1e-3) == future_context


@pytest.mark.parametrize("generators", MIXES)
@pytest.mark.parametrize("training", [False, True])
def test_silence_has_a_likelihood_and_a_gradient(generators: str, training: bool) -> None:
    """Nothing is visited below the first level; its gates alone carry the loss."""
    model = random_model(tiny_config(generators)).train(training)
    nll = model.nll(torch.zeros(2, 2, 4, dtype=torch.long))
    assert torch.all(nll.total > 0)
    assert torch.equal(nll.total, nll.terms["L0/gate"])
    nll.total.sum().backward()
    assert model.root.gate.weight.grad is not None


@pytest.mark.parametrize("generators", ["ar ar ar", "ar ar mar"])
def test_ar_sampler_draws_from_the_likelihood(generators: str) -> None:
    """Chi-square over all rolls of a 2 x 2 grid; rare rolls are pooled."""
    model = random_model(tiny_config(generators, width=2, velocity_bins=2), seed=1)
    rolls = every_roll(2, 2, 4)
    with torch.no_grad():
        probability = (-model.nll(rolls).total).exp()
    assert_frequencies(model, probability, seed=5)


@pytest.mark.slow
@pytest.mark.parametrize("generators", ["mar mar ar", "mar ar mar", "ar mar ar"])
def test_mar_sampler_draws_from_the_likelihood(generators: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for MAR, averaged over all orders of its two patches and four cells by sampling them often."""
    model = random_model(tiny_config(generators, width=2, velocity_bins=1), seed=2)
    monkeypatch.setattr("fractalgen.model.sampling.windows.drop_orphans", lambda tokens: tokens)
    rolls = every_roll(2, 2, 3)
    torch.manual_seed(0)
    orders = 500
    with torch.no_grad():
        many = model.nll(rolls.repeat(orders, 1, 1), num_iter_list=ITERATIONS).total.view(orders, -1)
    assert_frequencies(model, (-many).exp().mean(0), seed=6, slack=1.3)


def assert_frequencies(
    model: FractalGen,
    probability: Tensor,
    seed: int,
    slack: float = 1.0,
    known: Tensor | None = None,
    width: int = 2,
    candidates: int = 1,
    count: int = 6_000,
    mar_order: MarOrder = "random",
) -> None:
    """``count`` samples have these probabilities of all rolls of two pitches."""
    assert probability.sum().item() == pytest.approx(1.0, abs=0.02)
    tokens, _ = model.sample(
        count,
        num_iter_list=ITERATIONS,
        generator=torch.Generator().manual_seed(seed),
        width=width,
        known=None if known is None else known.expand(count, -1, -1),
        candidates=candidates,
        mar_order=mar_order,
    )
    assert_drawn_from(tokens, every_roll(2, width, model.config.vocabulary), probability, slack, least=10)


@pytest.mark.parametrize("generators", ["mar mar ar", "mar ar ar", "ar mar mar"])
def test_random_masks_estimate_the_one_by_one_bound(generators: str) -> None:
    """The training loss of MAR is, on average, the exact NLL of random orders drawn one by one."""
    model = random_model(tiny_config(generators))
    roll = random_rolls(1, 2, 4, 1, seed=4)
    torch.manual_seed(0)
    repeats = 2000
    with torch.no_grad():
        one_by_one = model.nll(roll.expand(repeats, -1, -1), num_iter_list=(2, 4, 1)).total
        estimate = model.nll(roll.expand(repeats, -1, -1)).total
    error = math.hypot(one_by_one.std().item(), estimate.std().item()) / math.sqrt(repeats)
    assert estimate.mean().item() == pytest.approx(one_by_one.mean().item(), abs=5 * error)
    assert error < 0.3


@pytest.mark.slow
def test_sampling_of_children_is_unbiased() -> None:
    """With a limit on visited children the loss keeps its mean; without one it is exact."""
    rolls = random_rolls(3, 2, 8, 1)
    full = random_model(tiny_config(width=8)).train()
    limited = random_model(tiny_config(width=8, max_children=(0, 3, 4))).train()
    with torch.no_grad():  # training mode alone scores everything
        assert torch.equal(limited.nll(rolls).total, full.nll(rolls).total)
    torch.manual_seed(0)
    with torch.no_grad():
        exact = full.nll(rolls).total.sum().item()
        estimates = torch.stack([limited.nll(rolls, subsample=True).total.sum() for _ in range(200)])
    error = estimates.std().item() / math.sqrt(len(estimates))
    assert estimates.std() > 0
    assert estimates.mean().item() == pytest.approx(exact, abs=5 * error)


@pytest.mark.parametrize("generators", ["ar ar ar", "ar ar mar"])
def test_velocities_that_mean_nothing_are_not_scored(generators: str) -> None:
    """Of a note struck in the last cell, which no other cell follows, the likelihood sums over all velocities."""
    model = random_model(tiny_config(generators, velocity_bins=3))
    rolls = torch.zeros(3, 2, 4, dtype=torch.long)
    rolls[:, 1, 3] = 2 + torch.arange(3)
    with torch.no_grad():
        scored = (-model.nll(rolls).total).exp()
        flat = (-model.nll(rolls, flat=torch.tensor([True, False, True])).total).exp()
    assert flat[0].item() == pytest.approx(scored.sum().item())
    assert flat[1].item() == pytest.approx(scored[1].item())
    assert flat[2].item() == pytest.approx(flat[0].item())

"""Plans and steps that do not exist: what stays true of rolls under them, and of the planner that draws them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fractalgen.api import FractalGen
from fractalgen.config import SamplingConfig
from fractalgen.model.harmony import chord_table, seen_from
from fractalgen.model.plans import Plans
from fractalgen.music.chords import CODES, NO_CHORD, UNTOLD, parse_chord
from fractalgen.music.plan import MOST_LEFT
from fractalgen.sampling import draw_plans, sample_rolls
from tests.model.properties.helpers import assert_drawn_from, every_roll, random_model, random_rolls, tiny_config
from tests.model.properties.test_distribution import ITERATIONS, MIXES, same_order

C, F_SHARP_M7, B_FLAT_OVER_D = (parse_chord(text) for text in ("C", "F#m7", "Bb/D"))
ABSENT = {"all": [False] * 4, "short": [False, True, False, False], "silent": [False, False, True, True]}
"""Two columns of two steps: whole bars, a first bar of one step, a piece that ends after the first bar."""


def model_with_plans(generators: str = "ar ar ar", **settings: object) -> FractalGen:
    settings = {"bar_columns": True, "plan_width": 8, **settings}
    return random_model(tiny_config(generators, **settings))  # type: ignore[arg-type]


def plans(kind: str = "told") -> Plans:
    """A plan of two columns; the second comes back to the first, or to a bar before the window."""
    free = Plans.free(1, 2, 2, 2, torch.device("cpu"))
    told = replace(
        free,
        chords=torch.tensor([[F_SHARP_M7, B_FLAT_OVER_D]]),
        back=torch.tensor([[0, 1]]),
        left=torch.tensor([[2, 1]]),
    )
    outside = replace(
        told,
        back=torch.tensor([[2, 3]]),
        before=torch.tensor([3]),
        bank=torch.tensor([[[2, 1, 0, 2], [0, 0, 2, 1]]]),
        bank_chords=torch.tensor([[C, NO_CHORD]]),
    )
    partly = replace(told, chords=torch.tensor([[UNTOLD, C]]), left=torch.tensor([[0, 0]]))
    return {"free": free, "told": told, "outside": outside, "partly": partly}[kind]


def repeated(one: Plans, count: int) -> Plans:
    return one.each(lambda x: x.expand(count, *x.shape[1:]))


def probabilities(
    model: FractalGen, rolls: Tensor, plan: Plans, absent: Tensor | None = None, known: Tensor | None = None
) -> Tensor:
    with torch.no_grad():
        nll = model.nll(
            rolls,
            num_iter_list=ITERATIONS,
            known=known,
            plans=repeated(plan, len(rolls)),
            absent=None if absent is None else absent.expand(len(rolls), -1),
        )
    return (-nll.total).exp()


@pytest.mark.parametrize("absent", ABSENT)
@pytest.mark.parametrize("kind", ["told", "outside", "partly"])
@pytest.mark.parametrize(
    ("generators", "scan_order"),
    [
        ("ar ar ar", "column_major"),
        ("ar ar ar", "row_major"),
        ("mar mar mar", "column_major"),
        ("mar ar ar", "row_major"),
        ("ar mar ar", "column_major"),
    ],
)
def test_probabilities_of_all_rolls_under_a_plan_sum_to_one(
    generators: str, kind: str, absent: str, scan_order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rolls that are equal where steps exist, one is counted: the tokens of other steps are not looked at."""
    model = model_with_plans(generators, scan_order=scan_order)
    monkeypatch.setattr(torch, "rand", same_order)
    gone = torch.tensor(ABSENT[absent])
    rolls = every_roll(2, 4, 3)
    rolls = rolls[(rolls[..., gone] == 0).flatten(1).all(1)]
    total = probabilities(model, rolls, plans(kind), gone).sum()
    assert total.item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("future_context", [False, True])
@pytest.mark.parametrize("generators", MIXES)
def test_probabilities_given_known_cells_and_a_plan_sum_to_one(
    generators: str, future_context: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_with_plans(generators, future_context=future_context)
    monkeypatch.setattr(torch, "rand", same_order)
    given = torch.tensor([[[-1, 0, -1, -1], [-1, 0, 2, -1]]])
    gone = torch.tensor(ABSENT["short"])
    rolls = every_roll(2, 4, 3)
    rolls = rolls[(rolls[..., gone] == 0).flatten(1).all(1)]
    rolls = rolls[((rolls == given) | (given < 0)).flatten(1).all(1)]
    known = (given >= 0).expand(len(rolls), -1, -1)
    total = probabilities(model, rolls, plans(), gone, known).sum()
    assert total.item() == pytest.approx(1.0, abs=1e-9)


def test_tokens_of_steps_that_do_not_exist_are_not_looked_at() -> None:
    model = model_with_plans()
    gone = torch.tensor(ABSENT["short"])
    rolls = random_rolls(5, 2, 4, 1)
    other = rolls.clone()
    other[..., 1] = 2
    assert torch.equal(probabilities(model, rolls, plans(), gone), probabilities(model, other, plans(), gone))


@pytest.mark.parametrize("generators", ["ar ar ar", "mar ar ar"])
@pytest.mark.parametrize("absent", ["all", "short"])
@pytest.mark.parametrize("future_context", [False, True])
@pytest.mark.slow
def test_samples_are_drawn_from_the_likelihood_under_a_plan(generators: str, absent: str, future_context: bool) -> None:
    """A chi-square test over all rolls; what comes back from before the window is in the bank."""
    model = model_with_plans(generators, future_context=future_context)
    gone = torch.tensor(ABSENT[absent])
    rolls = every_roll(2, 4, 3)
    rolls = rolls[(rolls[..., gone] == 0).flatten(1).all(1)]
    assert_sampled(model, rolls, plans("outside"), gone, least=20)


def assert_sampled(
    model: FractalGen, rolls: Tensor, told: Plans, gone: Tensor, given: Tensor | None = None, *, least: int
) -> None:
    """A chi-square test of samples under a plan: each of the rolls is drawn as often as its likelihood says.

    ``gone``: steps that do not exist.  ``given``: cells of one roll that are known, -1 elsewhere.
    """
    schedule: Any = {"num_iter_list": ITERATIONS, "mar_order": "scan"}
    known = None if given is None else (given >= 0).expand_as(rolls)
    absent = gone.expand(len(rolls), -1)
    with torch.no_grad():
        nll = model.nll(rolls, known=known, plans=repeated(told, len(rolls)), absent=absent, **schedule).total
    count = 8_000
    drawn, _ = sample_rolls(
        model,
        SamplingConfig(**schedule),
        count,
        known=None if given is None else given.expand(count, -1, -1),
        plans=repeated(told, count),
        absent=gone,
        generator=torch.Generator().manual_seed(4),
    )
    assert_drawn_from(drawn.masked_fill(gone, 0), rolls, (-nll).exp(), least=least)


def test_recording_changes_no_bit_and_a_plan_changes_the_music() -> None:
    model = model_with_plans()

    def draw(plan: Plans, record: bool) -> Tensor:
        return sample_rolls(
            model,
            SamplingConfig(num_iter_list=ITERATIONS),
            64,
            width=4,
            plans=repeated(plan, 64),
            return_intermediates=record,
            generator=torch.Generator().manual_seed(1),
        )[0]

    assert torch.equal(draw(plans(), False), draw(plans(), True))
    assert not torch.equal(draw(plans(), False), draw(plans("outside"), False))


def test_every_level_hears_of_chords_and_returns() -> None:
    """Each part of a plan changes what every level says, and only where it is told."""
    model = model_with_plans("ar ar ar ar", patches=(4, 4, 2, 1), width=8)
    rolls = random_rolls(1, 4, 8, 1)
    free = Plans.free(1, 2, 4, 4, torch.device("cpu"))
    changed = {
        "chords": replace(free, chords=torch.full((1, 8), C)),
        "back": replace(free, back=torch.tensor([[0, 1]])),
        "left": replace(free, left=torch.tensor([[2, 1]])),
    }
    before = model.nll(rolls, plans=free).terms
    for plan in changed.values():
        after = model.nll(rolls, plans=plan).terms
        for level in ("L0/gate", "L1/gate", "L2/gate"):
            assert not torch.allclose(before[level], after[level])


def test_guidance_tells_the_second_stream_nothing() -> None:
    """With guidance 0 the music is that of a model that is told nothing."""
    model = model_with_plans(width=4)
    drawn = [
        sample_rolls(
            model,
            SamplingConfig(num_iter_list=ITERATIONS, cfg=cfg),
            16,
            plans=repeated(plans(kind), 16),
            generator=torch.Generator().manual_seed(2),
        )[0]
        for kind, cfg in (("told", 0.0), ("free", 1.0), ("told", 1.0))
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_chords_seen_from_another_pitch_are_transposed_chords() -> None:
    codes = torch.arange(CODES)
    table = chord_table()
    for pitch in (0, 5, 11, 26):
        seen = table[seen_from(codes, torch.tensor(pitch))]
        for part in (slice(0, 12), slice(12, 24), slice(24, 36)):
            assert torch.equal(seen[:, part], table[:, part].roll(-pitch, 1))
        assert torch.equal(seen[:, 36:], table[:, 36:])


def test_transposed_music_in_a_transposed_plan_is_as_likely_for_the_planner() -> None:
    """Roots are counted from the tonic of the key."""
    model = model_with_plans()
    assert model.planner is not None
    keys = torch.tensor([1, 6])  # C and F major
    both = replace(
        repeated(plans(), 2),
        chords=torch.tensor([[C, parse_chord("G7")], [parse_chord("F"), parse_chord("C7")]]),
    )
    costs = model.planner.nll(both, keys)
    for cost in costs.values():
        assert cost[0] == cost[1]


def test_probabilities_of_plans_sum_to_one() -> None:
    """Of all second columns after a first one, together as probable as the first one alone."""
    model = model_with_plans()
    codes = torch.arange(1, CODES)
    options = torch.tensor(list(itertools.product((0, 1), codes.tolist())))
    first = F_SHARP_M7
    many = replace(
        repeated(plans("free"), len(options)),
        chords=torch.stack([torch.full((len(options),), first), options[:, 1]], 1),
        back=torch.stack([torch.zeros(len(options), dtype=torch.long), options[:, 0]], 1),
    )
    alone = replace(plans("free"), chords=torch.tensor([[first, UNTOLD]]), back=torch.tensor([[0, -1]]))
    with torch.no_grad():
        together = (-torch.stack(list(model.plan_nll(many).values())).sum(0)).exp().sum()
        cost = torch.stack(list(model.plan_nll(alone).values())).sum(0)
        start = replace(
            repeated(plans("free"), len(codes)),
            chords=torch.stack([codes, torch.zeros_like(codes)], 1),
            back=torch.tensor([[0, -1]]).expand(len(codes), -1),
        )
        whole = (-torch.stack(list(model.plan_nll(start).values())).sum(0)).exp().sum()
    assert together.item() == pytest.approx((-cost).exp().item(), rel=1e-9)
    assert whole.item() == pytest.approx(1.0, abs=1e-9)


def test_plans_are_drawn_as_they_are_scored_and_what_is_told_is_kept() -> None:
    model = model_with_plans(width=4)
    count = 6000
    free = replace(plans("free"), left=torch.tensor([[2, 1]]))
    wanted = replace(repeated(free, count), chords=torch.tensor([[F_SHARP_M7, UNTOLD]]).expand(count, -1))
    drawn = draw_plans(model, SamplingConfig(), wanted, generator=torch.Generator().manual_seed(0))
    assert (drawn.chords[:, 0] == F_SHARP_M7).all()
    assert (drawn.chords > 0).all()
    assert (drawn.back[:, 0] == 0).all()
    found = (drawn.back[:, 1] == 1).double().mean()
    alone = [
        replace(free, chords=torch.tensor([[F_SHARP_M7, UNTOLD]]), back=torch.tensor([[0, back]])) for back in (0, 1)
    ]
    with torch.no_grad():
        costs = [model.plan_nll(plan, decided=plans("free"))["plan/returns"].item() for plan in alone]
    expected = torch.tensor(costs).neg().softmax(0)[1]
    assert abs(found - expected) < 0.03
    # a chord after it, one of the likeliest
    with torch.no_grad():
        chosen, times = drawn.chords[drawn.back[:, 1] == 1][:, 1].unique(return_counts=True)
        code = int(chosen[times.argmax()])
        plan = replace(alone[1], chords=torch.tensor([[F_SHARP_M7, code]]))
        probability = (alone_chords(model, alone[1]) - alone_chords(model, plan)).exp().item()
    assert times.max().item() / times.sum().item() == pytest.approx(probability, rel=0.3)


def test_where_bars_left_are_not_told_many_are_taken_to_be_left() -> None:
    """As the planner was trained; what is not told stays so in the plan, and behind the end nothing is left."""
    model = model_with_plans(width=4)

    def draw(left: list[int], absent: Tensor | None = None) -> Plans:
        wanted = replace(repeated(plans("free"), 64), left=torch.tensor([left]).expand(64, -1))
        generator = torch.Generator().manual_seed(0)
        return draw_plans(model, SamplingConfig(), wanted, absent, generator=generator)

    untold, many, few = draw([0, 0]), draw([MOST_LEFT, MOST_LEFT]), draw([2, 1])
    assert torch.equal(untold.chords, many.chords)
    assert torch.equal(untold.back, many.back)
    assert not untold.left.any()
    assert not torch.equal(untold.chords, few.chords)
    short = torch.tensor([False, False, True, True])
    assert torch.equal(draw([0, 0], short).back, draw([MOST_LEFT, 0], short).back)
    assert not torch.equal(draw([0, 0], short).back, draw([MOST_LEFT, MOST_LEFT], short).back)


def alone_chords(model: FractalGen, plan: Plans) -> Tensor:
    return model.plan_nll(plan)["plan/chords"]


@pytest.mark.parametrize("generators", ["ar ar ar", "mar ar ar", "mar mar ar"])
@pytest.mark.parametrize("known_first", [True, False])
@pytest.mark.slow
def test_samples_beside_given_cells_in_short_bars(generators: str, known_first: bool) -> None:
    """A given note may be held over the end of a short bar, by what is composed after it as the likelihood says."""
    model = model_with_plans(generators, width=4, future_context=True)
    gone = torch.tensor(ABSENT["short"])
    given = torch.full((1, 2, 4), -1)
    if known_first:
        given[0, :, 0] = torch.tensor([2, 0])
    else:
        given[0, :, 2] = torch.tensor([1, 2])
        given[0, 0, 0] = 2
    rolls = every_roll(2, 4, 3)
    rolls = rolls[(rolls[..., gone] == 0).flatten(1).all(1)]
    rolls = rolls[((rolls == given) | (given < 0)).flatten(1).all(1)]
    assert_sampled(model, rolls, plans(), gone, given, least=5)


def test_guidance_of_the_planner_strengthens_the_key() -> None:
    """With guidance 0 a key is as good as none (C: its roots are counted from where those without a key are)."""
    model = model_with_plans(width=4)
    assert model.planner is not None
    free, exists = repeated(plans("free"), 64), torch.ones(64, 2, dtype=torch.bool)

    def draw(key: int, guidance: float) -> Tensor:
        generator = torch.Generator().manual_seed(3)

        def choose(logits: Tensor) -> Tensor:
            return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]

        assert model.planner is not None
        return model.planner.draw(free, exists, torch.full((64,), key), choose, guidance).chords

    assert torch.equal(draw(1, 0.0), draw(0, 1.0))
    assert not torch.equal(draw(1, 1.0), draw(0, 1.0))
    assert not torch.equal(draw(1, 3.0), draw(1, 1.0))

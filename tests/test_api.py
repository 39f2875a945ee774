"""The interface of Python: wishes in Python's terms, and music that is given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fractalgen import FractalGen, PianoRoll, SamplingConfig
from fractalgen.errors import UserError
from fractalgen.music.tokens import HOLD, ONSET
from tests import tiny


@pytest.fixture(scope="module")
def model() -> FractalGen:
    torch.manual_seed(0)
    return FractalGen(tiny.model_config(reveal_share=0.5)).eval()


@pytest.fixture(scope="module")
def piece() -> PianoRoll:
    tokens = np.zeros((128, 64), np.uint8)
    for bar in range(4):
        tokens[60 + bar, 16 * bar] = ONSET + 9
        tokens[60 + bar, 16 * bar + 1 : 16 * bar + 12] = HOLD
        tokens[40, 16 * bar + 4] = ONSET + 20
    return PianoRoll(tokens, tempos=((0, 90.0),), time_signatures=((0, 4, 4),))


@pytest.mark.slow
def test_a_piece_is_as_long_as_asked_and_the_same_seed_gives_the_same(model: FractalGen) -> None:
    (roll,) = model.generate(bars=1.5, seed=3, tempo=80)
    assert roll.width == 24
    assert roll.tempos == ((0, 80.0),)
    assert model.generate(bars=1.5, seed=3, tempo=80) == [roll]
    warm = model.generate(bars=1.5, seed=3, tempo=80, sampling=SamplingConfig(temperature=5.0))
    assert not np.array_equal(warm[0].tokens, roll.tokens)


@pytest.mark.slow
def test_what_is_given_stays(model: FractalGen, piece: PianoRoll) -> None:
    (longer,) = model.continue_(piece, bars=1, seed=0)
    assert longer.width == 80
    assert np.array_equal(longer.tokens[:, :64], piece.tokens)
    assert longer.tempos == piece.tempos
    (other,) = model.continue_(piece, after=2, bars=1, seed=0)
    assert other.width == 48
    assert np.array_equal(other.tokens[:, :32], piece.tokens[:, :32])
    (filled,) = model.inpaint(piece, bars="2-3", seed=0)
    outside = np.r_[0:16, 48:64]
    assert np.array_equal(filled.tokens[:, outside], piece.tokens[:, outside])
    (low,) = model.inpaint(piece, mask="pitch=:48", seed=0)
    assert np.array_equal(low.tokens[48:], piece.tokens[48:])
    (under,) = model.accompany(piece, bars="2", seed=0)
    assert np.array_equal(under.tokens[61:], piece.tokens[61:])
    assert np.array_equal(under.tokens[:, :16], piece.tokens[:, :16])
    (varied,) = model.vary(piece, strength=0.1, seed=0)
    patches = (varied.tokens != piece.tokens).reshape(8, 16, 4, 16).any((1, 3))
    assert patches.sum() <= 2  # one drawn patch, and the rest of a note that it cuts


@pytest.mark.slow
def test_plans_in_python() -> None:
    torch.manual_seed(0)
    planner = FractalGen(tiny.model_config(reveal_share=0.5, plan_width=8)).eval()
    rolls, traces = planner.generate(chords="C G | Am F", form="A2 A2", seed=0, return_trace=True)
    assert rolls[0].width == 64
    assert traces[0].plan is not None
    assert traces[0].plan.returns.tolist() == [-1, -1, 0, 1]
    assert rolls[0] == traces[0].roll
    assert planner.generate(chords="C G Am F C G", seed=0)[0].width == 96
    (longer,) = planner.continue_(rolls[0], after=2, form="A2 B1")
    assert longer.width == 48
    with pytest.raises(UserError, match=r"^form A2: 2 bars in all, the piece has 3"):
        planner.generate(form="A2", bars=3)
    with pytest.raises(UserError, match=r"^chords: position 1: 'X' is no chord"):
        planner.generate(chords="X")


def test_a_model_without_plans_refuses_them(model: FractalGen) -> None:
    with pytest.raises(UserError, match=r"^chords C: untrained was trained without plans"):
        model.generate(chords="C")


@pytest.mark.parametrize(
    ("call", "settings", "message"),
    [
        ("generate", {"bars": 1, "width": 32}, "bars 1 and width 32: give only one length"),
        ("generate", {"bars": -1}, "bars -1: must be more than 0"),
        ("generate", {"tempo": 1}, "tempo 1: must be from 4"),
        ("generate", {"width": 0}, "target_width 0: a piece has 1 to 65,535 time steps"),
        ("generate", {"key": "D minor"}, "key D minor: this model knows no key"),
        ("continue_", {"after": 9}, "after 9: the piece has 4 bars"),
        ("inpaint", {}, "mask: an empty region"),
        ("inpaint", {"bars": "9"}, "bars 9"),
        ("generate", {"bars": float("nan")}, "bars nan: must be a number"),
        ("generate", {"bars": 1e7}, "bars 10000000.0: must be more than 0, and at most 65,535"),
        ("inpaint", {"mask": "time=3"}, "mask time=3"),
        ("accompany", {"side": "above", "voice": "loudest"}, "voice loudest"),
        ("vary", {"strength": 0}, "strength 0: a share"),
    ],
)
def test_errors_name_arguments_and_no_flags(
    model: FractalGen, piece: PianoRoll, call: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        getattr(model, call)(*(() if call == "generate" else (piece,)), **settings)
    assert "--" not in str(caught.value)


def test_a_roll_of_another_grid_is_refused(model: FractalGen, piece: PianoRoll) -> None:
    fine = PianoRoll(piece.tokens, steps_per_quarter=8)
    with pytest.raises(UserError, match="a roll of 8 steps a quarter and 32 velocity bins: this model has 4 and"):
        model.continue_(fine)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="checkpoint nowhere: no such file"):
        FractalGen.from_pretrained("nowhere")


def test_a_model_that_sees_no_future_neither_accompanies_nor_varies(piece: PianoRoll) -> None:
    blind = FractalGen(tiny.model_config()).eval()
    for ask in (blind.accompany, blind.vary):
        with pytest.raises(UserError, match=rf"^{ask.__name__}: .*cannot use given music that comes later"):
            ask(piece)


def test_a_mask_of_another_shape_or_kind_is_refused(model: FractalGen, piece: PianoRoll) -> None:
    for mask, found in ((np.zeros((128, 8), bool), "bool (128, 8)"), (np.zeros((128, 64), int), "int64 (128, 64)")):
        with pytest.raises(UserError, match=re.escape(f"mask: {found}, the roll needs bool (128, 64)")):
            model.inpaint(piece, mask=mask)


def test_a_roll_without_notes_cannot_be_continued(model: FractalGen) -> None:
    with pytest.raises(UserError, match=r"^roll: no note in the first 64 steps"):
        model.continue_(PianoRoll(np.zeros((128, 64), np.uint8)))

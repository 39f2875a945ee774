"""The planner reads every decision once, and draws what it would draw if it read all of them each time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fractalgen.model import planner as module
from fractalgen.model.planner import Planner, States
from fractalgen.model.plans import Plans
from fractalgen.music.chords import UNTOLD, parse_chord

SEEN, COLUMNS, STEPS = 3, 8, 8  # columns seen at once, of the piece, and the steps of a column: two chords
KEYS = {"without a key": ([0, 0, 0], 1.0), "guided towards a key": ([10, 0, 13], 2.5)}


class Anew(States):
    """The oracle: the whole window is read for every decision."""

    def __call__(self, column: int, slot: int) -> Tensor:
        window = self.plans().window(max(0, column + 1 - self.planner.columns), column + 1)
        states = self.planner.transformer(self.planner.inputs(window, self.key), causal=True)
        return states.unflatten(1, (-1, 1 + self.planner.units))[:, -1, slot]


def partly_told() -> Plans:
    """Three pieces in which some chords and returns are told, a whole column among them."""
    free = Plans.free(3, COLUMNS, 4, STEPS, torch.device("cpu"))
    chords, back = free.chords.clone(), free.back.clone()
    chords[0, 3], chords[:, 4:6] = parse_chord("F#m7"), parse_chord("Bb/D")
    back[1, 5], back[:, 2] = 4, 0
    return replace(free, chords=chords, back=back, left=torch.arange(COLUMNS, 0, -1).expand(3, -1))


@pytest.mark.parametrize(("key", "guidance"), KEYS.values(), ids=KEYS)
def test_decisions_are_drawn_as_if_everything_were_read_anew(
    key: list[int], guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    planner = Planner(16, SEEN, STEPS).double().eval()
    for weight in planner.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    exists = torch.ones(3, COLUMNS * planner.units, dtype=torch.bool)
    exists[1, -3:] = False

    def drawn() -> tuple[Plans, list[Tensor]]:
        generator, seen = torch.Generator().manual_seed(1), []

        def draw(logits: Tensor) -> Tensor:
            seen.append(logits)
            return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]

        return planner.draw(partly_told(), exists, torch.tensor(key), draw, guidance), seen

    plans, logits = drawn()
    monkeypatch.setattr(module, "States", Anew)
    wanted, expected = drawn()
    assert torch.equal(plans.chords, wanted.chords)
    assert torch.equal(plans.back, wanted.back)
    assert (plans.back > 0).any()
    assert ((plans.chords != UNTOLD) == exists).all()
    for one, other in zip(logits, expected, strict=True):
        torch.testing.assert_close(one, other)

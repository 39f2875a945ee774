"""Random known cells for training."""

from __future__ import annotations

import torch

from fractalgen.model.masking import random_known


def test_every_kind_of_known_cells_comes_up_at_the_asked_share() -> None:
    torch.manual_seed(0)
    tokens = torch.zeros(400, 16, 24, dtype=torch.long)
    known = random_known(tokens, 0.5)
    some = known.any(-1).any(-1)
    assert 0.4 < some.float().mean() < 0.6
    assert not random_known(tokens, 0.0).any()

    same_in_time = (known == known[:, :, :1]).all(-1).all(-1)  # voices: a pitch is known all the time or never
    same_in_pitch = (known == known[:, :1]).all(-1).all(-1)  # spans and single time steps: all pitches or none
    changes = (known[:, 0, 1:] != known[:, 0, :-1]).sum(-1)
    full = known.all(-1).all(-1)
    voices = some & same_in_time & ~same_in_pitch
    spans = some & same_in_pitch & (changes <= 2) & ~full
    steps = some & same_in_pitch & (changes > 2)
    cells = some & ~same_in_time & ~same_in_pitch
    for kind in (voices, spans, steps, cells):
        assert kind.sum() > 20
    assert torch.all(known[spans].float().mean((1, 2)) < 1)
    above = known[voices][:, :, 0]
    assert above[:, -1].any()
    assert above[:, 0].any()
    assert torch.all((above[:, 1:] != above[:, :-1]).sum(-1) == 1)


def test_a_melody_is_known_or_what_lies_under_it() -> None:
    """While the melody rests its last pitch is the border; before its first note nothing is above it."""
    tokens = torch.zeros(1, 6, 5, dtype=torch.long)
    tokens[0, 3, 1] = 2
    tokens[0, 4, 3] = 2
    tokens[0, 1, 1:] = torch.tensor([2, 0, 1, 1])
    border = torch.tensor([5, 3, 3, 4, 1])
    melody = torch.arange(6)[:, None] >= border
    torch.manual_seed(0)
    known = random_known(tokens.expand(500, -1, -1), 1.0)
    for wanted in (melody, ~melody):
        assert 50 < (known == wanted).all(-1).all(-1).sum() < 120  # a sixth of the crops

"""Echoes: what they show and what they hide, worked out by hand."""

from __future__ import annotations

import pytest
import torch

from fractalgen.model.grid import Grid, neighbours
from fractalgen.model.long_context import find_long_context

UNKNOWN, OUTSIDE = 3, 4  # after silence, hold and one velocity


@pytest.mark.parametrize("order", ["column_major", "row_major"])
def test_neighbours_stand_in_the_same_row(order: str) -> None:
    """Two rows of three columns; one column earlier, two earlier, one later."""
    grid = Grid(2, 3, 4, 4, order)  # type: ignore[arg-type]
    table = neighbours(grid, (1, 2, -1), torch.device("cpu"))
    place = {(r, c): (c * 2 + r if order == "column_major" else r * 3 + c) for r in range(2) for c in range(3)}
    for (row, col), number in place.items():
        expected = [place.get((row, col - shift), 6) for shift in (1, 2, -1)]
        assert table[number].tolist() == expected


def roll() -> torch.Tensor:
    """Two pitches, three patches of two steps; an onset held in the first, one in the second, two in the third."""
    return torch.tensor([[[2, 1, 0, 0, 0, 2], [0, 0, 0, 2, 2, 0]]])


def recall(steps: list[int] | None, given: torch.Tensor | None = None) -> torch.Tensor:
    """Echoes of all three patches of :func:`roll`, one patch earlier and one later."""
    order = None if steps is None else torch.tensor([steps])
    region, child = torch.zeros(3, dtype=torch.long), torch.arange(3)
    return find_long_context(Grid(1, 3, 2, 2), roll(), (1, -1), region, child, UNKNOWN, order, given)


def test_echoes_show_what_is_decided_earlier_and_hide_the_rest() -> None:
    first, second, third = (roll()[0, :, i : i + 2] for i in (0, 2, 4))
    nothing, beyond = torch.full((2, 2), UNKNOWN), torch.full((2, 2), OUTSIDE)
    long_context = recall([0, 1, 2])
    for child, expected in enumerate([(beyond, nothing), (first, nothing), (second, beyond)]):
        assert torch.equal(long_context[child], torch.stack(expected))
    long_context = recall([1, 0, 1])  # what is decided at the same moment is hidden too
    for child, expected in enumerate([(beyond, second), (nothing, nothing), (second, beyond)]):
        assert torch.equal(long_context[child], torch.stack(expected))
    long_context = recall(None)
    assert torch.equal(long_context[1], torch.stack([first, third]))


def test_given_cells_are_heard_before_their_patch_is_decided() -> None:
    given = torch.full_like(roll(), -1)
    given[0, 0, 5] = 2
    long_context = recall([0, 1, 2], given)
    ahead = torch.full((2, 2), UNKNOWN)
    ahead[0, 1] = 2
    assert torch.equal(long_context[1, 1], ahead)

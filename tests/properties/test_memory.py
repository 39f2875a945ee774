"""Echoes and tallies: what they show, what they hide, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from fractalgen.model.grid import Grid, neighbours
from fractalgen.model.memory import remember, tallies
from tests.properties.helpers import tiny_config

UNKNOWN, OUTSIDE = 3, 4  # after silence, hold and one velocity


@pytest.mark.parametrize("order", ["column_major", "row_major"])
def test_neighbours_stand_in_the_same_row(order: str) -> None:
    """Two rows of three columns; one column earlier, two earlier, one later."""
    grid = Grid(2, 3, 4, order)  # type: ignore[arg-type]
    table = neighbours(grid, (1, 2, -1), torch.device("cpu"))
    place = {(r, c): (c * 2 + r if order == "column_major" else r * 3 + c) for r in range(2) for c in range(3)}
    for (row, col), number in place.items():
        expected = [place.get((row, col - shift), 6) for shift in (1, 2, -1)]
        assert table[number].tolist() == expected


def test_tallies_by_hand() -> None:
    """Thirteen pitches: pitch 0 sounds in three cells, its octave 12 in one, pitch 7 in four."""
    cells = torch.zeros(1, 13, dtype=torch.long)
    cells[0, [0, 12, 7]] = torch.tensor([3, 1, 4])
    pitch, heard, share = tallies(cells)[0].unbind(-1)
    assert pitch[0].item() == pytest.approx(math.log(4) / 4)
    assert pitch[12].item() == pytest.approx(math.log(2) / 4)
    assert heard[0].item() == heard[12].item() == pytest.approx(math.log(5) / 4)
    assert share[0].item() == share[12].item() == share[7].item() == pytest.approx(4 * 0.5)
    assert share[[1, 2, 3, 4, 5, 6, 8, 9, 10, 11]].abs().sum() == 0
    assert torch.all(tallies(torch.zeros(1, 13, dtype=torch.long)) == 0)


def roll() -> torch.Tensor:
    """Two pitches, three patches of two steps; an onset held in the first, one in the second, two in the third."""
    return torch.tensor([[[2, 1, 0, 0, 0, 2], [0, 0, 0, 2, 2, 0]]])


def recall(steps: list[int] | None, given: torch.Tensor | None = None, distances: tuple[int, ...] = (1, -1)) -> tuple:
    """Echoes and tallies of all three patches of :func:`roll`."""
    model = tiny_config("mar mar ar", width=6, echoes=distances)
    grid = Grid(1, 3, 2)
    region, child = torch.zeros(3, dtype=torch.long), torch.arange(3)
    order = None if steps is None else torch.tensor([steps])
    memory = remember(model, grid, roll(), region, child, order, given)
    assert memory is not None
    assert memory.echo is not None
    assert memory.tally is not None
    return memory.echo, memory.tally


def test_echoes_show_what_is_decided_earlier_and_hide_the_rest() -> None:
    first, second, third = (roll()[0, :, i : i + 2] for i in (0, 2, 4))
    nothing, beyond = torch.full((2, 2), UNKNOWN), torch.full((2, 2), OUTSIDE)
    echo, _ = recall([0, 1, 2])
    for child, expected in enumerate([(beyond, nothing), (first, nothing), (second, beyond)]):
        assert torch.equal(echo[child], torch.stack(expected))
    echo, _ = recall([1, 0, 1])  # what is decided at the same moment is hidden too
    for child, expected in enumerate([(beyond, second), (nothing, nothing), (second, beyond)]):
        assert torch.equal(echo[child], torch.stack(expected))
    echo, _ = recall(None)
    assert torch.equal(echo[1], torch.stack([first, third]))


def test_tallies_count_what_is_decided_earlier() -> None:
    _, tally = recall([0, 1, 2])
    heard = torch.expm1(4 * tally[..., 0])  # cells of each pitch
    torch.testing.assert_close(heard, torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0]]))
    _, tally = recall(None)
    torch.testing.assert_close(torch.expm1(4 * tally[1, :, 0]), torch.tensor([3.0, 2.0]))


def test_given_cells_are_remembered_before_their_patch_is_decided() -> None:
    given = torch.full_like(roll(), -1)
    given[0, 0, 5] = 2
    echo, tally = recall([0, 1, 2], given)
    ahead = torch.full((2, 2), UNKNOWN)
    ahead[0, 1] = 2
    assert torch.equal(echo[1, 1], ahead)
    torch.testing.assert_close(torch.expm1(4 * tally[..., 0]), torch.tensor([[1.0, 0.0], [3.0, 0.0], [3.0, 1.0]]))

"""The frame-wise protocol: a distribution over frames, and what it may look at."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from benchmarks.framewise import Ordering, draw, frame_log_probabilities, main, score
from fractalgen.api import FractalGen
from fractalgen.checkpoint import save_pretrained
from fractalgen.data.corpus import Corpus
from tests.benchmarks import ErrorLine
from tests.model.properties.helpers import every_roll, random_model, random_rolls, tiny_config


def model(grid: int = 4) -> FractalGen:
    return random_model(tiny_config("mar mar mar mar", patches=(8, 4, 2, 1), width=2 * grid, grid=grid))


@pytest.mark.parametrize("grid", [4, 8])  # steps a quarter
def test_the_probabilities_of_everything_a_frame_may_hold_sum_to_one(grid: int) -> None:
    """One frame of four cells is open, everything else is known: 3 ** 4 frames."""
    rolls = random_rolls(1, 8, 2 * grid, 1, seed=1).repeat(3**4, 1, 1)
    rolls[:, 4:, 0] = every_roll(4, 1, 3)[..., 0]
    logs = frame_log_probabilities(model(grid), rolls, draw(1, 1, 1) * len(rolls), [1])
    assert torch.cat(logs).exp().sum().item() == pytest.approx(1.0, abs=1e-9)


def test_the_second_group_of_a_frame_depends_on_the_pick_not_on_the_truth() -> None:
    """Whatever the first group holds, two possible contents of the second one have the same ratio."""
    rolls = random_rolls(1, 8, 8, 1, seed=1).repeat(2 * 3**4, 1, 1)
    rolls[:, :4, 0] = every_roll(4, 1, 3)[..., 0].repeat(2, 1)
    rolls[:, 4:, 0] = torch.tensor([[0, 2, 0, 0], [2, 0, 0, 2]]).repeat_interleave(3**4, 0)
    ordering = Ordering(torch.tensor([0]), torch.tensor([[0, 1]]))
    logs = torch.cat(frame_log_probabilities(model(), rolls, [ordering] * len(rolls), [0, 1])).view(2, -1)
    possible = logs[0].isfinite()  # a hold after silence is not
    ratio = (logs[0] - logs[1])[possible]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


@pytest.mark.parametrize(("frame", "grid"), [(0, 4), (3, 4), (6, 4), (13, 8)])
def test_the_last_group_has_the_probability_that_the_sampler_gives_it(frame: int, grid: int) -> None:
    """All other frames are known; the first level's child is open, and below it children are drawn one by one."""
    net, roll, width = model(grid), random_rolls(1, 8, 2 * grid, 1, seed=3), 2 * grid
    known = torch.ones(1, 8, width, dtype=torch.bool)
    known[:, 4:, frame] = False
    order = torch.cat([torch.arange(width)[torch.arange(width) != frame], torch.tensor([frame])])
    logs = frame_log_probabilities(net, roll, [Ordering(order, torch.zeros(width, 1, dtype=torch.long))], [1])[0]
    nats = net.nll(roll, num_iter_list=[1, 2, 2, 1], known=known, mar_order="scan").total
    assert -logs[frame].item() == pytest.approx(nats.item(), abs=1e-9)


def test_a_frame_depends_on_the_frames_known_before_and_on_picks_only() -> None:
    """The first frame of an ordering sees nothing but the rows that are closed; later ones see the true frames."""
    net = model()
    first, second = random_rolls(2, 8, 8, 1, seed=2)
    torch.manual_seed(5)
    ordering = draw(8, 2, 1)
    beginning = int(ordering[0].frames[0])
    same = first.clone()
    same[:, torch.arange(8) != beginning] = second[:, torch.arange(8) != beginning]
    one, two, mixed = frame_log_probabilities(net, torch.stack([first, second, same]), ordering * 3, [0, 1])
    torch.testing.assert_close(mixed[beginning], one[beginning])  # all else may hold anything
    later = [frame for frame in ordering[0].frames[1:].tolist() if torch.equal(same[:, frame], second[:, frame])]
    assert any(not torch.isclose(mixed[frame], two[frame]) for frame in later)  # the first frame is listened to


def test_rolls_that_are_scored_together_do_not_change_each_other() -> None:
    """Rolls of several lengths: those that are finished drop out."""
    net, rolls = model(), random_rolls(3, 8, 8, 1, seed=4)
    orderings = [draw(frames, 2, 1)[0] for frames in (2, 4, 1)]
    together = frame_log_probabilities(net, rolls, orderings, [0, 1])
    for roll, ordering, logs in zip(rolls, orderings, together, strict=True):
        torch.testing.assert_close(frame_log_probabilities(net, roll[None], [ordering], [0, 1])[0], logs)


class Songs:
    """Stands in for a corpus: songs of 8 pitches and some steps each."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def num_steps(self, song: int) -> int:
        """Length of a song."""
        return self.steps[song]

    def tokens(self, song: int, start: int, stop: int) -> np.ndarray:
        """Every fourth cell is struck, as far as the song goes."""
        roll = np.zeros((8, stop), np.uint8)
        roll[song::4, : self.steps[song]] = 2
        return roll[:, start:stop]


@pytest.mark.slow
def test_whole_songs_cost_what_their_parts_do_and_less_with_averaged_probabilities() -> None:
    """Songs that are longer than an excerpt are cut."""
    net, songs = model(), cast("Corpus", Songs(9, 2))
    results = []
    for rows in (2, 20):  # the order of computation changes nothing
        torch.manual_seed(0)
        results.append(score(net, songs, [0, 1], [0, 1], orders=2, rows=rows))
    for one, other in zip(*results, strict=True):
        assert one == pytest.approx(other)
    averaged, mean = results[0]
    assert all(0 < a < m for a, m in zip(averaged, mean, strict=True))
    torch.manual_seed(0)
    parts = [draw(frames, 2, 2) for frames in (8, 1, 2)]
    rolls = [torch.from_numpy(songs.tokens(*which)).long() for which in ((0, 0, 8), (0, 8, 16), (1, 0, 8))]
    logs = [
        frame_log_probabilities(net, torch.stack([roll] * 2), part, [0, 1])
        for roll, part in zip(rolls, parts, strict=True)
    ]
    nats = [-torch.stack(part).sum().item() / 2 for part in logs]
    assert mean == pytest.approx([nats[0] + nats[1], nats[2]])


def test_other_models_are_refused(tmp_path: Path, one_error_line: ErrorLine) -> None:
    path = save_pretrained(random_model(tiny_config("mar ar ar")), tmp_path / "a.safetensors")
    line = one_error_line("--checkpoint", path, "--data", "chorales", main=main)
    assert "its levels are mar ar ar; the protocol needs mar at every level" in line

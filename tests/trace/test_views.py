"""Views: which moments are shown, and what is known at each of them."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from fractalgen.errors import UserError
from fractalgen.music.tokens import velocities
from fractalgen.trace import Trace
from fractalgen.trace.views import MOMENTS, ZoomedPatch, block_means
from tests import tiny
from tests.trace.test_trace import made_up


def deep(
    levels: tuple[int, ...],
    kind: str = "ar",
    notes: tuple[tuple[int, int], ...] = ((2, 1), (2, 2), (9, 5)),
    moments: int = 0,
) -> Trace:
    """A 16 x 16 roll of some notes with other patch sizes, children in row order."""
    tokens = np.zeros((16, 16), np.uint8)
    for pitch, step in notes:
        tokens[pitch, step] = 20
    return tiny.trace(tokens, levels, kind, "row_major", num_iter_list=(1,) * len(levels), moments=moments)


def test_ar_labels_count_what_is_composed() -> None:
    """Of four patches the first two are known: the others are the first and the second of two."""
    trace = made_up()
    known = np.zeros((16, 16), bool)
    known[:, :8] = True
    decided = np.where(known, np.int16(-1), trace.decided)
    decided[0][decided[0] >= 0] -= 2
    gap = dataclasses.replace(trace, known=known, decided=decided, steps=trace.steps[2:], seconds=trace.seconds[2:])
    assert gap.steps[:, 0].tolist() == [2, 3]
    frames = gap.frames(record_interval=1)
    assert [frame.level_name for frame in frames] == ["Init", "AR L0 patch 1/2", "AR L0 patch 2/2"]
    assert [frame.iteration for frame in frames] == [0, 1, 2]
    assert [(frame.step, frame.steps) for frame in frames] == [(0, 2), (1, 2), (2, 2)]


def test_a_frame_knows_its_bars() -> None:
    assert made_up().frames()[0].steps_per_bar == 16
    for settings, steps in (({"steps_per_quarter": 8}, 32), ({"steps_per_bar": 12}, 12), ({"steps_per_bar": "?"}, 16)):
        assert made_up(settings=settings).frames(view="hierarchical")[0].steps_per_bar == steps


def test_levels_fill_a_patch_cell_by_cell() -> None:
    """Notes at (2, 1), (2, 2) and (9, 5); patches of 8, of 4 and single cells, all in row order."""
    frames = deep((16, 8, 4, 1)).frames(view="levels", record_interval=1)
    assert [frame.level_name for frame in frames] == [
        "Init",
        "AR L0 patch 1/4   L1 step 1/4   L2 step 10/16",
        "AR L0 patch 1/4   L1 step 1/4   L2 step 11/16",
        "AR L0 patch 3/4   L1 step 2/4   L2 step 6/16",
        "AR L0 patch 4/4",
    ]
    assert [int((frame.output > 0).sum()) for frame in frames] == [0, 1, 2, 3, 3]
    assert frames[1].blocks == (ZoomedPatch(1, (8, 8), 0, 0), ZoomedPatch(2, (4, 4), 0, 0))
    assert frames[3].blocks == (ZoomedPatch(1, (8, 8), 8, 0), ZoomedPatch(2, (4, 4), 8, 4))
    first = frames[1]
    assert first.open is not None
    # ten cells of the first 4 x 4 patch are decided, the rest of it and all else is not
    assert (~first.open).sum() == 10
    assert (~first.open[2]).nonzero()[0].tolist() == [0, 1]
    assert first.open[4:].all()
    last = frames[4].open
    assert last is not None
    assert not last.any()


def test_levels_of_patches_drawn_together_fill_together() -> None:
    """In a MAR run whose steps decide two patches each, notes of both come in at the same local steps."""
    trace = deep((16, 8, 4, 1), "mar", ((1, 1), (1, 9), (3, 3)), moments=2)
    frames = trace.frames(view="levels", record_interval=1)
    assert frames[1].level_name == "Iter 1 batch 1   L1 step 1/4   L2 step 6/16"
    assert np.argwhere(frames[1].output > 0).tolist() == [[1, 1], [1, 9]]
    assert np.argwhere(frames[2].output > 0).tolist() == [[1, 1], [1, 9], [3, 3]]


@pytest.mark.parametrize("kind", ["ar", "mar"])
def test_levels_never_go_back(kind: str) -> None:
    """What was there stays, and each frame brings a note where it looks, whatever is drawn together."""
    trace = made_up(kind=kind, width=64, moments=4 if kind == "mar" else 0)
    frames = list(trace.frames(view="levels", record_interval=1))
    assert len(frames) > 20
    for before, after in pairwise(frames):
        assert not ((before.output > 0) & (after.output == 0)).any()
    for before, after in pairwise(frames[:-1]):
        smallest = after.blocks[-1]
        rows = slice(smallest.pitch, smallest.pitch + smallest.size[0])
        columns = slice(smallest.step, smallest.step + smallest.size[1])
        assert (after.output > before.output)[rows, columns].any()


@pytest.mark.parametrize(("sizes", "blocks"), [((16, 1), 0), ((16, 4, 1), 1), ((16, 8, 4, 2, 1), 3)])
def test_levels_are_as_many_as_the_model_has(sizes: tuple[int, ...], blocks: int) -> None:
    frames = deep(sizes).frames(view="levels", record_interval=1)
    assert {len(frame.blocks) for frame in frames} == {blocks}
    assert [block.size for block in frames[1].blocks] == [(size, size) for size in sizes[1:-1]]
    assert frames[1].level_name.count("L") == 1 + blocks
    assert np.array_equal(frames[-1].output > 0, deep(sizes).tokens > 0)


def test_levels_of_a_long_piece_are_few() -> None:
    trace = made_up(width=1024)
    assert len(trace.frames(view="levels")) <= 2 + 9 * MOMENTS
    assert len(trace.frames(view="levels", record_interval=1)) > 1000
    assert len(trace.frames(view="levels", max_frames=5)) == 5


def test_levels_keep_known_cells_in_view() -> None:
    known = np.zeros((16, 16), bool)
    known[2:9, 3:12] = True
    trace = made_up(known=known)
    for frame in trace.frames(view="levels", record_interval=1):
        assert frame.tokens is not None
        assert frame.open is not None
        assert np.array_equal(frame.tokens[known], trace.tokens[known])
        assert not frame.open[known].any()
        assert np.array_equal(frame.tokens, np.where(frame.open, 0, trace.tokens))


def test_a_silent_piece_has_levels_too() -> None:
    frames = deep((16, 8, 4, 1), notes=()).frames(view="levels")
    assert [frame.level_name for frame in frames] == ["Init", "AR L0 patch 4/4"]
    assert len(frames[0].blocks) == 2


def test_density_shows_chances_as_they_are_decided() -> None:
    trace = made_up()
    chances = np.arange(256, dtype=np.uint8).reshape(16, 16)
    frames = dataclasses.replace(trace, chances=chances).frames(view="density", record_interval=1)
    assert [frame.level_name for frame in frames] == [frame.level_name for frame in trace.frames(record_interval=1)]
    assert not frames[0].output.any()
    assert np.allclose(frames[1].output[:8, :8] * 255, chances[:8, :8])
    assert not frames[1].output[8:].any()
    assert np.allclose(frames[-1].output * 255, chances)
    assert {frame.shows for frame in frames} == {"chance"}
    with pytest.raises(UserError, match="--view density: this trace was recorded without chances"):
        trace.frames(view="density")


def test_every_view_ends_with_everything() -> None:
    trace = made_up()
    for view in ("process", "hierarchical", "levels"):
        frames = trace.frames(view=view)
        assert np.array_equal(frames[-1].output, velocities(trace.tokens, 32))
        assert frames[-1].progress == 1.0
        assert frames[-1].step == frames[-1].steps
        shares = [frame.progress for frame in frames]
        assert shares == sorted(shares)


def test_block_means() -> None:
    plane = np.array([[0.5, 0.0, 0.0, 0.0], [0.3, 0.0, 0.0, 0.0]], np.float32)
    expected = np.array([[0.4, 0.4, 0.0, 0.0]] * 2, np.float32)
    assert np.allclose(block_means(plane, (2, 2)), expected)

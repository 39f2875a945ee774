"""The weights of a model for one grid, as weights of a model for a grid that is some times finer.

A step of the old grid becomes the first of ``times`` new ones.  What lies between, which only the finer grid knows,
says nothing at first: music of the old grid looks to every level as it did.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fractalgen.config import ModelConfig
from fractalgen.model.grid import Margin

FEATURES = 4  # numbers a cell, see fractalgen.model.embeddings.CellFeatures
EXPECTED = 2.0  # log odds of a cell to sound where a sixteenth of its pitch does
READING = ("embed", "surroundings", "recall", "recall_return")  # networks of a level that read cells


def on_finer_grid(
    new: ModelConfig, old: ModelConfig, found: dict[str, Tensor], fresh: dict[str, Tensor]
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The ``old`` architecture and its weights ``found``, on the grid of a ``new`` one with the weights ``fresh``.

    The new one may have a level more, which divides what was a cell into cells of the finer grid.  That level keeps
    its fresh weights, but hands on what it is told from above, and expects its cells to sound.  Where single cells are
    held or struck is learned anew: most of them are holds now.  Nothing changes unless the new grid is finer a whole
    number of times.
    """
    times, rest = divmod(new.steps_per_quarter, old.steps_per_quarter)
    if rest or times <= 1:
        return old, found
    found, last = dict(found), len(old.levels) - 1
    inserted = len(new.levels) == last + 2 and new.levels[last].patch == 1
    for index in range(last):
        path, (pitches, steps) = "root." + "child." * index, old.levels[index + 1].region
        wide = steps if index + 1 == last and not inserted else times * steps  # a cell remains a cell
        for name in READING:
            margin = Margin(*old.levels[index].context) if name == "surroundings" else Margin()
            if (first := f"{path}{name}.0.weight") in found:
                rows, around = pitches + 2 * margin.pitch, margin.past + margin.future
                found[first] = spread(found[first], rows, steps + around, times, wide + times * around)
    path = "root." + "child." * last
    pitch, past, future = old.levels[last].context
    nearest = (torch.arange(-times * past, times * future + 1) + times // 2).div(times, rounding_mode="floor") + past
    for name in (f"{path}nearby.near", f"{path}nearby.place"):
        if name in found:
            found[name] = (
                found[name].unflatten(1, (2 * pitch + 1, -1))[:, :, nearest.clamp(max=past + future)].flatten(1, 2)
            )
    found |= {name: torch.zeros_like(found[name]) for name in found if name.startswith(f"{path}articulation.")}
    levels = [
        replace(
            level,
            context=(level.context[0], times * level.context[1], times * level.context[2]),
            steps=times * level.region[1] if 0 < index < last else 0,
        )
        for index, level in enumerate(old.levels)
    ]
    if inserted:
        levels.insert(last, new.levels[last])
        found = {name.replace(path, f"{path}child.", 1): value for name, value in found.items()}
        mine = {name for name in fresh if name.startswith(path) and not name.startswith(f"{path}child.")}
        found |= {name: fresh[name] for name in mine}
        cond = fresh[f"{path}cond.weight"]
        found |= {f"{path}cond.weight": torch.eye(*cond.shape), f"{path}cond.bias": torch.zeros(len(cond))}
        found[f"{path}gate.bias"] = torch.full_like(fresh[f"{path}gate.bias"], EXPECTED)
    here = {name: getattr(new, name) for name in ("steps_per_quarter", "crop_length", "max_children")}
    return replace(old, levels=tuple(levels), **here), found


def spread(weight: Tensor, rows: int, columns: int, times: int, width: int) -> Tensor:
    """The first layer of a network that reads windows of ``rows`` pitches and ``columns`` steps, for ``width`` steps.

    Returns:
        (d, layers * rows * width * FEATURES) of (d, layers * rows * columns * FEATURES); column ``times * k`` is the
        old column ``k``, the others are zero.
    """
    old = weight.view(len(weight), -1, rows, columns, 1, FEATURES)
    new = torch.cat([old, old.new_zeros(*old.shape[:4], times - 1, FEATURES)], 4)
    return new.flatten(3, 4)[:, :, :, :width].flatten(1)

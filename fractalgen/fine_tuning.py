"""Fine-tuning: a new model that begins where a trained one stands, though it listens, looks or is asked for more."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fractalgen.checkpoint import read_checkpoint, resolve
from fractalgen.config import ModelConfig
from fractalgen.errors import UserError
from fractalgen.model.fractal import FractalGen
from fractalgen.model.grid import Margin
from fractalgen.model.level import FractalLevel

FEATURES = 4  # numbers a cell, see fractalgen.model.parts.CellFeatures


def start_from(model: FractalGen, name_or_path: str) -> None:
    """Give ``model`` the weights of a trained one (a shipped model by name, ``.ckpt`` or ``.safetensors``).

    Widths, depths and patches must agree.  Wider windows, more echoes, labels and levels that begin to listen may be
    new: they weigh nothing at first, so that the new model says of music from nothing exactly what the old one said.

    Raises:
        UserError: no such model, or one of another architecture.
    """
    path = resolve(name_or_path)
    header, found = read_checkpoint(path, flag="init_from")
    old = ModelConfig.from_dict(header["model"])
    weights = model.state_dict()
    same_labels = old.attributes == model.config.attributes
    for level, before in zip(model.levels, old.levels, strict=False):
        if isinstance(level, FractalLevel):
            prefix = "root." + "child." * level.index
            if level.looks:
                widen_windows(level, before.context, f"{prefix}surroundings", weights, found)
            if level.index > 0 and level.distances:
                add_echoes(level, old.echoes, f"{prefix}recall", weights, found)
    for name, value in weights.items():
        new = name.endswith(".degree") or (name.startswith("labels.") and not same_labels)
        if name in found and found[name].shape == value.shape and not new:
            value.copy_(found[name])
        elif new:
            value.zero_()
        else:
            there = tuple(found[name].shape) if name in found else "nothing"
            raise UserError(
                f"--init_from {name_or_path}: another architecture ({name}: {there} there, {tuple(value.shape)} here)"
            )


def widen_windows(
    level: FractalLevel, before: tuple[int, int, int], name: str, weights: dict[str, Tensor], found: dict[str, Tensor]
) -> None:
    """Let the weights of a window with the margins ``before`` serve one that reaches farther."""
    first = f"{name}.0.weight"
    if first not in found:
        found |= silent(name, weights)
        return
    old, now, patch = Margin(*before), level.context, level.patch
    if old.union(now) == now:  # otherwise its shape is refused
        window = (-1, patch + 2 * old.pitch, patch + old.past + old.future, FEATURES)
        pitches = now.pitch - old.pitch
        padding = (0, 0, now.past - old.past, now.future - old.future, pitches, pitches)
        found[first] = F.pad(found[first].view(window), padding).flatten(1)


def add_echoes(
    level: FractalLevel, before: tuple[int, ...], name: str, weights: dict[str, Tensor], found: dict[str, Tensor]
) -> None:
    """Let the weights of echoes at the distances ``before`` serve with more of them."""
    first = f"{name}.0.weight"
    if first not in found:
        found |= silent(name, weights)
    elif set(before) <= set(level.distances):
        old = dict(zip(before, found[first].chunk(len(before), 1), strict=True))
        new = torch.zeros_like(old[before[0]])
        found[first] = torch.cat([old.get(distance, new) for distance in level.distances], 1)


def silent(name: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a new network of two layers that says nothing yet."""
    mine = {key: value for key, value in weights.items() if key.startswith(f"{name}.")}
    return {key: value.zero_() if key.startswith(f"{name}.2.") else value for key, value in mine.items()}

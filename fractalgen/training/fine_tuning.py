"""Fine-tuning: a new model starts from the weights of a trained one and may have new inputs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fractalgen.checkpoint import find_model, read_model
from fractalgen.config import ModelConfig
from fractalgen.config.values import as_typed
from fractalgen.errors import UserError
from fractalgen.model.grid import Margin
from fractalgen.model.level import FractalLevel
from fractalgen.model.network import FractalNetwork
from fractalgen.training.finer_grid import FEATURES, on_finer_grid

SAYS_OF_PLANS = {"planner", "harmony", "recall_return", "returned", "told", "left"}
"""Parts of a model with plans: the planner, and what tells the levels of a plan."""


def start_from(model: FractalNetwork, name_or_path: str) -> None:
    """Give ``model`` the weights of a trained one (a shipped model by name, ``.ckpt`` or ``.safetensors``).

    More transformer blocks, wider windows, more echoes, other labels, plans, columns that are bars, and future context
    may be new.  Their weights are zero at first, so that the new model gives music without labels and plan, in 4/4,
    exactly the likelihood of the old one.  A level above the last may change from AR to MAR or back; it keeps the
    transformer.  The grid may be some times finer, see :func:`.on_finer_grid`.

    Raises:
        UserError: no such model, or one of another architecture.
    """
    with torch.random.fork_rng(devices=[]):  # the training draws the same numbers with and without a start
        _, trained, _ = read_model(find_model(name_or_path, flag="init_from"), FractalNetwork, "init_from")
    old, new = trained.config, model.config
    found: dict[str, Tensor] = trained.state_dict()
    if old.future_context and not new.future_context:
        raise UserError(f"--init_from {name_or_path}: it has future context, so --reveal_share must be more than 0")
    weights: dict[str, Tensor] = model.state_dict()
    old, found = on_finer_grid(new, old, found, weights)
    check_architecture(name_or_path, old, new)
    for level, before, now in zip(model.levels, old.levels, new.levels, strict=True):
        path = "root." + "child." * level.index
        generator = f"{path}generator." if isinstance(level, FractalLevel) else path
        if before.generator != now.generator:
            keep_generator(generator, weights, found)
        for number in range(before.depth, now.depth):
            found |= silent_block(f"{generator}transformer.blocks.{number}.", weights)
        if isinstance(level, FractalLevel) and before is not now:  # which is a new level
            widen_windows(level, before.context, f"{path}surroundings", weights, found)
            add_echoes(level, old.echoes, f"{path}recall", weights, found)
            if f"{path}degree" in found and level.degree is None:  # what it says where no key is asked for stays
                found[f"{path}cond.bias"] += found.pop(f"{path}degree")[0]
    tables = {attribute: found.pop(f"labels.{number}.weight") for number, attribute in enumerate(old.attributes)}
    for number, attribute in enumerate(new.attributes):
        if attribute in tables:
            found[f"labels.{number}.weight"] = tables.pop(attribute)
    for table in tables.values():  # what labels that are gone say where they are unset is part of the null condition
        found["null"] += table[0]
    fill(weights, found, old, name_or_path)


def check_architecture(source: str, old: ModelConfig, new: ModelConfig) -> None:
    """Refuse to start from a model of another architecture (UserError naming both values)."""
    agree(source, "steps_per_quarter", old.steps_per_quarter, new.steps_per_quarter)
    for name in ("patch", "width", "heads"):
        agree(source, name, *([getattr(level, name) for level in config.levels] for config in (old, new)))
    there, here = ([level.depth for level in config.levels] for config in (old, new))
    if any(before > now for before, now in zip(there, here, strict=True)):
        raise UserError(
            f"--num_blocks {as_typed(here)}: --init_from {source} has {as_typed(there)}, at least as many are needed"
        )
    agree(source, "steps of a patch", *([level.region[1] for level in config.levels[1:]] for config in (old, new)))
    agree(source, "generator of the last level", old.levels[-1].generator, new.levels[-1].generator)
    if any(old.levels[-1].context):
        agree(source, "context of the last level", old.levels[-1].context, new.levels[-1].context)
    for name in ("velocity_bins", "scan_order"):
        agree(source, name, getattr(old, name), getattr(new, name))


def fill(weights: dict[str, Tensor], found: dict[str, Tensor], old: ModelConfig, source: str) -> None:
    """Give the weights of a new model the values that are found; what an ``old`` one did not have says nothing.

    Raises:
        UserError: a weight is missing, or of another shape.
    """
    for name, value in weights.items():
        if name not in found and (name.startswith("labels.") or name.endswith(".degree")):
            value.zero_()
        elif name not in found and not old.plan_width and (part := SAYS_OF_PLANS & set(name.split("."))):
            if "planner" not in part and "recall_return.0" not in name:
                value.zero_()
        elif ".nearby." in name and not any(old.levels[-1].context):
            if ".out.2." in name:
                value.zero_()
        elif name in found and found[name].shape == value.shape:
            value.copy_(found[name])
        else:
            there = tuple(found[name].shape) if name in found else "nothing"
            raise UserError(f"--init_from {source}: damaged ({name}: {there} there, {tuple(value.shape)} here)")


def agree(source: str, what: str, there: Any, here: Any) -> None:
    """Refuse a model of another architecture."""
    if there != here:
        raise UserError(f"--init_from {source}: another architecture ({what} {there} there, {here} here)")


def keep_generator(name: str, weights: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Take only the transformer of a generator of another kind; the parameters of this kind stay as they are."""
    for key in [key for key in found if key.startswith(name) and key not in weights]:
        del found[key]
    found |= {key: value for key, value in weights.items() if key.startswith(name) and key not in found}


def widen_windows(
    level: FractalLevel, before: tuple[int, int, int], name: str, weights: dict[str, Tensor], found: dict[str, Tensor]
) -> None:
    """Extend the weights of a window with the margins ``before`` to a wider one."""
    first, old, now = f"{name}.0.weight", Margin(*before), level.context
    if first not in found:
        found |= silent(name, weights)
    else:
        if first not in weights or old.union(now) != now:
            raise UserError(f"--context_...: {level.name} looks {tuple(now)} around, its model to start from {before}")
        window = (-1, level.patch + 2 * old.pitch, level.steps + old.past + old.future, FEATURES)
        pitches = now.pitch - old.pitch
        padding = (0, 0, now.past - old.past, now.future - old.future, pitches, pitches)
        found[first] = F.pad(found[first].view(window), padding).flatten(1)


def add_echoes(
    level: FractalLevel, before: tuple[int, ...], name: str, weights: dict[str, Tensor], found: dict[str, Tensor]
) -> None:
    """Extend the weights of the long context from the distances ``before`` to more of them."""
    first = f"{name}.0.weight"
    if first not in found:
        found |= silent(name, weights)
    else:
        if not set(before) <= set(level.distances):
            raise UserError(f"--echoes: {level.distances}, the model to start from has {before}")
        old = dict(zip(before, found[first].chunk(len(before), 1), strict=True))
        new = torch.zeros_like(old[before[0]])
        found[first] = torch.cat([old.get(distance, new) for distance in level.distances], 1)


def silent_block(name: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a new transformer block that adds nothing to its residual path."""
    ends = (f"{name}attention.out.", f"{name}narrow.")
    mine = {key: value for key, value in weights.items() if key.startswith(name)}
    return {key: torch.zeros_like(value) if key.startswith(ends) else value for key, value in mine.items()}


def silent(name: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a new two-layer network whose output is zero."""
    mine = {key: value for key, value in weights.items() if key.startswith(f"{name}.")}
    return {key: torch.zeros_like(value) if key.startswith(f"{name}.2.") else value for key, value in mine.items()}

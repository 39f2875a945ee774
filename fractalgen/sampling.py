"""Tensors sampled from a network: checks, drawing and recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fractalgen.config import ConfigError, SamplingConfig
from fractalgen.devices import limited_threads
from fractalgen.model.limits import Limits
from fractalgen.model.network import FractalNetwork
from fractalgen.model.plans import Plans
from fractalgen.model.sampling.recorder import DecidedPatch, Decisions, StepLog
from fractalgen.model.sampling.token_sampler import TokenSampler
from fractalgen.model.sampling.windows import Composer, compose
from fractalgen.music.tokens import ABSENT, NO_HOLD, SILENCE, UNKNOWN
from fractalgen.trace import Intermediates, Trace

SHORT = np.iinfo(np.int16).max  # steps that a trace can count in half the space


@torch.no_grad()
def draw_plans(
    model: FractalNetwork,
    settings: SamplingConfig,
    plans: Plans,
    absent: Bool[Tensor, " t"] | None = None,
    cond_list: Sequence[Int[Tensor, " b"]] | None = None,
    generator: torch.Generator | None = None,
) -> Plans:
    """Draw whatever ``plans`` of whole pieces do not tell; ``absent`` steps have no chords.

    Raises:
        ConfigError: the model knows no plans.
    """
    if model.planner is None:
        raise ConfigError("this model knows no plans")
    batch, units = plans.chords.shape
    exists = torch.ones(units, dtype=torch.bool, device=model.device)
    if absent is not None:
        exists = ~absent.to(model.device).unflatten(0, (units, -1))[:, 0]
    settings = replace(settings, temperature=settings.plan_temperature)
    sampler = TokenSampler(settings, generator, model.device)

    def draw(logits: Tensor) -> Tensor:
        return sampler.categorical(logits[None], sampler.uniform((len(logits),)))

    with limited_threads(settings.threads):
        return model.planner.draw(plans, exists.expand(batch, -1), model.key(cond_list, batch), draw, settings.cfg)


@torch.no_grad()
def sample_rolls(
    model: FractalNetwork,
    settings: SamplingConfig,
    batch_size: int = 1,
    cond_list: Sequence[Int[Tensor, " b"]] | None = None,
    *,
    return_intermediates: bool = False,
    width: int | None = None,
    known: Int[Tensor, "b p t"] | None = None,
    plans: Plans | None = None,
    absent: Bool[Tensor, " t"] | None = None,
    window: int | None = None,
    allowed: Bool[Tensor, "p t"] | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[DecidedPatch], None] | None = None,
) -> tuple[Int[Tensor, "b p t"], Intermediates | None]:
    """Draw rolls, from the model as it is (call ``eval()`` first if it has dropout).

    Where a level is MAR, holds that follow no onset are silenced at the end.

    Args:
        settings: how to draw; ``num_iter_list`` with a number for each level.
        batch_size: number of rolls.
        cond_list: one (b,) tensor of integers per label, 0 for unset; None leaves all unset.
        return_intermediates: record how the rolls are made.
        width: time steps, a multiple of the first level's patch (default: the width trained on).
        known: cells decided beforehand, which stay unchanged; elsewhere -1, or -2 where a hold is ruled out.
            MAR levels, and all levels of a model with future context, are conditioned on all of them, other AR levels
            on those earlier in scan order.
        plans: the plans of the rolls; what they do not tell is not told.  None: models that know plans draw them, but
            where cells are known nothing is told: a plan that is drawn does not hear them.
        absent: steps that do not exist, see :mod:`fractalgen.model.absent` (default: all exist).
        window: time steps composed at once (default: the width trained on), see :func:`.windows.compose`.
        allowed: cells that may sound, known ones apart (default: all).
        generator: the source of randomness (on the model's device); the same state gives the same rolls.
        progress: called after every first-level step with patches decided and in all, over the batch.
        watch: called with every patch as soon as it is decided; needs ``return_intermediates``.

    Returns:
        ``(tokens, intermediates)``: integers (batch_size, pitches, width) and the frames of their making, or None
        unless asked for.  Recording changes no bit.

    Raises:
        ConfigError: a setting that does not fit the model.
    """
    config = model.config
    if width is None:
        width = config.crop_length if known is None else known.shape[-1]
    if window is None:
        window = config.crop_length
    config.check_width(width)
    config.check_width(window, "window")
    given = _given_cells(model, batch_size, width, known, absent)
    if plans is None and model.planner is not None:
        plans = Plans.free(batch_size, width // config.column, config.pitches, config.column, model.device)
        if known is None:
            plans = draw_plans(model, settings, plans, absent, cond_list, generator)
    labelled = cond_list is not None and len(model.labels) > 0
    guided = (labelled or plans is not None) and settings.cfg != 1.0
    sampler = TokenSampler(settings, generator, model.device, streams=2 if guided else 1)
    limits = _limits(given, allowed, settings.max_polyphony)
    log = StepLog(batch_size * (config.pitches // config.patch) * (width // config.column), progress, watch)
    with torch.inference_mode(), limited_threads(settings.threads):
        composed = compose(
            Composer(model, cond_list, sampler, log, return_intermediates, plans),
            given,
            window=window,
            limits=limits,
            candidates=settings.candidates if config.sees_past_only else 1,
        )
    tokens = composed.tokens.clone()  # an ordinary tensor again
    if composed.decisions is None:
        return tokens, None
    return tokens, _intermediates(model, tokens, given, composed.decisions, log, settings)


def _given_cells(
    model: FractalNetwork,
    batch_size: int,
    width: int,
    known: Int[Tensor, "b p t"] | None,
    absent: Bool[Tensor, " t"] | None,
) -> Int[Tensor, "b p t"]:
    """The cells that are known on the model's device, checked; elsewhere -1, -2, or -3 where steps are ``absent``."""
    config = model.config
    if batch_size < 1:
        raise ConfigError(f"batch_size {batch_size}: must be at least 1")
    shape = (batch_size, config.pitches, width)
    if known is None:
        known = torch.full(shape, UNKNOWN, device=model.device)
    if tuple(known.shape) != shape:
        raise ConfigError(f"known cells have the shape {tuple(known.shape)}, the samples {shape}")
    if known.min() < NO_HOLD or known.max() >= config.vocabulary:
        found = f"{int(known.min())} to {int(known.max())}"
        raise ConfigError(f"known cells are -1, -2 or tokens below {config.vocabulary}, these are {found}")
    if absent is not None and tuple(absent.shape) != (width,):
        raise ConfigError(f"absent steps have the shape {tuple(absent.shape)}, the samples {width} steps")
    known = known.to(model.device)
    return known if absent is None else known.masked_fill(absent.to(model.device), ABSENT)


def _limits(known: Int[Tensor, "b p t"], allowed: Bool[Tensor, "p t"] | None, polyphony: int) -> Limits | None:
    """What may sound, checked."""
    if allowed is None and not polyphony:
        return None
    if allowed is None:
        allowed = torch.ones(known.shape[1:], dtype=torch.bool, device=known.device)
    if allowed.shape != known.shape[1:]:
        raise ConfigError(f"allowed cells have the shape {tuple(allowed.shape)}, the rolls {tuple(known.shape[1:])}")
    room = None
    if polyphony:
        loudest = int((known > SILENCE).sum(1).max())
        if loudest > polyphony:
            raise ConfigError(f"--max_polyphony {polyphony}: in the known cells {loudest} notes sound together")
        room = torch.full((len(known), known.shape[2]), polyphony, device=known.device)
    return Limits(allowed.to(known.device).expand(known.shape), room)


def _intermediates(
    model: FractalNetwork, tokens: Tensor, known: Tensor, decisions: Decisions, log: StepLog, settings: SamplingConfig
) -> Intermediates:
    config = model.config
    steps = np.array(log.steps, np.int64).reshape(-1, 2)
    number = np.int16 if max(len(steps), steps.max(initial=0)) <= SHORT else np.int32
    common: dict[str, Any] = {
        "steps": steps.astype(number),
        "generators": tuple(level.generator for level in config.levels),
        "patch_sizes": tuple(level.patch for level in config.levels),
        "scan_order": config.scan_order,
        "num_iter_list": settings.num_iter_list,
        "seconds": np.array(log.seconds, np.float32),
        "velocity_bins": config.velocity_bins,
        "checkpoint": model.checkpoint_id,
    }
    widths = tuple(level.region[1] for level in config.levels[1:])
    if widths != common["patch_sizes"][1:]:
        common["settings"] = {"patch_steps": widths}
    given = (known >= 0).cpu()
    planes = decisions.planes.masked_fill(given[:, None], -1)
    arrays = (tokens.byte().cpu(), planes, given, decisions.chances.masked_fill(given, 0))
    return Intermediates(
        [
            Trace(tokens=roll, decided=decided.astype(number), known=known, chances=chances, **common)
            for roll, decided, known, chances in zip(*(array.numpy() for array in arrays), strict=True)
        ]
    )

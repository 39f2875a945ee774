"""Sampling of rolls from a network: checks, drawing and recording."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fractalgen.config import ConfigError, ModelConfig, SamplingConfig
from fractalgen.devices import limited_threads
from fractalgen.model.limits import Limits
from fractalgen.model.network import FractalNetwork
from fractalgen.model.plans import Plans
from fractalgen.model.sampling.recorder import Composed, DecidedPatch, StepLog
from fractalgen.model.sampling.token_sampler import TokenSampler
from fractalgen.model.sampling.windows import Composer, compose
from fractalgen.music import MAX_STEPS
from fractalgen.music.bars import BarLayout
from fractalgen.music.form import NEW
from fractalgen.music.form import UNTOLD as NOT_SAID
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.plan import Plan, bars_to_end
from fractalgen.music.tokens import ABSENT, DEFAULT_METER, NO_HOLD, SILENCE, TEMPO, UNKNOWN, Meters
from fractalgen.trace import Intermediates, Trace


class Watch(Protocol):
    """What wants to see a piece while it is composed."""

    def planned(self, sample: int, plan: Plan | None) -> None:
        """The plan of a piece is drawn; models without plans have none."""

    def decided(self, patch: DecidedPatch) -> None:
        """A patch of the first level is decided; its steps are those of the piece."""


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
    config.check_width(width)
    window = config.crop_length if window is None else window
    config.check_width(window, "window")
    if batch_size < 1:
        raise ConfigError(f"batch_size {batch_size}: must be at least 1")
    shape = (batch_size, config.pitches, width)
    from_nothing = known is None
    if known is None:
        known = torch.full(shape, -1, device=model.device)
    if tuple(known.shape) != shape:
        raise ConfigError(f"known cells have the shape {tuple(known.shape)}, the samples {shape}")
    if known.min() < NO_HOLD or known.max() >= config.vocabulary:
        found = f"{int(known.min())} to {int(known.max())}"
        raise ConfigError(f"known cells are -1, -2 or tokens below {config.vocabulary}, these are {found}")
    if absent is not None and tuple(absent.shape) != (width,):
        raise ConfigError(f"absent steps have the shape {tuple(absent.shape)}, the samples {width} steps")
    if plans is None and model.planner is not None:
        plans = Plans.free(batch_size, width // config.column, config.pitches, config.column, model.device)
        if from_nothing:
            plans = draw_plans(model, settings, plans, absent, cond_list, generator)
    labelled = cond_list is not None and len(model.labels) > 0
    guided = (labelled or plans is not None) and settings.cfg != 1.0
    sampler = TokenSampler(settings, generator, model.device, streams=2 if guided else 1)
    known = known.to(model.device)
    if absent is not None and bool(absent.any()):
        known = known.masked_fill(absent.to(model.device), ABSENT)
    limits = _limits(known, allowed, settings.max_polyphony)
    log = StepLog(batch_size * (config.pitches // config.patch) * (width // config.column), progress, watch)
    with torch.inference_mode(), limited_threads(settings.threads):
        composed = compose(
            Composer(model, cond_list, sampler, log, return_intermediates, plans),
            known,
            window=window,
            limits=limits,
            candidates=settings.candidates if config.sees_past_only else 1,
        )
    tokens = composed.tokens.clone()  # an ordinary tensor again
    return tokens, _intermediates(model, tokens, known, composed, log, settings) if return_intermediates else None


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


def compose_rolls(
    model: FractalNetwork,
    num_samples: int = 1,
    *,
    sampling: SamplingConfig | None = None,
    width: int | None = None,
    layout: BarLayout | None = None,
    plan: Plan | Sequence[Plan] | None = None,
    complete: bool = True,
    known: npt.NDArray[np.integer] | None = None,
    allowed: npt.NDArray[np.bool_] | None = None,
    labels: npt.ArrayLike | None = None,
    seed: int | None = None,
    return_trace: bool = False,
    batch_size: int = 8,
    tempo: float = TEMPO,
    meters: Meters = (DEFAULT_METER,),
    progress: Callable[[int, int], None] | None = None,
    each_batch: Callable[[int, list[PianoRoll], list[Plan | None]], object] | None = None,
    watch: Watch | None = None,
) -> tuple[list[PianoRoll], list[Trace]]:
    """Compose piano rolls of ``width`` time steps (default: the width trained on) at ``tempo`` quarters a minute.

    ``meters``: of the rolls.  ``layout``: their columns (default: those of the meters); it takes the place of
    ``width``.  ``plan``: what is told of chords and form, over the columns of the layout, of all samples or of each;
    if ``complete``, models that know plans draw the rest.
    ``known``: tokens (128, width), -1 where to compose (-2: anything but a hold); ``allowed``: bool (128, width),
    cells that may sound; ``labels``: one per attribute of the model, 0 for unset, see
    :func:`fractalgen.music.labels.encode_all`, or a row of them for each sample.
    The same seed, number of samples, batch size and settings give the same rolls on the same machine; without a seed a
    fresh one is drawn.  With ``return_trace`` also returns how each roll was composed (else no traces).
    ``progress(done, total)`` counts first-level patches of all samples.  ``each_batch(first, rolls, plans)`` gets the
    rolls of a batch as soon as they are composed, the number of the first of them, and their plans; where it returns
    something true, the rest is not composed.  ``watch`` is shown plans and patches as soon as they are decided; it
    needs ``return_trace``.

    Raises:
        ConfigError: settings or labels that cannot be.
    """
    sampling = SamplingConfig() if sampling is None else sampling
    sampling = replace(sampling, num_iter_list=model.iterations(sampling.num_iter_list))
    for name, value, low, high in (
        ("num_samples", num_samples, 1, math.inf),
        ("batch_size", batch_size, 1, math.inf),
        ("seed", seed or 0, 0, 2**63 - 1),
    ):
        if not low <= value <= high:
            raise ConfigError(f"{name} {value}: must be from {low} to {high}")
    rolls: list[PianoRoll] = []
    traces: list[Trace] = []
    wanted = torch.zeros(0) if labels is None else torch.as_tensor(np.array(labels, np.int64))
    wanted = wanted.expand(num_samples, wanted.shape[-1])
    sizes = torch.tensor(model.config.label_sizes)
    if wanted.numel() and (wanted.shape[1] != len(sizes) or bool(((wanted < 0) | (wanted >= sizes)).any())):
        limits = " ".join(f"0-{size - 1}" for size in sizes.tolist()) or "none"
        raise ConfigError(f"labels {wanted[0].tolist()}: this model's are {limits}, one per attribute")
    generator = torch.Generator(model.device)
    seed = secrets.randbelow(2**31) if seed is None else seed
    generator.manual_seed(seed)
    layout = layout_of(model.config, width, known, meters) if layout is None else layout
    told = [plan] * num_samples if plan is None or isinstance(plan, Plan) else list(plan)
    if len(told) != num_samples:
        raise ConfigError(f"plan: {len(told)} plans for {num_samples} samples")
    for one in told:
        if one is not None and len(one) != len(layout):
            raise ConfigError(f"plan: of {len(one)} columns, the piece has {len(layout)}")
    absent = torch.from_numpy(~layout.exists)
    laid_known = None if known is None else layout.lay(known.astype(np.int64), UNKNOWN)
    laid_allowed = None if allowed is None else layout.lay(allowed, False)
    for first in range(0, num_samples, batch_size):
        count = min(batch_size, num_samples - first)

        def advance(done: int, total: int, first: int = first, count: int = count) -> None:
            if progress:
                patches = total // count
                progress(first * patches + done, num_samples * patches)

        given = None if laid_known is None else torch.from_numpy(laid_known).expand(count, -1, -1)
        cond_list = list(wanted[first : first + count].unbind(1)) if wanted.any() else None
        plans, planned = plans_of(model, sampling, layout, told[first : first + count], complete, cond_list, generator)
        if watch is not None:
            for sample, one in enumerate(planned, first):
                watch.planned(sample, one)

        def decided(patch: DecidedPatch, first: int = first) -> None:
            column = patch.time // layout.patch
            steps = int(layout.lengths[column])
            if watch is not None and steps:
                watch.decided(
                    replace(
                        patch,
                        sample=first + patch.sample,
                        time=int(layout.starts[column]),
                        tokens=patch.tokens[:, :steps],
                        planes=patch.planes[..., :steps],
                    )
                )

        tokens, intermediates = sample_rolls(
            model,
            sampling,
            count,
            cond_list=cond_list,
            width=layout.width,
            known=given,
            plans=plans,
            absent=absent,
            allowed=None if laid_allowed is None else torch.from_numpy(laid_allowed),
            generator=generator,
            return_intermediates=return_trace,
            progress=advance,
            watch=None if watch is None else decided,
        )
        for roll in tokens.cpu().numpy().astype(np.uint8):
            rolls.append(
                PianoRoll(
                    layout.strip(roll),
                    steps_per_quarter=model.config.steps_per_quarter,
                    velocity_bins=model.config.velocity_bins,
                    tempos=((0, tempo),),
                    time_signatures=meters,
                )
            )
        if intermediates is not None:
            recorded = {**vars(sampling), "width": layout.num_steps, "batch_size": batch_size, "tempo": tempo}
            recorded["steps_per_quarter"] = model.config.steps_per_quarter
            if meters != (DEFAULT_METER,):
                recorded |= {"meters": meters, "steps_per_bar": rolls[-1].steps_per_bar}
            if not layout.exists.all():
                recorded["columns"] = layout.lengths.tolist()
            of_plans = [{} if one is None else {"plan": one.to_dict()} for one in planned]
            for trace, row, own in zip(
                intermediates.traces, wanted[first : first + count].tolist(), of_plans, strict=True
            ):
                pairs = zip(model.config.attributes, row, strict=False)  # no row where nothing is asked for
                asked = {attribute.name: attribute.describe(label) for attribute, label in pairs if label}
                traces.append(replace(trace, seed=seed, settings={**trace.settings, **recorded, **asked, **own}))
        if each_batch is not None and each_batch(first, rolls[first:], planned):
            break
    return rolls, traces


def layout_of(
    config: ModelConfig,
    width: int | None = None,
    known: npt.NDArray[np.integer] | None = None,
    meters: Meters = (DEFAULT_METER,),
) -> BarLayout:
    """The columns of a piece of ``width`` steps (default: as many as are known, or the width trained on)."""
    if width is None:
        width = config.crop_length if known is None else known.shape[-1]
    if not 1 <= width <= MAX_STEPS:
        raise ConfigError(f"--target_width {width}: a piece has 1 to {MAX_STEPS:,} time steps")
    if config.bar_columns:
        return BarLayout.of(meters, width, config.steps_per_quarter, config.column)
    config.check_width(width)
    return BarLayout.plain(width, config.column)


def plans_of(
    model: FractalNetwork,
    settings: SamplingConfig,
    layout: BarLayout,
    told: Sequence[Plan | None],
    complete: bool,
    cond_list: Sequence[Int[Tensor, " b"]] | None,
    generator: torch.Generator,
) -> tuple[Plans | None, list[Plan | None]]:
    """Plans for a batch of pieces, ``complete`` or as far as they are told, and each of them by itself.

    Raises:
        ConfigError: a plan for a model that knows none.
    """
    config = model.config
    if model.planner is None:
        if any(plan is not None for plan in told):
            raise ConfigError("this model knows no plans")
        return None, [None] * len(told)
    nothing = replace(Plan.free(len(layout), config.column), left=bars_to_end(layout))
    given = [nothing if plan is None else plan for plan in told]
    number = np.arange(len(layout))
    returns = np.stack([plan.returns for plan in given])
    arrays = {
        "chords": np.stack([plan.chords for plan in given]),
        "back": np.where(returns >= 0, number - returns, np.where(returns == NEW, 0, -1)),
        "left": np.stack([plan.left for plan in given]),
    }
    free = Plans.free(len(given), len(layout), config.pitches, config.column, model.device)
    plans = replace(free, **{name: torch.from_numpy(array).to(model.device) for name, array in arrays.items()})
    if complete:
        plans = draw_plans(model, settings, plans, torch.from_numpy(~layout.exists), cond_list, generator)
    drawn = [
        replace(plan, chords=chords, returns=np.where(back > 0, number - back, np.where(back == 0, NEW, NOT_SAID)))
        for plan, chords, back in zip(given, plans.chords.cpu().numpy(), plans.back.cpu().numpy(), strict=True)
    ]
    return plans, list(drawn)


def _intermediates(
    model: FractalNetwork, tokens: Tensor, known: Tensor, composed: Composed, log: StepLog, settings: SamplingConfig
) -> Intermediates:
    assert composed.planes is not None
    assert composed.chances is not None
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
    planes = composed.planes.masked_fill(given[:, None], -1)
    arrays = (tokens.byte().cpu(), planes, given, composed.chances.masked_fill(given, 0))
    return Intermediates(
        [
            Trace(tokens=roll, decided=decided.astype(number), known=known, chances=chances, **common)
            for roll, decided, known, chances in zip(*(array.numpy() for array in arrays), strict=True)
        ]
    )

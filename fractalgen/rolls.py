"""Piano rolls composed by a network: plans, columns of bars, batches, traces."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from fractalgen.config import ConfigError, ModelConfig, SamplingConfig
from fractalgen.features.critic import Critic
from fractalgen.model.network import FractalNetwork
from fractalgen.model.plans import Plans
from fractalgen.model.sampling.recorder import DecidedPatch
from fractalgen.music import MAX_STEPS
from fractalgen.music.bars import BarLayout
from fractalgen.music.form import NEW, NOT_SAID
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.plan import Plan, bars_to_end
from fractalgen.music.tokens import DEFAULT_METER, TEMPO, UNKNOWN, Meters
from fractalgen.sampling import draw_plans, sample_rolls
from fractalgen.trace import Trace


class Watch(Protocol):
    """What wants to see a piece while it is composed."""

    def planned(self, sample: int, plan: Plan | None) -> None:
        """The plan of a piece is drawn; models without plans have none."""

    def decided(self, patch: DecidedPatch) -> None:
        """A patch of the first level is decided; its steps are those of the piece."""


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
    best_of: int = 1,
    critic: Critic | None = None,
    tempo: float = TEMPO,
    meters: Meters = (DEFAULT_METER,),
    progress: Callable[[int, int], None] | None = None,
    each_batch: Callable[[int, list[PianoRoll], list[Plan | None]], object] | None = None,
    watch: Watch | None = None,
) -> tuple[list[PianoRoll], list[Trace]]:
    """Compose piano rolls of ``width`` time steps (default: the width trained on) at ``tempo`` quarters a minute.

    The same seed, number of samples, batch size and settings give the same rolls on the same machine.

    Args:
        layout: the columns of the rolls (default: those of ``meters``); it takes the place of ``width``.
        plan: what is told of chords and form, over the columns of the layout, of all samples or of each.
        complete: models that know plans draw the rest of them.
        known: tokens (128, width), -1 where to compose (-2: anything but a hold).
        allowed: bool (128, width), cells that may sound.
        labels: one per attribute of the model, 0 for unset, see :func:`fractalgen.music.labels.encode_all`, or a row
            of them for each sample.
        seed: without one a fresh one is drawn.
        return_trace: also return how each roll was composed (else no traces).
        best_of: so many candidates are drawn for each roll, of which ``critic`` keeps the one that is most like songs.
            A batch has at most ``batch_size`` candidates, but at least those of one roll.
        progress: ``progress(done, total)`` counts first-level patches of all candidates.
        each_batch: ``each_batch(first, rolls, plans)`` gets the rolls of a batch as soon as they are composed, the
            number of the first of them, and their plans; where it returns something true, the rest is not composed.
        watch: is shown plans and patches as soon as they are decided; it needs ``return_trace``, and one candidate.

    Raises:
        ConfigError: settings or labels that cannot be.
    """
    sampling = model.fit(SamplingConfig() if sampling is None else sampling)
    check_numbers(num_samples, batch_size, seed)
    check_critic(model, critic, best_of)
    seed = secrets.randbelow(2**31) if seed is None else seed
    generator = torch.Generator(model.device).manual_seed(seed)
    layout = layout_of(model.config, width, known, meters) if layout is None else layout
    wanted = label_rows(model.config, labels, num_samples)
    told = plan_rows(plan, num_samples, layout)
    given = None if known is None else torch.from_numpy(layout.lay(known.astype(np.int64), UNKNOWN))
    may_sound = None if allowed is None else torch.from_numpy(layout.lay(allowed, False))
    absent = torch.from_numpy(~layout.exists)
    grid = model.config.steps_per_quarter, model.config.velocity_bins
    facts = {**vars(sampling), "width": layout.num_steps, "batch_size": batch_size, "best_of": best_of, "tempo": tempo}
    pieces = max(1, batch_size // best_of)
    rolls: list[PianoRoll] = []
    traces: list[Trace] = []
    for first in range(0, num_samples, pieces):
        own = [piece for piece in range(first, min(first + pieces, num_samples)) for _ in range(best_of)]
        count = len(own)
        cond_list = list(wanted[own].unbind(1)) if wanted.any() else None
        told_own = [told[piece] for piece in own]
        plans, planned = plans_of(model, sampling, layout, told_own, complete, cond_list, generator)
        if watch is not None:
            for sample, one in enumerate(planned, first):
                watch.planned(sample, one)
        tokens, intermediates = sample_rolls(
            model,
            sampling,
            count,
            cond_list=cond_list,
            width=layout.width,
            known=None if given is None else given.expand(count, -1, -1),
            plans=plans,
            absent=absent,
            allowed=may_sound,
            generator=generator,
            return_intermediates=return_trace,
            progress=None
            if progress is None
            else partial(of_all, progress, best_of * num_samples, best_of * first, count),
            watch=None if watch is None else partial(show, watch, layout, first),
        )
        cells = layout.strip(tokens.cpu().numpy().astype(np.uint8))
        drawn = [PianoRoll(roll, *grid, ((0, tempo),), meters) for roll in cells]
        kept: Sequence[int] = range(count)
        if critic is not None and best_of > 1:
            kept = best_of_each(critic, cells, drawn[0].steps_per_bar, best_of)
        rolls += [drawn[index] for index in kept]
        if intermediates is not None:
            facts |= facts_of_grid(rolls[-1], layout, meters)
            for index in kept:
                words = asked_for(model.config, wanted[own[index]].tolist())
                traces.append(annotated(intermediates.traces[index], seed, facts | words, planned[index]))
        if each_batch is not None and each_batch(first, rolls[first:], [planned[index] for index in kept]):
            break
    return rolls, traces


def check_numbers(num_samples: int, batch_size: int, seed: int | None) -> None:
    """Refuse numbers that cannot be (ConfigError)."""
    for name, value in (("num_samples", num_samples), ("batch_size", batch_size)):
        if value < 1:
            raise ConfigError(f"{name} {value}: must be at least 1")
    if seed is not None and not 0 <= seed < 2**63:
        raise ConfigError(f"seed {seed}: must be from 0 to 2**63 - 1")


def check_critic(model: FractalNetwork, critic: Critic | None, best_of: int) -> None:
    """Refuse to choose among candidates without a critic (ConfigError)."""
    if best_of < 1:
        raise ConfigError(f"--best_of {best_of}: must be at least 1")
    if best_of > 1 and critic is None:
        raise ConfigError(
            f"--best_of {best_of}: {model.checkpoint_id} has no critic; `fractalgen evaluate --critic` makes it"
        )


def best_of_each(critic: Critic, cells: npt.NDArray[np.uint8], steps_per_bar: int, best_of: int) -> list[int]:
    """The candidate of each piece that is most like songs, of rolls (n * best_of, 128, T): its index among all."""
    scores = critic.scores(cells, steps_per_bar).reshape(-1, best_of)
    return [number * best_of + best for number, best in enumerate(scores.argmax(1).tolist())]


def label_rows(config: ModelConfig, labels: npt.ArrayLike | None, num_samples: int) -> Int[Tensor, "n a"]:
    """The labels of each sample, from one row of them for all, or a row for each; no columns where none are given.

    Raises:
        ConfigError: other labels than the model has.
    """
    wanted = torch.zeros(0) if labels is None else torch.as_tensor(np.array(labels, np.int64))
    wanted = wanted.expand(num_samples, wanted.shape[-1])
    sizes = torch.tensor(config.label_sizes)
    if wanted.numel() and (wanted.shape[1] != len(sizes) or bool(((wanted < 0) | (wanted >= sizes)).any())):
        limits = " ".join(f"0-{size - 1}" for size in sizes.tolist()) or "none"
        raise ConfigError(f"labels {wanted[0].tolist()}: this model's are {limits}, one per attribute")
    return wanted


def plan_rows(plan: Plan | Sequence[Plan] | None, num_samples: int, layout: BarLayout) -> list[Plan | None]:
    """What is told of each sample, from one plan for all, or a plan for each.

    Raises:
        ConfigError: another number of plans, or one of other columns than the layout has.
    """
    told: list[Plan | None] = [plan] * num_samples if plan is None or isinstance(plan, Plan) else [*plan]
    if len(told) != num_samples:
        raise ConfigError(f"plan: {len(told)} plans for {num_samples} samples")
    for one in told:
        if one is not None and len(one) != len(layout):
            raise ConfigError(f"plan: of {len(one)} columns, the piece has {len(layout)}")
    return told


def of_all(
    progress: Callable[[int, int], None], num_samples: int, first: int, count: int, done: int, total: int
) -> None:
    """Tell the progress of all samples: ``done`` patches of the ``total`` of a batch of ``count``, ``first`` on."""
    patches = total // count
    progress(first * patches + done, num_samples * patches)


def show(watch: Watch, layout: BarLayout, first: int, patch: DecidedPatch) -> None:
    """Show a patch of a batch as one of the piece: without steps that do not exist, and not at all if none is left."""
    column = patch.time // layout.patch
    steps = int(layout.lengths[column])
    if steps:
        start, tokens, planes = int(layout.starts[column]), patch.tokens[:, :steps], patch.planes[..., :steps]
        watch.decided(replace(patch, sample=first + patch.sample, time=start, tokens=tokens, planes=planes))


def facts_of_grid(roll: PianoRoll, layout: BarLayout, meters: Meters) -> dict[str, Any]:
    """What a trace keeps of the grid, and of its bars and columns where these are not the usual ones."""
    facts: dict[str, Any] = {"steps_per_quarter": roll.steps_per_quarter}
    if meters != (DEFAULT_METER,):
        facts |= {"meters": meters, "steps_per_bar": roll.steps_per_bar}
    if not layout.exists.all():
        facts["columns"] = layout.lengths.tolist()
    return facts


def asked_for(config: ModelConfig, labels: Sequence[int]) -> dict[str, str]:
    """Labels of a sample in words, by attribute; those that are unset are left out."""
    pairs = zip(config.attributes, labels, strict=False)  # no labels where nothing is asked for
    return {attribute.name: attribute.describe(label) for attribute, label in pairs if label}


def annotated(trace: Trace, seed: int, facts: dict[str, Any], plan: Plan | None) -> Trace:
    """The trace with what is known of its piece."""
    planned = {} if plan is None else {"plan": plan.to_dict()}
    return replace(trace, seed=seed, settings={**trace.settings, **facts, **planned})


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
    return config.layout(meters, width)


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
    found: list[Plan | None] = []
    for one, chords, back in zip(given, plans.chords.cpu().numpy(), plans.back.cpu().numpy(), strict=True):
        returns = np.where(back > 0, number - back, np.where(back == 0, NEW, NOT_SAID))
        found.append(replace(one, chords=chords, returns=returns))
    return plans, found

"""What a model is asked for from Python, and how it becomes labels and a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from fractalgen.config import ConfigError, SamplingConfig
from fractalgen.music.labels import NAMES, encode_all
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.planning import piece_plan
from fractalgen.music.tokens import TEMPO, Meters
from fractalgen.pretrained import PretrainedModel
from fractalgen.rolls import compose_rolls, layout_of
from fractalgen.trace import Trace


class Wishes(TypedDict, total=False):
    """What :meth:`FractalGen.generate` and its relatives may be asked for; all of it may be left out.

    The model must know the labels that are asked for; chords and form need a model that knows plans.

    Attributes:
        key: such as ``"D minor"``.
        density: a percentile of the training set from 0 to 1, or a value above 1 in the label's unit.
        polyphony: the same.
        register: the same.
        velocity: the same.
        style: its name.
        chords: such as ``"C G/B | Am F"``, written as for ``--chords``.
        form: such as ``"A8 A8 B8 A8"``, written as for ``--form``.
        sampling: temperature, guidance and the like.
        seed: the same seed and settings give the same rolls on one machine.
        batch_size: rolls drawn together.
        best_of: candidates for each roll; the model's critic keeps the one that is most like songs.
        progress: called with the first-level patches that are done, and all of them.
    """

    key: str
    density: float
    polyphony: float
    register: float
    velocity: float
    style: str
    chords: str
    form: str
    sampling: SamplingConfig
    seed: int
    batch_size: int
    best_of: int
    progress: Callable[[int, int], None]


def compose_wishes(
    model: PretrainedModel,
    num_samples: int,
    wishes: Wishes,
    tempo: float | None = None,
    *,
    meters: Meters,
    asked: Mapping[str, str] = MappingProxyType({}),
    width: int | None = None,
    known: npt.NDArray[np.integer] | None = None,
    ends: bool = True,
    **what: Any,
) -> tuple[list[PianoRoll], list[Trace]]:
    """Turn wishes into labels and a plan, and compose."""
    rest: dict[str, Any] = dict(wishes)
    if unknown := sorted(rest.keys() - Wishes.__annotations__.keys()):
        raise ConfigError(f"there is no argument {unknown[0]!r}")
    named: dict[str, str | None] = {name: str(value) for name in NAMES if (value := rest.pop(name, None)) is not None}
    labels = encode_all(model.config.attributes, {**asked, **named}, tempo)
    layout = layout_of(model.config, width, known, meters)
    told = {name: value for name in ("chords", "form") if (value := rest.pop(name, None)) is not None}
    plan = None
    if model.config.plan_width:
        grid = model.config.steps_per_quarter
        plan = piece_plan(layout, grid, known=known, meters=meters, ends=ends, **told)
    elif told:
        name, value = next(iter(told.items()))
        raise ConfigError(f"{name} {value}: {model.checkpoint_id} was trained without plans")
    what = {"critic": model.critic, "layout": layout, "plan": plan, "known": known, "meters": meters, **what}
    return compose_rolls(model, num_samples, labels=labels, tempo=tempo or TEMPO, **what, **rest)

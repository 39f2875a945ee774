"""What ``fractalgen generate`` composes: settings that were checked against a model, with defaults for it."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fractalgen import render
from fractalgen.bulk import Part
from fractalgen.compose.assignment import Assignment, assignment, resolve_lead_sheet
from fractalgen.compose.checks import check_mode
from fractalgen.compose.output import animated_count
from fractalgen.compose.recipe import write_recipe
from fractalgen.compose.wishes import choose_labels
from fractalgen.config import GenerateConfig, ModelConfig, SamplingConfig, sampling_settings
from fractalgen.errors import UserError
from fractalgen.files import read_text
from fractalgen.music.musicxml import load_library
from fractalgen.music.plan import Plan
from fractalgen.music.planning import ending_on_tonic, piece_plan
from fractalgen.music.tokens import TEMPO
from fractalgen.render import sound
from fractalgen.render.video import check_ffmpeg

if TYPE_CHECKING:
    from fractalgen.api import FractalGen
    from fractalgen.music.pianoroll import PianoRoll
    from fractalgen.rolls import Watch
    from fractalgen.trace import Trace

DRAWN = ("unconditional", "conditional")
"""Modes in which a model that knows plans draws what the user does not tell.

In the others the given music says more of the harmony than a plan that was drawn without hearing it.
"""
GUIDANCE = 2.0
"""Scale of guidance for models with plans unless told otherwise: chosen on validation songs (docs/experiments.md)."""
UNDER_CHORDS = {"cfg": 4.0, "density": "0.6", "polyphony": "0.7"}
"""The same for what accompanies a voice under given chords."""
BEST_OF = 4
"""Candidates for a piece where the model has a critic, unless told otherwise (docs/experiments.md)."""
QUALITY: dict[str, tuple[int, ...]] = {
    "fast": (4, 2, 1, 1),
    "balanced": SamplingConfig.num_iter_list,
    "best": (32, 8, 4, 1),
}
"""Iterations of the MAR levels, L0 to L3: of L0 as chosen on validation songs (docs/performance.md), below in step."""


@dataclasses.dataclass(frozen=True, eq=False)
class Composition:
    """Settings that have been checked against a model, and all that it needs to compose.

    ``asked``: the settings as they were given; ``cfg``: with defaults for this model.  ``labels``: (num_samples,
    number of attributes).  ``plans``: what is told of each piece, None for a model that knows no plans.
    """

    asked: GenerateConfig
    cfg: GenerateConfig
    model: FractalGen
    seed: int
    work: Assignment
    labels: npt.NDArray[np.int64]
    plans: list[Plan] | None

    @classmethod
    def prepare(cls, cfg: GenerateConfig, model: FractalGen) -> Composition:
        """Read what is given and check every setting.

        Raises:
            UserError: a file that cannot be read, or a setting that this model cannot serve.
        """
        asked, cfg = cfg, resolve_lead_sheet(cfg)
        check_flags(cfg)
        best_of = cfg.best_of or (1 if model.critic is None else BEST_OF)
        cfg = dataclasses.replace(
            with_defaults(cfg, model.config), num_iter_list=iterations(cfg, model), quality=None, best_of=best_of
        )
        seed = secrets.randbelow(2**31) if cfg.seed is None else cfg.seed
        work = assignment(cfg, model.config, seed)
        check_against_model(cfg, model, work)
        labels = choose_labels(cfg, model.config, work, seed)
        return cls(asked, cfg, model, seed, work, labels, wanted_plans(cfg, model, work, labels))

    def part(self, part: Part) -> Composition:
        """Some of the pieces by themselves."""
        own = slice(part.first, part.first + part.size)
        cfg = dataclasses.replace(self.cfg, num_samples=part.size)
        plans = None if self.plans is None else self.plans[own]
        return dataclasses.replace(self, cfg=cfg, seed=part.seed, labels=self.labels[own], plans=plans)

    def compose(
        self,
        *,
        progress: Callable[[int, int], None] | None = None,
        each_batch: Callable[[int, list[PianoRoll], list[Plan | None]], object] | None = None,
        watch: Watch | None = None,
    ) -> tuple[list[PianoRoll], list[Trace]]:
        """Compose the pieces, see :func:`fractalgen.rolls.compose_rolls`; the pieces as wide as asked for."""
        from fractalgen.rolls import compose_rolls

        rolls, traces = compose_rolls(
            self.model,
            self.cfg.num_samples,
            sampling=sampling_settings(self.cfg),
            layout=self.work.layout,
            plan=self.plans,
            complete=self.cfg.mode in DRAWN,
            known=self.work.known(),
            allowed=self.work.allowed,
            labels=self.labels,
            seed=self.seed,
            return_trace=True,
            batch_size=self.cfg.batch_size,
            best_of=self.cfg.best_of or 1,
            critic=self.model.critic,
            tempo=self.cfg.tempo or TEMPO,
            progress=progress,
            each_batch=each_batch,
            watch=watch,
        )
        rolls = [self.work.finish(roll) for roll in rolls]
        return rolls, [self.work.annotate(trace, roll) for trace, roll in zip(traces, rolls, strict=True)]

    def key(self, index: int) -> str | None:
        """The key that piece ``index`` is asked for, one of :data:`~fractalgen.music.labels.KEYS`."""
        return key_of(self.model.config, self.labels[index])

    def recipe(self, index: int) -> str:
        """The recipe of piece ``index``."""
        flags = dataclasses.replace(self.cfg, input_midi=self.asked.input_midi, voice=self.asked.voice)
        return write_recipe(flags, self.seed, index, self.model.checkpoint_id)

    def write(self, index: int, roll: PianoRoll, plan: Plan | None, path: Path) -> None:
        """Write piece ``index`` as MIDI, with its recipe and the markers of its plan."""
        self.work.write(roll, path, self.recipe(index), self.work.markers(plan, self.key(index)))


def check_flags(cfg: GenerateConfig) -> None:
    """Refuse settings that cannot work with any model (UserError naming flag and value)."""
    if cfg.sample is not None and not 0 <= cfg.sample < cfg.num_samples:
        raise UserError(
            f"--sample {cfg.sample}: with --num_samples {cfg.num_samples} there are 0 to {cfg.num_samples - 1}"
        )
    if cfg.resume and (cfg.seed is None or cfg.overwrite):
        raise UserError(
            "--resume: not with --overwrite" if cfg.overwrite else "--resume: needs the --seed of that command"
        )
    check_mode(cfg)
    animated_count(cfg)
    render.check_settings(cfg)
    if cfg.soundfont is not None:
        if not (cfg.save_wav or cfg.save_mp4):
            raise UserError(f"--soundfont {cfg.soundfont}: for --save_wav and --save_mp4; neither is asked for")
        sound.check_soundfont(cfg.soundfont)
    if cfg.save_musicxml:
        load_library("--save_musicxml")
    if cfg.page_piano == "full" and not cfg.save_html:
        raise UserError("--page_piano full: for --save_html, which is not asked for")
    if cfg.save_mp4:
        check_ffmpeg()


def with_defaults(cfg: GenerateConfig, config: ModelConfig) -> GenerateConfig:
    """The settings, with guidance and labels as chosen for a model of this kind where nothing is asked for."""
    values: dict[str, Any] = {"cfg": GUIDANCE if config.plan_width else SamplingConfig.cfg}
    if config.plan_width and cfg.mode == "accompany" and (cfg.lead_sheet or cfg.chords):
        known = {"cfg", *config.label_names}
        values = {name: value for name, value in UNDER_CHORDS.items() if name in known}
    return dataclasses.replace(cfg, **{name: value for name, value in values.items() if getattr(cfg, name) is None})


def iterations(cfg: GenerateConfig, model: FractalGen) -> tuple[int, ...]:
    """The iterations of each level, from ``--quality`` or ``--num_iter_list``.

    Raises:
        UserError: there is nothing to choose, or a number that is missing or no number of iterations.
    """
    if cfg.quality is None:
        return model.iterations(cfg.num_iter_list)
    if model.config.is_autoregressive:
        raise UserError(
            f"--quality {cfg.quality}: {model.checkpoint_id} is autoregressive, it draws patch by patch and has no"
            " iterations to choose"
        )
    return model.config.fit_iterations(QUALITY[cfg.quality])


def wanted_plans(
    cfg: GenerateConfig, model: FractalGen, work: Assignment, labels: npt.NDArray[np.int64]
) -> list[Plan] | None:
    """The plan of each piece as far as flags and given music tell it; None for a model that knows no plans.

    What is composed to its end ends on the tonic of its key, unless another chord is given there.

    Raises:
        UserError: a wish that this model cannot serve, or that does not fit the piece.
    """
    config = model.config
    if not config.plan_width:
        for name in ("chords", "form", "lead_sheet"):
            if (value := getattr(cfg, name)) is not None:
                raise UserError(f"--{name} {value}: {model.checkpoint_id} was trained without plans (--plan_width)")
        return None
    chords, flag = cfg.chords, "--chords"
    if cfg.lead_sheet is not None and not work.changes:
        chords, flag = read_text(Path(cfg.lead_sheet), "--lead_sheet"), f"--lead_sheet {cfg.lead_sheet}"
    known = work.known()
    plan = piece_plan(
        work.layout,
        config.steps_per_quarter,
        known=known,
        meters=work.meters,
        chords=chords,
        changes=work.changes,
        form=cfg.form,
        chords_flag=flag,
        ends=cfg.mode != "accompany",
    )
    keys = [key_of(config, row) for row in labels]
    if cfg.mode not in DRAWN:
        return [plan] * len(keys)
    of_keys = {key: plan if key is None else ending_on_tonic(plan, work.layout, key) for key in set(keys)}
    return [of_keys[key] for key in keys]


def key_of(config: ModelConfig, labels: npt.NDArray[np.int64]) -> str | None:
    """The key that is asked for, one of :data:`~fractalgen.music.labels.KEYS`."""
    for attribute, label in zip(config.attributes, labels.tolist(), strict=True):
        if attribute.name == "key" and label:
            return attribute.values[label - 1]
    return None


def check_against_model(cfg: GenerateConfig, model: FractalGen, work: Assignment) -> None:
    """Refuse settings that this model cannot serve (UserError naming flag and both values)."""
    from fractalgen.rolls import check_critic

    config = model.config
    model.fit(cfg)
    check_critic(model, model.critic, cfg.best_of or 1)
    if cfg.mode in ("accompany", "variation"):
        model.check_sees_future(f"--mode {cfg.mode}")
    knows_tempo = "tempo" in config.label_names
    if cfg.tempo is not None and work.template is not None and not knows_tempo:
        raise UserError(f"--tempo {cfg.tempo}: the given music keeps its own tempo, and this model has no tempo label")

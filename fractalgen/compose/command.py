"""``fractalgen generate``: compose with a trained model and write MIDI, pictures, animations and traces."""

from __future__ import annotations

import dataclasses
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fractalgen import render
from fractalgen.compose.assignment import Assignment, assignment, check_mode, resolve_lead_sheet
from fractalgen.compose.output import animated_count, free_names, write_pictures
from fractalgen.compose.recipe import read_recipe, write_recipe
from fractalgen.compose.wishes import choose_labels, key_source
from fractalgen.config import (
    GenerateConfig,
    ModelConfig,
    SamplingConfig,
    sampling_settings,
)
from fractalgen.errors import Stopped, UserError
from fractalgen.evaluation import note_statistics, statistics_table
from fractalgen.files import read_text, writable_folder
from fractalgen.music.labels import SPELLED
from fractalgen.music.plan import MOST_LEFT, Plan
from fractalgen.music.planning import ending_on_tonic, piece_plan
from fractalgen.music.tokens import TEMPO
from fractalgen.progress import composing_bar
from fractalgen.render import sound
from fractalgen.render.video import check_ffmpeg

if TYPE_CHECKING:
    from fractalgen.api import FractalGen
    from fractalgen.music.pianoroll import PianoRoll

DRAWN = ("unconditional", "conditional")
"""Modes in which a model that knows plans draws what the user does not tell.

In the others the given music says more of the harmony than a plan that was drawn without hearing it.
"""
GUIDANCE = 2.0
"""Scale of guidance for models with plans unless told otherwise: chosen on validation songs (docs/experiments.md)."""
UNDER_CHORDS = {"cfg": 4.0, "density": "0.6", "polyphony": "0.7"}
"""The same for what accompanies a voice under given chords."""
QUALITY: dict[str, tuple[int, ...]] = {
    "fast": (4, 2, 1, 1),
    "balanced": SamplingConfig.num_iter_list,
    "best": (32, 8, 4, 1),
}
"""Iterations of the MAR levels, L0 to L3: of L0 as chosen on validation songs (docs/performance.md), below in step."""


def generate(cfg: GenerateConfig) -> int:
    """Compose ``num_samples`` pieces into ``output_dir``; MIDI is written batch by batch, before any picture.

    Every setting is checked before anything is written or composed (UserError).  A picture that cannot be drawn gives
    a warning and exit status 1, the MIDI files stay.
    """
    asked, cfg = cfg, resolve_lead_sheet(cfg)
    check_flags(cfg)
    # Imported here and not above: torch takes seconds, and mistakes should be answered at once.
    from fractalgen.api import load_pretrained
    from fractalgen.checkpoint import find_model
    from fractalgen.devices import resolve_device
    from fractalgen.sampling import compose_rolls

    device = resolve_device(cfg.device)
    model = load_pretrained(find_model(cfg.checkpoint, cfg.model), device)
    cfg = dataclasses.replace(with_defaults(cfg, model.config), num_iter_list=iterations(cfg, model), quality=None)
    seed = secrets.randbelow(2**31) if cfg.seed is None else cfg.seed
    work = assignment(cfg, model.config, seed)
    check_against_model(cfg, model, work)
    labels = choose_labels(cfg, model.config, work, seed)
    plan = wanted_plans(cfg, model, work, labels)
    chosen = range(cfg.num_samples) if cfg.sample is None else range(cfg.sample, cfg.sample + 1)
    folder = writable_folder(cfg.output_dir)
    names = dict(zip(chosen, free_names(cfg, folder, len(chosen)), strict=True))
    print(f"{model.checkpoint_id} on {device}: {len(chosen)} x {work.width} steps, seed {seed}")
    for line in asked_lines(cfg, model.config, work, labels):
        print(line)

    written: list[str] = []

    def keep(first: int, batch: list[PianoRoll], plans: list[Plan | None]) -> bool:
        """Write the pieces of a batch and return whether all wanted ones are written."""
        for index, (roll, drawn) in enumerate(zip(batch, plans, strict=True), first):
            if index in names:
                flags = dataclasses.replace(cfg, input_midi=asked.input_midi, voice=asked.voice)
                recipe = write_recipe(flags, seed, index, model.checkpoint_id)
                marked = work.markers(drawn, key_of(model.config, labels[index]))
                work.write(work.finish(roll), folder / f"{names[index]}.mid", recipe, marked)
                written.append(names[index])
        return len(written) == len(chosen)

    def left() -> str:
        there = f"{len(written)} of {len(chosen)} pieces are in {folder}/"
        missing = [name for name in names.values() if name not in written]
        return there + (f"; not composed: {', '.join(missing)}" if missing else "")

    with stopping(left), composing_bar() as progress:
        rolls, traces = compose_rolls(
            model,
            cfg.num_samples,
            sampling=sampling_settings(cfg),
            layout=work.layout,
            plan=plan,
            complete=cfg.mode in DRAWN,
            known=work.known(),
            allowed=work.allowed,
            labels=labels,
            seed=seed,
            return_trace=True,
            batch_size=cfg.batch_size,
            tempo=cfg.tempo or TEMPO,
            progress=progress,
            each_batch=keep,
        )
        rolls = [work.finish(rolls[index]) for index in chosen]
        traces = [work.annotate(traces[index], roll) for index, roll in zip(chosen, rolls, strict=True)]
        failures = write_pictures(cfg, folder, list(names.values()), rolls, traces)
    rows = {}
    for name, roll, row in zip(names.values(), rolls, labels[chosen.start : chosen.stop], strict=True):
        key = key_of(model.config, row)
        rows[name if key is None else f"{name} in {SPELLED.get(key, key)}"] = note_statistics(
            roll.tokens, roll.steps_per_bar
        )
    print(statistics_table(rows))
    print(f"written to {folder}/")
    pages = [name for name in names.values() if (folder / f"{name}.html").is_file()]
    if cfg.save_html and pages:
        print(f"to watch and hear it, open in a browser: {(folder / f'{pages[0]}.html').resolve().as_uri()}")
    return 1 if failures else 0


def asked_lines(cfg: GenerateConfig, config: ModelConfig, work: Assignment, labels: npt.NDArray[np.int64]) -> list[str]:
    """The labels and what they mean for this model, one line each."""
    lines = []
    if cfg.like is not None and (maker := read_recipe(cfg.like).get("made_by")):
        lines.append(f"as {cfg.like}, made by {maker}")
    if cfg.candidates != SamplingConfig.candidates and not config.sees_past_only:
        lines.append(f"--candidates {cfg.candidates}: not used; only AR models without future context need candidates")
    if cfg.plan_temperature != GenerateConfig.plan_temperature and not config.plan_width:
        lines.append(f"--plan_temperature {cfg.plan_temperature:g}: not used; this model was trained without plans")
    if work.changes and cfg.lead_sheet:
        lines.append(f"--lead_sheet {cfg.lead_sheet}: {len(work.changes)} chords, melody: --voice {cfg.voice}")
    for attribute, column in zip(config.attributes, labels.T.tolist(), strict=True):
        if len(set(column)) > 1 or not column[0]:
            continue  # the key of each piece stands in the table
        if attribute.name == "meter" and cfg.meter is None:
            continue
        wish = getattr(cfg, attribute.name)
        meant = attribute.describe(column[0])
        if attribute.name == "key" and wish is None:
            meant += f" ({key_source(cfg, work)})"
        lines.append(f"{attribute.name}: {meant}" + (f" (asked for: {wish})" if attribute.edges else ""))
        if attribute.name == "polyphony":
            lines.append("models obey --polyphony only weakly; --max_polyphony is exact")
        if attribute.name == "tempo" and work.template is not None:
            lines.append(f"--tempo {cfg.tempo:g} is the model's label only: the given music keeps its tempo")
    return lines


@contextmanager
def stopping(left: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the block with what ``left`` says.

    Raises:
        Stopped: a signal came.
    """

    def stop(signum: int, frame: object) -> None:
        raise Stopped(signum, left())

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def check_flags(cfg: GenerateConfig) -> None:
    """Refuse settings that cannot work with any model (UserError naming flag and value)."""
    if cfg.sample is not None and not 0 <= cfg.sample < cfg.num_samples:
        raise UserError(
            f"--sample {cfg.sample}: with --num_samples {cfg.num_samples} there are 0 to {cfg.num_samples - 1}"
        )
    check_mode(cfg)
    animated_count(cfg)
    render.check_settings(cfg)
    if cfg.soundfont is not None:
        if not (cfg.save_wav or cfg.save_mp4):
            raise UserError(f"--soundfont {cfg.soundfont}: for --save_wav and --save_mp4; neither is asked for")
        sound.check_soundfont(cfg.soundfont)
    if cfg.save_mp4:
        check_ffmpeg()


def with_defaults(cfg: GenerateConfig, config: ModelConfig) -> GenerateConfig:
    """The settings, with guidance and labels as chosen for a model of this kind where nothing is asked for."""
    values: dict[str, Any] = {"cfg": GUIDANCE if config.plan_width else SamplingConfig.cfg}
    if config.plan_width and cfg.mode == "accompany" and (cfg.lead_sheet or cfg.chords):
        known = {"cfg", *(attribute.name for attribute in config.attributes)}
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
    )
    if cfg.mode == "accompany":  # the given voice says where the music ends
        plan = dataclasses.replace(plan, left=np.where(plan.left > 0, MOST_LEFT, 0))
    keys = [key_of(config, row) for row in labels]
    if cfg.mode not in DRAWN:
        return [plan] * len(keys)
    return [plan if key is None else ending_on_tonic(plan, work.layout, key) for key in keys]


def key_of(config: ModelConfig, labels: npt.NDArray[np.int64]) -> str | None:
    """The key that is asked for, one of :data:`~fractalgen.music.labels.KEYS`."""
    for attribute, label in zip(config.attributes, labels.tolist(), strict=True):
        if attribute.name == "key" and label:
            return attribute.values[label - 1]
    return None


def check_against_model(cfg: GenerateConfig, model: FractalGen, work: Assignment) -> None:
    """Refuse settings that this model cannot serve (UserError naming flag and both values)."""
    config = model.config
    if cfg.mode in ("accompany", "variation"):
        model.check_sees_future(f"--mode {cfg.mode}")
    knows_tempo = any(attribute.name == "tempo" for attribute in config.attributes)
    if cfg.tempo is not None and work.template is not None and not knows_tempo:
        raise UserError(f"--tempo {cfg.tempo}: the given music keeps its own tempo, and this model has no tempo label")

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
from fractalgen.music.musicxml import load_library
from fractalgen.music.plan import Plan
from fractalgen.music.planning import ending_on_tonic, piece_plan
from fractalgen.music.tokens import TEMPO
from fractalgen.progress import composing_bar
from fractalgen.render import sound
from fractalgen.render.video import check_ffmpeg

if TYPE_CHECKING:
    from fractalgen.api import FractalGen
    from fractalgen.music.pianoroll import PianoRoll
    from fractalgen.sampling import Watch
    from fractalgen.trace import Trace

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
    check_flags(resolve_lead_sheet(cfg))
    # Imported here and not above: torch takes seconds, and mistakes should be answered at once.
    from fractalgen.api import load_pretrained
    from fractalgen.checkpoint import find_model
    from fractalgen.devices import resolve_device

    device = resolve_device(cfg.device)
    job = Composition.prepare(cfg, load_pretrained(find_model(cfg.checkpoint, cfg.model), device))
    cfg, work = job.cfg, job.work
    chosen = range(cfg.num_samples) if cfg.sample is None else range(cfg.sample, cfg.sample + 1)
    folder = writable_folder(cfg.output_dir)
    names = dict(zip(chosen, free_names(cfg, folder, len(chosen)), strict=True))
    print(f"{job.model.checkpoint_id} on {device}: {len(chosen)} x {work.width} steps, seed {job.seed}")
    for line in [*work.remarks, *asked_lines(cfg, job.model.config, work, job.labels)]:
        print(line)

    written: list[str] = []

    def keep(first: int, batch: list[PianoRoll], plans: list[Plan | None]) -> bool:
        """Write the pieces of a batch and return whether all wanted ones are written."""
        for index, (roll, drawn) in enumerate(zip(batch, plans, strict=True), first):
            if index in names:
                job.write(index, work.finish(roll), drawn, folder / f"{names[index]}.mid")
                written.append(names[index])
        return len(written) == len(chosen)

    def left() -> str:
        there = f"{len(written)} of {len(chosen)} pieces are in {folder}/"
        missing = [name for name in names.values() if name not in written]
        return there + (f"; not composed: {', '.join(missing)}" if missing else "")

    with stopping(left), composing_bar() as progress:
        rolls, traces = job.compose(progress=progress, each_batch=keep)
        rolls = [rolls[index] for index in chosen]
        traces = [traces[index] for index in chosen]
        failures = write_pictures(cfg, folder, list(names.values()), rolls, traces)
    rows = {}
    for index, roll in zip(chosen, rolls, strict=True):
        key = job.key(index)
        name = names[index] if key is None else f"{names[index]} in {SPELLED.get(key, key)}"
        rows[name] = note_statistics(roll.tokens, roll.steps_per_bar)
    print(statistics_table(rows))
    print(f"written to {folder}/")
    pages = [name for name in names.values() if (folder / f"{name}.html").is_file()]
    if cfg.save_html and pages:
        print(f"to watch and hear it, open in a browser: {(folder / f'{pages[0]}.html').resolve().as_uri()}")
    return 1 if failures else 0


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
        cfg = dataclasses.replace(with_defaults(cfg, model.config), num_iter_list=iterations(cfg, model), quality=None)
        seed = secrets.randbelow(2**31) if cfg.seed is None else cfg.seed
        work = assignment(cfg, model.config, seed)
        check_against_model(cfg, model, work)
        labels = choose_labels(cfg, model.config, work, seed)
        return cls(asked, cfg, model, seed, work, labels, wanted_plans(cfg, model, work, labels))

    def compose(
        self,
        *,
        progress: Callable[[int, int], None] | None = None,
        each_batch: Callable[[int, list[PianoRoll], list[Plan | None]], object] | None = None,
        watch: Watch | None = None,
    ) -> tuple[list[PianoRoll], list[Trace]]:
        """Compose the pieces, see :func:`fractalgen.sampling.compose_rolls`; the pieces as wide as asked for."""
        from fractalgen.sampling import compose_rolls

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

    def write(self, index: int, roll: PianoRoll, plan: Plan | None, path: Path) -> None:
        """Write piece ``index`` as MIDI, with its recipe and the markers of its plan."""
        flags = dataclasses.replace(self.cfg, input_midi=self.asked.input_midi, voice=self.asked.voice)
        recipe = write_recipe(flags, self.seed, index, self.model.checkpoint_id)
        self.work.write(roll, path, recipe, self.work.markers(plan, self.key(index)))


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
        ends=cfg.mode != "accompany",
    )
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

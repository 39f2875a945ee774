"""``fractalgen generate``: compose with a trained model and write MIDI, pictures, animations and traces."""

from __future__ import annotations

import dataclasses
import math
import re
import secrets
import signal
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fractalgen import render
from fractalgen.compose.recipe import read_recipe, write_recipe
from fractalgen.compose.tasks import TEMPO, Assignment, assignment
from fractalgen.compose.tasks import check as check_mode
from fractalgen.config import DEFAULT_MODEL, GenerateConfig, ModelConfig, SamplingConfig
from fractalgen.data.attributes import random_key_labels
from fractalgen.errors import Stopped, UserError
from fractalgen.evaluation import note_statistics, statistics_table
from fractalgen.music.keys import guess_key
from fractalgen.music.labels import NAMES, encode_all, signature_key, spell_key
from fractalgen.render import page as html
from fractalgen.render import sound
from fractalgen.render.video import check_ffmpeg

if TYPE_CHECKING:
    from fractalgen.api import FractalGen
    from fractalgen.music.pianoroll import PianoRoll
    from fractalgen.trace import Trace

KEY_LEAD = 0.4  # of a guessed key over the next, times the bars of four quarters in which something sounds
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
    check(cfg)
    device = resolve_device(cfg.device)
    # Imported here and not above: torch takes seconds, and mistakes should be answered at once.
    from fractalgen.api import load_pretrained
    from fractalgen.checkpoint import find_model

    model = load_pretrained(find_model(cfg.checkpoint, cfg.model), device)
    cfg = dataclasses.replace(cfg, num_iter_list=iterations(cfg, model), quality=None)
    seed = secrets.randbelow(2**31) if cfg.seed is None else cfg.seed
    work = assignment(cfg, model.config, seed)
    check_against_model(cfg, model, work)
    labels = choose_labels(cfg, model.config, work, seed)
    chosen = range(cfg.num_samples) if cfg.sample is None else range(cfg.sample, cfg.sample + 1)
    folder = writable_folder(cfg.output_dir)
    names = dict(zip(chosen, free_names(cfg, folder, len(chosen)), strict=True))
    print(f"{model.checkpoint_id} on {device}: {len(chosen)} x {work.width} steps, seed {seed}")
    for line in asked_lines(cfg, model.config, work, labels):
        print(line)

    written: list[str] = []

    def keep(first: int, batch: list[PianoRoll]) -> bool:
        """Write the pieces of a batch; whether all that are wanted are there."""
        for index, roll in enumerate(batch, first):
            if index in names:
                recipe = write_recipe(cfg, seed, index, model.checkpoint_id)
                work.write(work.finish(roll), folder / f"{names[index]}.mid", recipe)
                written.append(names[index])
        return len(written) == len(chosen)

    def left() -> str:
        there = f"{len(written)} of {len(chosen)} pieces are in {folder}/"
        missing = [name for name in names.values() if name not in written]
        return there + (f"; not composed: {', '.join(missing)}" if missing else "")

    with stopping(left), composing_bar() as progress:
        rolls, traces = model.generate(
            num_samples=cfg.num_samples,
            width=work.padded_width,
            known=work.known(),
            allowed=work.allowed,
            labels=labels,
            seed=seed,
            return_trace=True,
            batch_size=cfg.batch_size,
            tempo=cfg.tempo or TEMPO,
            progress=progress,
            each_batch=keep,
            **{item.name: getattr(cfg, item.name) for item in dataclasses.fields(SamplingConfig)},
        )
        rolls = [work.finish(rolls[index]) for index in chosen]
        traces = [work.annotate(traces[index], roll) for index, roll in zip(chosen, rolls, strict=True)]
        failures = write_pictures(cfg, folder, list(names.values()), rolls, traces)
    rows = {}
    for name, roll, row in zip(names.values(), rolls, labels[chosen.start : chosen.stop], strict=True):
        keys = [
            attribute.describe(label)
            for attribute, label in zip(model.config.attributes, row, strict=True)
            if attribute.name == "key" and label
        ]
        rows[" in ".join([name, *keys])] = note_statistics(roll.tokens, roll.steps_per_bar)
    print(statistics_table(rows))
    print(f"written to {folder}/")
    pages = [name for name in names.values() if (folder / f"{name}.html").is_file()]
    if cfg.save_html and pages:
        print(f"to watch and hear it, open in a browser: {(folder / f'{pages[0]}.html').resolve().as_uri()}")
    return 1 if failures else 0


def free_names(cfg: GenerateConfig, folder: Path, count: int) -> list[str]:
    """The names of the pieces, without ending: numbered on after the highest in the folder, or from 0 with overwrite.

    What is left of a piece that is overwritten goes away, so that no picture stands beside another's music.
    """
    start = 0 if cfg.sample is None or not cfg.overwrite else cfg.sample
    if cfg.overwrite:
        names = [f"{cfg.mode}_{number:03d}" for number in range(start, start + count)]
        for name in names:
            for file in [*folder.glob(f"{name}.*"), *folder.glob(f"{name}_process.*")]:
                if file.is_file():
                    file.unlink()
        return names
    found = [re.match(rf"{cfg.mode}_(\d+)", entry.name) for entry in folder.iterdir()]
    start = 1 + max((int(match[1]) for match in found if match), default=-1)
    return [f"{cfg.mode}_{number:03d}" for number in range(start, start + count)]


def asked_lines(cfg: GenerateConfig, config: ModelConfig, work: Assignment, labels: npt.NDArray[np.int64]) -> list[str]:
    """What the model is asked for, and what becomes of the wish, a line each."""
    lines = []
    if cfg.like is not None and (maker := read_recipe(cfg.like).get("made_by")):
        lines.append(f"as {cfg.like}, made by {maker}")
    past_only = config.is_autoregressive and not config.future_context
    if cfg.candidates != SamplingConfig.candidates and not past_only:
        lines.append(f"--candidates {cfg.candidates}: not drawn, only models that are AR and do not listen need them")
    for attribute, column in zip(config.attributes, labels.T.tolist(), strict=True):
        if len(set(column)) > 1 or not column[0]:
            continue  # the key of each piece stands in the table
        wish = getattr(cfg, attribute.name)
        meant = attribute.describe(column[0])
        if attribute.name == "key" and wish is None:
            meant += f" ({key_source(cfg, work)})"
        lines.append(f"{attribute.name}: {meant}" + (f" (asked for: {wish})" if attribute.edges else ""))
        if attribute.name == "polyphony":
            lines.append("polyphony is a wish that models obey weakly; --max_polyphony is kept exactly")
        if attribute.name == "tempo" and work.template is not None:
            lines.append(f"--tempo {cfg.tempo:g} is asked of the model only: the tempo of the music given stays")
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


@contextmanager
def composing_bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar; what it gives is the ``progress`` of :meth:`FractalGen.generate`."""
    with tqdm(desc="composing", unit="patch", dynamic_ncols=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def write_pictures(
    cfg: GenerateConfig, folder: Path, names: list[str], rolls: list[PianoRoll], traces: list[Trace]
) -> int:
    """Everything but the MIDI, as the flags ask; the number of files that failed, each with a warning."""
    jobs: list[tuple[Path, Callable[[Path], object]]] = []
    animated = animated_count(cfg)
    for index, (name, roll, trace) in enumerate(zip(names, rolls, traces, strict=True)):
        known = trace.known[:, : roll.width]
        with_bars = dataclasses.replace(cfg, gif_grid=True)
        jobs.append((folder / f"{name}.png", partial(render.save_png, roll, cfg=with_bars, known=known)))
        if cfg.save_html:
            page = partial(html.save_html, trace, cfg=cfg, view=cfg.gif_view, roll=roll)
            jobs.append((folder / f"{name}.html", page))
        if cfg.save_trace:
            jobs.append((folder / f"{name}.trace.npz", trace.save))
        if cfg.save_wav:
            jobs.append((folder / f"{name}.wav", partial(sound.save_wav, roll, soundfont=cfg.soundfont)))
        if index >= animated:
            continue
        frames = trace.frames(view=cfg.gif_view, record_interval=cfg.record_interval, max_frames=cfg.gif_max_frames)
        if cfg.save_gif:
            jobs.append((folder / f"{name}_process.gif", partial(render.save_gif, frames, cfg=cfg)))
        if cfg.save_mp4:
            film = partial(render.save_mp4, frames, cfg=cfg, roll=roll, soundfont=cfg.soundfont)
            jobs.append((folder / f"{name}_process.mp4", film))
        if cfg.save_frames:
            home = folder if min(animated, len(names)) == 1 else folder / name
            jobs.append((home / "frames", partial(render.save_frames, frames, cfg=cfg)))
    failures = 0
    for path, write in tqdm(jobs, desc="drawing", unit="file", dynamic_ncols=True):
        try:
            write(path)
        except UserError as error:
            failures += 1
            warnings.warn(f"{path} could not be written: {error}", RuntimeWarning, stacklevel=2)
        except Exception:  # noqa: BLE001  whatever goes wrong in one picture, the other files are still worth having
            failures += 1
            warnings.warn(f"{path} could not be written:\n{traceback.format_exc()}", RuntimeWarning, stacklevel=2)
    return failures


def check(cfg: GenerateConfig) -> None:
    """Refuse settings that cannot work with any model (UserError naming flag and value)."""
    for name, low, high in (
        ("num_samples", 1, math.inf),
        ("batch_size", 1, math.inf),
        ("record_interval", 0, math.inf),
        ("tempo", 4, 1000),  # MIDI writes microseconds a quarter note in 24 bits
    ):
        if getattr(cfg, name) is not None and not low <= getattr(cfg, name) <= high:
            limit = f"at least {low}" if high == math.inf else f"from {low} to {high}"
            raise UserError(f"--{name} {getattr(cfg, name)}: must be {limit}")
    if cfg.sample is not None and not 0 <= cfg.sample < cfg.num_samples:
        raise UserError(
            f"--sample {cfg.sample}: with --num_samples {cfg.num_samples} there are 0 to {cfg.num_samples - 1}"
        )
    if cfg.seed is not None and not 0 <= cfg.seed < 2**63:
        raise UserError(f"--seed {cfg.seed}: must be from 0 to 2**63 - 1")
    check_mode(cfg)
    animated_count(cfg)
    render.check_settings(cfg)
    if cfg.soundfont is not None:
        if not (cfg.save_wav or cfg.save_mp4):
            raise UserError(f"--soundfont {cfg.soundfont}: for --save_wav and --save_mp4; neither is asked for")
        sound.check_soundfont(cfg.soundfont)
    if cfg.save_mp4:
        check_ffmpeg()


def animated_count(cfg: GenerateConfig) -> int:
    """How many of the samples, from the first on, get an animation."""
    counts = {"first": 1, "all": cfg.num_samples}
    if cfg.gif_samples in counts:
        return counts[cfg.gif_samples]
    if not cfg.gif_samples.isdecimal():
        raise UserError(f"--gif_samples {cfg.gif_samples}: expected first, all or a number")
    return int(cfg.gif_samples)


def iterations(cfg: GenerateConfig, model: FractalGen) -> tuple[int, ...]:
    """The iterations of each level: those of ``--quality``, for as many levels as there are, or as they are given.

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


def check_against_model(cfg: GenerateConfig, model: FractalGen, work: Assignment) -> None:
    """Refuse what this model cannot serve (UserError naming flag and both values)."""
    config = model.config
    config.check_width(work.padded_width)
    if not config.sees_future and cfg.mode in ("accompany", "variation"):
        raise UserError(
            f"--mode {cfg.mode}: {model.checkpoint_id} is autoregressive and cannot listen to music that lies ahead;"
            f" use --model {DEFAULT_MODEL}, or train with --reveal_share"
        )
    knows_tempo = any(attribute.name == "tempo" for attribute in config.attributes)
    if cfg.tempo is not None and work.template is not None and not knows_tempo:
        raise UserError(f"--tempo {cfg.tempo}: the music given keeps its own, and this model knows no tempo")


def choose_labels(cfg: GenerateConfig, config: ModelConfig, work: Assignment, seed: int) -> npt.NDArray[np.int64]:
    """The labels of each piece, (num_samples, number of attributes).

    A key that is not asked for is that of ``--scale`` or of the music given; from nothing it is drawn by lot: told a
    key from the start, a model strays far less.

    Raises:
        UserError: a label that the model does not know, or guidance without any.
    """
    asked: dict[str, str | None] = {name: getattr(cfg, name) for name in NAMES if name != "tempo"}
    if cfg.key == "free":
        asked["key"] = None
    open_key = cfg.key is None and any(attribute.name == "key" for attribute in config.attributes)
    if open_key:
        asked["key"] = (spell_key(cfg.scale) if cfg.scale else None) or given_key(work, config.steps_per_quarter)
    labels = np.tile(np.array(encode_all(config.attributes, asked), np.int64), (cfg.num_samples, 1))
    for column, attribute in enumerate(config.attributes):
        if attribute.name == "tempo" and cfg.tempo is not None:  # any tempo can be written: the nearest is asked for
            labels[:, column] = attribute.label(cfg.tempo)
    if open_key and not cfg.scale and work.template is None:
        labels += random_key_labels(config.attributes, cfg.num_samples, seed)
    if cfg.cfg != 1 and not labels.any():
        raise UserError(f"--cfg {cfg.cfg}: guidance needs something to guide by, such as --key or --density")
    return labels


def key_source(cfg: GenerateConfig, work: Assignment) -> str:
    """Where a key comes from that nobody asked for, in words."""
    if cfg.scale and spell_key(cfg.scale):
        return "of --scale"
    if work.task is None:
        return "drawn by lot"
    return "by the file's key signature" if trusted(work) else "guessed from the music given"


def trusted(work: Assignment) -> bool:
    """Whether the key signature of the input says something: programs write that of C major where nobody chose one."""
    return work.signature is not None and work.signature != (0, False)


def given_key(work: Assignment, steps_per_quarter: int) -> str | None:
    """The key of the music given: of its key signature, or guessed where that is sure enough, or else None.

    The lead that a guess needs falls with the bars it rests on; so guesses are right in 77 to 84 % of excerpts of two
    to eight bars (validation songs of POP909).
    """
    known = work.known()
    if known is None:
        return None
    if work.signature is not None and trusted(work):
        return signature_key(work.signature)
    tokens = known.clip(0)
    key, lead = guess_key(tokens)
    steps = int(np.count_nonzero(tokens.any(0)))
    return key if lead * steps >= KEY_LEAD * 4 * steps_per_quarter else None


def resolve_device(name: str) -> str:
    """``auto`` as the best device of this machine; any other name is tried (UserError when it is not there)."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name}: not available here ({str(error).splitlines()[0]})") from None
    return name


def writable_folder(path: str) -> Path:
    """The folder, made if needed; UserError when files cannot be made in it."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--output_dir {path}: cannot be written to ({error.strerror})") from None
    return folder

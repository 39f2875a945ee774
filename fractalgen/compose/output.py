"""File names of a run, and all files except MIDI."""

from __future__ import annotations

import dataclasses
import re
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tqdm import tqdm

from fractalgen import bulk, render
from fractalgen.config import GenerateConfig
from fractalgen.errors import UserError
from fractalgen.music.labels import spell_key
from fractalgen.music.musicxml_writer import write_musicxml
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.render import sound
from fractalgen.render.page import save_html
from fractalgen.trace import Trace

Job = tuple[Path, Callable[[Path], object]]
"""A file, and the function that writes it."""


def free_names(cfg: GenerateConfig, folder: Path, count: int) -> list[str]:
    """Names of the pieces without ending; numbers go on from those in the folder, or begin at 0 (overwrite, resume).

    What is left of a piece that is overwritten goes away, so that no picture stands beside another's music.
    """
    start = 0 if cfg.sample is None else cfg.sample
    if not (cfg.overwrite or cfg.resume):
        found = [re.match(rf"{cfg.mode}_(\d+)", entry.name) for entry in folder.iterdir()]
        start = 1 + max((int(match[1]) for match in found if match), default=-1)
    digits = max(3, len(str(start + count - 1)))
    names = [f"{cfg.mode}_{number:0{digits}d}" for number in range(start, start + count)]
    if cfg.overwrite:
        old = set(names)
        for file in folder.iterdir():
            if file.name.split(".")[0].removesuffix("_process") in old and file.is_file():
                file.unlink()
    return names


def write_pictures(
    cfg: GenerateConfig, folder: Path, names: list[str], rolls: list[PianoRoll], traces: list[Trace], before: int = 0
) -> int:
    """Write all files except MIDI; returns the number of files that failed, each with a warning.

    ``before``: pieces of the command that come before these.
    """
    jobs: list[Job] = []
    animated = animated_count(cfg) - before
    for index, (name, roll, whole) in enumerate(zip(names, rolls, traces, strict=True)):
        trace = whole.without_plan() if cfg.no_gif_plan else whole
        known = trace.strip(trace.known)[:, : roll.width]
        with_bars = dataclasses.replace(cfg, gif_grid=True)
        if cfg.save_html:
            page = partial(save_html, trace, cfg=cfg, view=cfg.gif_view, roll=roll)
            jobs.append((folder / f"{name}.html", page))
        if cfg.save_trace:
            jobs.append((folder / f"{name}.trace.npz", whole.save))
        if cfg.save_wav:
            jobs.append((folder / f"{name}.wav", partial(sound.save_wav, roll, soundfont=cfg.soundfont)))
        if cfg.save_musicxml:
            marks = [(span.start, f"[{span.text}]" if span.row == 0 else span.text) for span in whole.lane]
            key = spell_key(str(whole.settings.get("key", "")))
            score = partial(write_musicxml, roll, markers=marks, key=key, title=name)
            jobs.append((folder / f"{name}.musicxml", score))
        if index < animated:
            home = folder if before == 0 and min(animated, len(names)) == 1 else folder / name
            jobs += animations(cfg, trace, roll, folder, name, home)
        picture = partial(render.save_png, roll, cfg=with_bars, known=known, lane=trace.lane)
        jobs.append((folder / f"{name}.png", picture))  # the last one: where it is, the others are
    failures = 0
    alone = cfg.scheduler is None and cfg.num_samples <= bulk.SIZE  # else there is one bar over all pieces
    for path, write in tqdm(jobs, desc="drawing", unit="file", dynamic_ncols=True, disable=not alone):
        try:
            write(path)
        except Exception as error:  # noqa: BLE001  whatever goes wrong in one picture, the others are worth having
            failures += 1
            why = f" {error}" if isinstance(error, UserError) else f"\n{traceback.format_exc()}"
            warnings.warn(f"{path} could not be written:{why}", RuntimeWarning, stacklevel=2)
    return failures


def animations(cfg: GenerateConfig, trace: Trace, roll: PianoRoll, folder: Path, name: str, home: Path) -> list[Job]:
    """The files that show how a piece is composed; ``home``: of the folder of single frames."""
    frames = trace.frames(view=cfg.gif_view, record_interval=cfg.record_interval, max_frames=cfg.gif_max_frames)
    jobs: list[Job] = []
    if cfg.save_gif:
        jobs.append((folder / f"{name}_process.gif", partial(render.save_gif, frames, cfg=cfg)))
    if cfg.save_mp4:
        jobs.append((folder / f"{name}_process.mp4", partial(render.save_mp4, frames, cfg=cfg, roll=roll)))
    if cfg.save_frames:
        jobs.append((home / "frames", partial(render.save_frames, frames, cfg=cfg)))
    return jobs


def animated_count(cfg: GenerateConfig) -> int:
    """How many of the samples, from the first on, get an animation."""
    counts = {"first": 1, "all": cfg.num_samples}
    if cfg.gif_samples in counts:
        return counts[cfg.gif_samples]
    if not cfg.gif_samples.isdecimal():
        raise UserError(f"--gif_samples {cfg.gif_samples}: expected first, all or a number")
    return int(cfg.gif_samples)

"""``fractalgen generate``: compose with a trained model and write MIDI, pictures, animations and traces."""

from __future__ import annotations

import dataclasses
import signal
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from fractalgen.bulk import load_model, parts
from fractalgen.compose.assignment import resolve_lead_sheet
from fractalgen.compose.composition import Composition, check_flags
from fractalgen.compose.output import free_names
from fractalgen.compose.parts import Order, from_cluster, has_all_files, is_complete, write_part
from fractalgen.compose.recipe import read_recipe
from fractalgen.compose.wishes import key_source
from fractalgen.config import GenerateConfig, SamplingConfig
from fractalgen.errors import Stopped, Terminated
from fractalgen.features.notes import statistics_table
from fractalgen.files import writable_folder
from fractalgen.progress import composing_bar

MOST_SHOWN = 32  # pieces whose figures are printed
MOST_NAMED = 8  # pieces that are named where they are missing


def generate(cfg: GenerateConfig) -> int:
    """Compose ``num_samples`` pieces into ``output_dir``; MIDI is written batch by batch, before any picture.

    Every setting is checked before anything is written or composed (UserError).  A picture that cannot be drawn gives
    a warning and exit status 1, the MIDI files stay.
    """
    check_flags(resolve_lead_sheet(cfg))
    job = Composition.prepare(cfg, load_model(cfg.checkpoint, cfg.model, cfg.device))
    chosen = range(cfg.num_samples) if cfg.sample is None else range(cfg.sample, cfg.sample + 1)
    folder = writable_folder(cfg.output_dir)
    names = dict(zip(chosen, free_names(cfg, folder, len(chosen)), strict=True))
    model = job.model
    print(f"{model.checkpoint_id} on {model.device}: {len(chosen)} x {job.work.width} steps, seed {job.seed}")
    for line in [*job.work.remarks, *asked_lines(job)]:
        print(line)
    left = dict(names)
    orders = open_orders(cfg, job, left, folder)
    try:
        rows, failures = compose_orders(job, orders, names, left, folder)
    except KeyboardInterrupt as interrupt:
        signum = signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT
        raise Stopped(signum, missing(names, left, folder)) from interrupt
    if rows:
        print(statistics_table(rows))
    if len(rows) < len(names):
        print(f"and {len(names) - len(rows)} more")
    print(f"written to {folder}/")
    pages = [name for name in names.values() if (folder / f"{name}.html").is_file()] if cfg.save_html else []
    if pages:
        print(f"to watch and hear it, open in a browser: {(folder / f'{pages[0]}.html').resolve().as_uri()}")
    return 1 if failures else 0


def open_orders(cfg: GenerateConfig, job: Composition, left: dict[int, str], folder: Path) -> list[Order]:
    """The parts to compose; with ``--resume`` those that are there are left out, and their pieces no more ``left``."""
    orders = []
    for part in parts(cfg.num_samples, job.seed):
        own = {index: left[index] for index in range(part.first, part.first + part.size) if index in left}
        if cfg.resume and own and is_complete(job, own, folder):
            for index in own:
                del left[index]
        elif own:
            orders.append(Order(dataclasses.replace(cfg, seed=job.seed), part, own))
    return orders


def compose_orders(
    job: Composition, orders: list[Order], names: dict[int, str], left: dict[int, str], folder: Path
) -> tuple[dict[str, dict[str, float]], int]:
    """Compose the parts, under a bar of patches where there is one part, else under one of pieces.

    ``left`` (of ``names``): the pieces that are to be written; a piece goes when it is.

    Returns:
        figures of the first pieces, and the number of pictures that failed.
    """
    scheduler = job.cfg.scheduler
    failures = 0
    rows: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        if scheduler is None and len(orders) == 1:
            progress = stack.enter_context(composing_bar())
            results = iter([write_part(job, orders[0], folder, left.pop, progress)])
        else:
            bar = tqdm(
                total=len(names), initial=len(names) - len(left), desc="composing", unit="piece", dynamic_ncols=True
            )
            stack.enter_context(bar)

            def written(index: int) -> None:
                del left[index]
                bar.update()

            if scheduler is None:
                results = (write_part(job, order, folder, written) for order in orders)
            else:
                results = from_cluster(scheduler, orders, folder, written)
        for found in results:
            failures += found.failures
            rows |= dict(list(found.rows.items())[: MOST_SHOWN - len(rows)])
    return rows, failures


def missing(names: dict[int, str], left: dict[int, str], folder: Path) -> str:
    """How many of the pieces are there, and the names of those that are ``left``, or lack some of their files."""
    there = [name for index, name in names.items() if index not in left]
    partly = [name for name in there if not has_all_files(name, folder)]
    told = f"{len(there)} of {len(names)} {'piece' if len(names) == 1 else 'pieces'} composed, in {folder}/"
    for what, some in (("not composed", list(left.values())), ("files are missing of", partly)):
        if some:
            told += f"; {what}: " + (", ".join(some) if len(some) <= MOST_NAMED else f"{len(some)} from {some[0]} on")
    return told


def asked_lines(job: Composition) -> list[str]:
    """The labels and what they mean for this model, one line each."""
    cfg, config, work = job.cfg, job.model.config, job.work
    lines = []
    if cfg.like is not None and (maker := read_recipe(cfg.like).get("made_by")):
        lines.append(f"as {cfg.like}, made by {maker}")
    if cfg.candidates != SamplingConfig.candidates and not config.sees_past_only:
        lines.append(f"--candidates {cfg.candidates}: not used; only AR models without future context need candidates")
    if cfg.plan_temperature != GenerateConfig.plan_temperature and not config.plan_width:
        lines.append(f"--plan_temperature {cfg.plan_temperature:g}: not used; this model was trained without plans")
    if work.changes and cfg.lead_sheet:
        lines.append(f"--lead_sheet {cfg.lead_sheet}: {len(work.changes)} chords, melody: --voice {cfg.voice}")
    for attribute, column in zip(config.attributes, job.labels.T.tolist(), strict=True):
        if len(set(column)) > 1 or not column[0]:
            continue  # the key of each piece stands in the table
        if attribute.name == "meter" and cfg.meter is None:
            continue
        wish = getattr(job.asked, attribute.name)
        meant = attribute.describe(column[0])
        if attribute.name == "key" and wish is None:
            meant += f" ({key_source(cfg, work)})"
        if attribute.edges:
            meant += " (default under given chords)" if wish is None else f" (asked for: {wish})"
        lines.append(f"{attribute.name}: {meant}")
        if attribute.name == "polyphony":
            lines.append("models obey --polyphony only weakly; --max_polyphony is exact")
        if attribute.name == "tempo" and work.template is not None:
            lines.append(f"--tempo {cfg.tempo:g} is the model's label only: the given music keeps its tempo")
    return lines

"""A job in the worker: the functions of ``fractalgen generate``, watched."""

from __future__ import annotations

import base64
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from fractalgen.compose.composition import DRAWN, Composition
from fractalgen.model.sampling.recorder import DecidedPatch
from fractalgen.model.sampling.windows import drop_orphans
from fractalgen.music.bars import BarLayout, units_of
from fractalgen.music.chords import UNTOLD, flats_in, spelled
from fractalgen.music.midi_events import TickGrid
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.plan import Plan, Span, lane_of, unit_chords
from fractalgen.music.tokens import HOLD, ONSET, PITCHES, SILENCE, TEMPO, midi_velocity, notes_from_tokens
from fractalgen.studio.document import TICKS, Document, Result, as_written, taken_over
from fractalgen.studio.midi_file import read_document, short_names, write_document
from fractalgen.studio.request import Request

if TYPE_CHECKING:
    from fractalgen.api import FractalGen
    from fractalgen.trace import Trace

FILE = "piece.mid"  # what the given music is called in messages
Tell = Callable[..., None]


class Stop(Exception):
    """The job is to be stopped."""


class Watcher:
    """What is told while pieces are composed, and the cells that are decided so far."""

    def __init__(self, job: Composition, tell: Tell, stopped: Callable[[], bool]) -> None:
        self.job, self.tell, self.stopped = job, tell, stopped
        self.counts = (0, 0)
        self.plans: dict[int, Plan | None] = {}
        self.cells: dict[int, npt.NDArray[np.uint8]] = {}  # of each piece, as far as it is decided
        self.ticks = TICKS // job.model.config.steps_per_quarter

    def progress(self, done: int, total: int) -> None:
        """Count patches.

        Raises:
            Stop: the job is to end.
        """
        self.counts = done, total
        if self.stopped():
            raise Stop

    def planned(self, sample: int, plan: Plan | None) -> None:
        """Tell the plan of a piece."""
        self.plans[sample] = plan
        if plan is not None:
            chords, sections = (self.lane(sample, row) for row in (1, 0))
            self.tell("plan", sample=sample, chords=chords, sections=sections)

    def lane(self, sample: int, row: int) -> list[tuple[int, str]]:
        """The chords (``row`` 1) or sections (0) of a piece's plan, by tick."""
        plan = self.plans.get(sample)
        spans: list[Span] = [] if plan is None else lane_of(plan, self.job.work.layout, flats_in(self.job.key(sample)))
        width = self.job.work.width
        return [(span.start * self.ticks, span.text) for span in spans if span.row == row and span.start < width]

    def decided(self, patch: DecidedPatch) -> None:
        """Tell a patch."""
        canvas = self.cells.get(patch.sample)
        if canvas is None:
            known = self.job.work.known()
            width = self.job.work.layout.num_steps
            canvas = np.zeros((PITCHES, width), np.uint8)
            if known is not None:
                canvas[:, : known.shape[1]] = known.clip(0)[:, :width]
            self.cells[patch.sample] = canvas
        rows, steps = patch.tokens.shape
        part = canvas[patch.pitch : patch.pitch + rows, patch.time : patch.time + steps]
        part[...] = np.where(patch.tokens >= 0, patch.tokens, part)
        self.tell(
            "patch",
            sample=patch.sample,
            step=patch.step,
            tick=patch.time * self.ticks,
            ticks=steps * self.ticks,
            steps=steps,
            pitch=patch.pitch,
            pitches=rows,
            notes=self._notes(canvas, patch),
            planes=base64.b64encode(patch.planes.clip(-1, 127).astype(np.int8).tobytes()).decode("ascii"),
            done=self.counts[0],
            total=self.counts[1],
        )

    def _notes(self, canvas: npt.NDArray[np.uint8], patch: DecidedPatch) -> list[tuple[int, int, int, int, int]]:
        """The composed notes of a patch: pitch, tick, duration, velocity, and whether it goes on from before."""
        bins = self.job.model.config.velocity_bins
        found = []
        for row, start, length, loud in sorted(notes_from_tokens(patch.tokens.clip(0).astype(np.uint8), bins).tolist()):
            pitch, begin = patch.pitch + row, patch.time + start
            held = int(patch.tokens[row, start] == HOLD)
            while begin > 0 and canvas[pitch, begin] == HOLD:
                begin -= 1
            loud = int(canvas[pitch, begin]) - ONSET if canvas[pitch, begin] >= ONSET else loud
            place = (patch.time + start) * self.ticks
            found.append((pitch, place, length * self.ticks, int(midi_velocity(loud, bins)), held))
        return found

    def partial(self, sample: int) -> PianoRoll:
        """A piece as far as it is decided: silence elsewhere."""
        config = self.job.model.config
        tokens = drop_orphans(torch.from_numpy(self.cells[sample])).numpy()
        tempo = self.job.cfg.tempo or TEMPO
        roll = PianoRoll(tokens, config.steps_per_quarter, config.velocity_bins, ((0, tempo),))
        return self.job.work.finish(roll)


def compose(
    request: Request,
    document: Document,
    model: FractalGen,
    settings: dict[str, Any],
    folder: Path,
    traces: tuple[Path, ...],
    tell: Tell,
    stopped: Callable[[], bool],
) -> tuple[list[Result], bool]:
    """Compose what is asked for; the results, and whether it was stopped before its end.

    ``settings``: of the studio, for ``fractalgen generate``.  ``folder``: for files on the way; ``traces``: where those
    of the results are written.  ``tell(kind, **message)`` sends a message of the WebSocket.

    Raises:
        UserError: as the command line says it, without the folder.
    """
    with short_names(folder):
        job = prepare(request, document, model, folder, settings)
        watcher = Watcher(job, tell, stopped)
        remarks = [line.replace(f"{folder}/", "") for line in job.work.remarks]
        tell("started", **facts(job, request, document), remarks=remarks)
        results: dict[int, Result] = {}

        def finish(sample: int, roll: PianoRoll, plan: Plan | None) -> Document:
            target = folder / f"{sample}.mid"
            job.write(sample, roll, plan, target)
            return result_document(read_document(target)[0], request, document, job, watcher, sample)

        def keep(first: int, batch: list[PianoRoll], plans: list[Plan | None]) -> None:
            for sample, (roll, plan) in enumerate(zip(batch, plans, strict=True), first):
                results[sample] = Result(finish(sample, job.work.finish(roll), plan))

        recorded: list[Trace] = []
        try:
            _, recorded = job.compose(progress=watcher.progress, each_batch=keep, watch=watcher)
        except Stop:
            for sample in sorted(watcher.cells.keys() - results.keys()):
                piece = finish(sample, watcher.partial(sample), watcher.plans.get(sample))
                results[sample] = Result(piece)
            return [results[sample] for sample in sorted(results)], True
        for sample, (trace, path) in enumerate(zip(recorded, traces, strict=True)):
            trace.save(path)
            results[sample] = dataclasses.replace(results[sample], trace=path)
        return [results[sample] for sample in sorted(results)], False


def judge(request: Request, document: Document, model: FractalGen, settings: dict[str, Any]) -> None:
    """Refuse a request that cannot be composed.

    Raises:
        UserError: as :func:`compose` does before it begins.
    """
    with tempfile.TemporaryDirectory() as name, short_names(Path(name)):
        prepare(request, document, model, Path(name), settings)


def prepare(
    request: Request, document: Document, model: FractalGen, folder: Path, settings: dict[str, Any]
) -> Composition:
    """The settings of a request, checked against the model; with the chords of the document if it asks for them.

    The document is written into the folder.
    """
    source = folder / FILE
    write_document(document, source)
    grid = model.config.steps_per_quarter
    cfg = request.config(document, source, grid, **settings)
    job = Composition.prepare(cfg, model)
    if request.lane and document.chords and model.config.plan_width:
        chords = lane_text(job.work.layout, job.work.known(), document, TICKS // grid)
        if chords is not None:
            job = Composition.prepare(dataclasses.replace(cfg, chords=chords), model)
    return job


def lane_text(layout: BarLayout, known: npt.NDArray[np.int16] | None, document: Document, ticks: int) -> str | None:
    """The chord lane as a text for ``--chords``: from the first to the last bar in which something is composed.

    ``ticks``: of a time step.  None where the lane says nothing there.
    """
    changes = document.changes(ticks)
    codes = np.where(layout.unit_steps >= changes[0][0], unit_chords(layout, changes), UNTOLD)
    bar_of_unit = np.repeat(layout.bars, units_of(layout.patch))
    open_units = layout.open_units(known)
    composed = np.unique(bar_of_unit[open_units])
    if not len(composed) or (codes[open_units] == UNTOLD).all():
        return None
    bars = []
    for bar in range(int(composed[0]), int(composed[-1]) + 1):
        here = codes[(bar_of_unit == bar) & (layout.unit_steps >= 0)].tolist()
        bars.append(" ".join(spelled(code) or "?" for code in (here if len(set(here)) > 1 else here[:1])))
    return "| " + " | ".join(bars) + " |"


def facts(job: Composition, request: Request, document: Document) -> dict[str, Any]:
    """What is told when a job begins."""
    config, work = job.model.config, job.work
    ticks = TICKS // config.steps_per_quarter
    length = work.width * ticks
    if request.mode == "new":
        tempos: Any = ((0, job.cfg.tempo or TEMPO),)
        meters: Any = [(step * ticks, beats, unit) for step, beats, unit in work.meters]
    else:
        tempos = [row for row in document.tempos if row[0] < length]
        meters = [row for row in document.meters if row[0] < length]
    return {
        "state": request.state,
        "mode": request.mode,
        "num_samples": request.num_samples,
        "seed": job.seed,
        "length": length,
        "meters": meters,
        "tempos": tempos,
        "given": given_notes(job, document) if request.mode != "new" else [],
        "patch_sizes": [level.patch for level in config.levels],
        "generators": [level.generator for level in config.levels],
        "keys": [as_written(job.key(sample)) for sample in range(request.num_samples)],
        "model": job.model.checkpoint_id,
    }


def given_notes(job: Composition, document: Document) -> list[list[int]]:
    """The notes of the document that stay, as far as they do."""
    known = job.work.known()
    assert known is not None
    ticks = TICKS // job.model.config.steps_per_quarter
    nearest = TickGrid(TICKS, job.model.config.steps_per_quarter).step
    found = []
    for note in document.notes:
        step = nearest(note.start)
        if step >= known.shape[1] or known[note.pitch, step] <= SILENCE:
            continue
        stop = step + 1
        while stop < known.shape[1] and known[note.pitch, stop] == HOLD:
            stop += 1
        cut = stop < known.shape[1] and known[note.pitch, stop] < 0 and note.end > stop * ticks
        found.append(list(note._replace(duration=max(1, stop * ticks - note.start)) if cut else note))
    return found


def result_document(
    result: Document, request: Request, source: Document, job: Composition, watcher: Watcher, sample: int
) -> Document:
    """A result as a document: what was given keeps its numbers, hands and locks.

    Where the model drew a plan, its chords and sections are those of the lane; elsewhere the lane stays as it was.
    """
    if request.mode == "new":
        source = Document(0)
    piece = taken_over(result, source, request.hand)
    chords, sections = source.chords, source.sections
    if job.cfg.mode in DRAWN:
        begin = 0 if job.work.task is None else int(np.argmax(job.work.task.composed.any(0))) * watcher.ticks
        chords, sections = (
            (*(row for row in old if row[0] < begin), *_from(watcher.lane(sample, number), begin))
            for old, number in ((chords, 1), (sections, 0))
        )
    key = as_written(job.key(sample)) if request.mode == "new" else source.key
    return dataclasses.replace(piece, key=key, chords=chords, sections=sections)


def _from(rows: list[tuple[int, str]], begin: int) -> list[tuple[int, str]]:
    """Changes from a tick on, what holds there included."""
    before = [(begin, text) for tick, text in rows if tick <= begin][-1:]
    return before + [row for row in rows if row[0] > begin]

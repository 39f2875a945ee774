"""Files to take away, by the functions of the command line; what takes long is drawn in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fractalgen import render
from fractalgen.config import GenerateConfig, SamplingConfig
from fractalgen.config.model import patch_widths
from fractalgen.errors import UserError, shown
from fractalgen.music import MAX_STEPS
from fractalgen.music.bars import BarLayout
from fractalgen.music.midi import MidiEvents, read_midi
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.plan import Span, spans_of
from fractalgen.music.voices import hands
from fractalgen.parallel import end_only_with_parent
from fractalgen.render import sound
from fractalgen.render.page import save_html
from fractalgen.render.video import check_ffmpeg
from fractalgen.studio.document import TICKS, Document
from fractalgen.studio.midi_file import write_document
from fractalgen.trace import Trace

T = TypeVar("T")
KINDS = {
    "mid": "audio/midi",
    "musicxml": "application/vnd.recordare.musicxml+xml",
    "wav": "audio/wav",
    "mp4": "video/mp4",
    "gif": "image/gif",
    "png": "image/png",
    "html": "text/html",
    "trace": "application/octet-stream",
}
ENDINGS = {kind: f".{kind}" for kind in KINDS} | {"trace": ".trace.npz"}
PATCHES = (128, 16, 4, 1)  # that pictures of a piece are divided into; nothing was composed in them
MOST_EXPORTS = 4  # that are being drawn or wait for it


class Crowded(UserError):
    """Too many files are being drawn."""


def known_kind(kind: str) -> str:
    """One of :data:`KINDS`.

    Raises:
        UserError: it is none.
    """
    if kind not in KINDS:
        raise UserError(f"{shown(kind)}: not a kind of file; there are {', '.join(KINDS)}")
    return kind


class Exports:
    """Writes files; pictures, films and sound one after the other, in a process that ends with this object."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._process: SpawnProcess | None = None
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(MOST_EXPORTS)

    def write(self, kind: str, document: Document, trace: Path | None, path: Path) -> None:
        """Write a piece as a file of one of :data:`KINDS`.

        ``trace``: how it was composed; without one, pictures show it as it is.

        Raises:
            UserError: a piece that cannot be written so, or something that is not installed.
            Crowded: too many files are being drawn.
        """
        if kind == "mid":
            write_document(document, path)
        elif kind == "trace":
            if trace is None:
                raise UserError("this state was not composed: it has no trace")
            path.write_bytes(trace.read_bytes())
        else:
            if kind == "mp4":
                check_ffmpeg()
            self.call(draw, kind, document, trace, path)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """A function's result, computed in the other process.

        Raises:
            Crowded: too many calls wait already.
            UserError: as the function does, or the process has died.
        """
        if not self._room.acquire(blocking=False):
            raise Crowded(f"{MOST_EXPORTS} files are being drawn; try again when one of them is done")
        try:
            with self._lock:
                if self._process is None or not self._process.is_alive():
                    self._start()
                self._pipe.send((function, arguments))
                result, error = self._pipe.recv()
        except (EOFError, OSError):
            raise UserError("the process that reads and draws files has died; try again") from None
        finally:
            self._room.release()
        if error is not None:
            raise error
        found: T = result
        return found

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()


def _serve(pipe: Connection) -> None:
    """The main function of the process: functions come in, their results or errors go out."""
    end_only_with_parent()
    warnings.simplefilter("ignore")
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  progress bars are for commands
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, arguments = pipe.recv()
            answer: tuple[Any, Exception | None]
            try:
                answer = function(*arguments), None
            except UserError as error:
                answer = None, error
            except Exception as error:  # noqa: BLE001  one file that fails must not end the others
                answer = None, RuntimeError(f"{type(error).__name__}: {error}")
            pipe.send(answer)


def draw(kind: str, document: Document, trace: Path | None, path: Path) -> None:
    """Draw a picture, a film, a page or sound.

    Raises:
        UserError: a piece that cannot be drawn.
    """
    if not document.length:
        raise UserError("the piece is empty")
    if kind == "wav":
        sound.save_wav(roll_of(document, 64, (12, 24, 48, 120, 240))[0], path)
        return
    if kind == "musicxml":
        score(document, path)
        return
    recorded = given(document) if trace is None else Trace.load(trace)
    recorded = recorded.with_lane(lane(document, recorded))
    roll, cfg = recorded.roll, GenerateConfig(gif_grid=True)
    frames = recorded.frames(cfg.gif_view)
    title = replace(cfg, gif_title=path.stem)
    writers: dict[str, Callable[[], None]] = {
        "png": lambda: render.save_png(roll, path, cfg=cfg, known=recorded.marked_roll, lane=recorded.lane),
        "gif": partial(render.save_gif, frames, path, cfg=cfg),
        "mp4": partial(render.save_mp4, frames, path, cfg=cfg, roll=roll),
        "html": partial(save_html, recorded, path, title),
    }
    writers[kind]()


def roll_of(document: Document, velocity_bins: int, grids: Sequence[int]) -> tuple[PianoRoll, MidiEvents]:
    """The piece on a grid of sixteenths, or on the first of ``grids`` that moves notes by two ticks at most."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "piece.mid"
        write_document(document, path)
        events = read_midi(path)
        if events.misplaced() != (0, 0):
            for grid in (grid for grid in grids if grid * document.length <= MAX_STEPS * TICKS):
                events = read_midi(path, grid)
                if np.abs(events.onset - np.round(events.onset)).max(initial=0) * TICKS / grid <= 2:
                    break
    return PianoRoll.from_events(events, velocity_bins), events


def score(document: Document, path: Path) -> None:
    """Write a piano score.

    Raises:
        UserError: music21 is not installed.
    """
    from fractalgen.music.musicxml_writer import write_musicxml

    roll, events = roll_of(document, 64, (12, 24))
    notes = roll.notes()
    ticks = TICKS // roll.steps_per_quarter
    texts = [(tick // ticks, f"[{name}]") for tick, name in document.sections]
    texts += [(tick // ticks, name) for tick, name in document.chords]
    markers = sorted(((step, text) for step, text in texts if step < roll.width), key=itemgetter(0))
    played = hands(notes, events.voices_of(notes))
    write_musicxml(roll, path, markers=markers, key=document.named_key, title=path.stem, hands=played)


def lane(document: Document, trace: Trace) -> tuple[Span, ...]:
    """Chords and sections of the document, for a picture."""
    ticks = TICKS // trace.steps_per_quarter
    rows = (
        [(tick // ticks, text) for tick, text in changes if tick < document.length]
        for changes in (document.sections, document.chords)
    )
    return tuple(spans_of(rows, trace.roll.width))


def given(document: Document) -> Trace:
    """A record of a piece in which nothing was composed."""
    roll, _ = roll_of(document, 32, (12,))
    widths = patch_widths(PATCHES, roll.steps_per_quarter)[1:]
    layout = BarLayout.of(roll.time_signatures, roll.width, roll.steps_per_quarter, widths[0])
    settings = {
        "length": roll.width,
        "steps_per_quarter": roll.steps_per_quarter,
        "steps_per_bar": roll.steps_per_bar,
        "tempo": roll.tempos[0][1],
        "tempos": roll.tempos,
        "key": document.key,
        "meters": roll.time_signatures,
    }
    if widths != PATCHES[1:]:
        settings["patch_steps"] = widths
    if not layout.exists.all():
        settings["columns"] = layout.lengths.tolist()
    return Trace(
        tokens=layout.lay(roll.tokens),
        decided=np.full((4, len(roll.tokens), layout.width), -1, np.int16),
        steps=np.zeros((0, 2), np.int16),
        known=np.ones((len(roll.tokens), layout.width), np.bool_),
        generators=("ar",) * 4,
        patch_sizes=PATCHES,
        scan_order="column_major",
        num_iter_list=SamplingConfig.num_iter_list,
        velocity_bins=roll.velocity_bins,
        settings=settings,
        seconds=np.zeros(0, np.float32),
    )

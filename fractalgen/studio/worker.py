"""The process that has the models: it composes one job after the other and tells what happens as it happens.

The server talks to it through a pipe: jobs go in, events come out, ready to be shown to the pages.  A job is stopped
by its number in shared memory.  If the process dies, its job gets an error, and the next job a new process.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractalgen.config import StudioConfig
from fractalgen.errors import UserError
from fractalgen.parallel import end_only_with_parent
from fractalgen.studio.document import Document, Result
from fractalgen.studio.request import Request

if TYPE_CHECKING:
    from fractalgen.api import FractalGen

MOST_MODELS = 3  # that are kept in memory
MOST_DEATHS = 3  # of the process, before it has composed, in a row
PATIENCE = 3.0  # seconds in which the process may end by itself


@dataclass(frozen=True)
class Task:
    """A job for the worker: its number, what is asked, the given piece, and files (made here) for the traces."""

    job: int
    request: Request
    document: Document
    traces: tuple[Path, ...]


@dataclass(frozen=True)
class Event:
    """What the worker tells: ``kind`` as on the WebSocket, with its JSON text; a job that ended has its results.

    Kinds of its own: ``ready`` has the models; ``warm``: the first one has composed; ``failed``: there is no worker.
    """

    job: int
    kind: str
    text: str = ""
    results: tuple[Result, ...] = ()
    models: tuple[dict[str, Any], ...] = ()
    stopped: bool = False


class Worker:
    """The process as the server sees it."""

    def __init__(self, cfg: StudioConfig, told: Callable[[Event], None]) -> None:
        """``told`` gets every event, in a thread of its own."""
        self._cfg, self._told = cfg, told
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Value("q", -1, lock=False)
        self._lock, self._asking = threading.Lock(), threading.Lock()
        self._job: int | None = None
        self._closing, self._warm, self._deaths = False, False, 0
        self._start()

    def _start(self) -> None:
        self._pipe, jobs = self._context.Pipe()
        self._questions, answers = self._context.Pipe()
        self._process = self._context.Process(target=serve, args=(jobs, answers, self._stop, self._cfg), daemon=True)
        self._process.start()
        jobs.close()
        answers.close()
        self._listener = threading.Thread(target=self._listen, args=(self._pipe,), daemon=True)
        self._listener.start()

    def check(self, request: Request, document: Document) -> None:
        """Refuse what the model cannot compose; another job may run meanwhile.

        Raises:
            UserError: as the command line says it.
        """
        with self._asking:
            try:
                self._questions.send((request, document))
                mistake = self._questions.recv()
            except (EOFError, OSError):  # it has died: the job will tell
                return
        if mistake is not None:
            raise UserError(mistake)

    def submit(self, task: Task) -> None:
        """Begin a job; the one before must have ended."""
        with self._lock:
            self._job = task.job
            with contextlib.suppress(OSError):  # it has died: the listener says so
                self._pipe.send(task)

    def stop(self, job: int) -> None:
        """Ask for the end of a job; what is there becomes its result."""
        self._stop.value = job

    @property
    def pid(self) -> int | None:
        """The number of the process."""
        return self._process.pid

    def close(self) -> None:
        """End the process; what it has composed of a job becomes its result."""
        self._closing = True
        with self._lock:
            if self._job is not None:
                self.stop(self._job)
            with contextlib.suppress(OSError):
                self._pipe.send(None)
        self._process.join(PATIENCE)
        self._process.kill()
        self._process.join()
        self._listener.join()

    def _listen(self, pipe: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                event: Event = pipe.recv()
                self._warm |= event.kind == "warm"
                self._closing |= event.kind == "failed"
                if event.kind in ("done", "error"):
                    with self._lock:
                        self._job = None
                self._told(event)
        pipe.close()
        if self._closing:
            return
        with self._lock:
            self._process.join()
            job, self._job = self._job, None
            code = self._process.exitcode
            self._deaths = 0 if self._warm else self._deaths + 1
            self._warm = False
            if self._deaths < MOST_DEATHS:
                self._start()
        if self._deaths >= MOST_DEATHS:
            self._told(Event(-1, "failed", f"the process of the model dies as it starts (status {code})"))
        elif job is not None:
            message = (
                f"the process of the model has died (status {code}) and was started again; nothing is kept of this job"
            )
            self._told(Event(job, "error", dumps(type="error", job=job, message=message)))


def dumps(**message: Any) -> str:
    """A message as compact JSON."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


def one_line(text: object) -> str:
    """A message on one line."""
    return " ".join(str(text).split())


def serve(pipe: Connection, questions: Connection, stop: Any, cfg: StudioConfig) -> None:
    """The main function of the process."""
    end_only_with_parent()
    warnings.simplefilter("ignore")
    try:
        models = Models(cfg)
        threading.Thread(target=answer, args=(questions, models), daemon=True).start()
        pipe.send(Event(-1, "ready", models=tuple(models.facts())))
        models.get(None).generate(bars=1, seed=0)  # the first piece of a process takes longer
        pipe.send(Event(-1, "warm"))
    except UserError as error:
        pipe.send(Event(-1, "failed", str(error)))
        return
    with contextlib.suppress(EOFError, ConnectionError):  # the server is gone
        while (task := pipe.recv()) is not None:
            work(task, models, pipe, stop)
            tidy()


def work(task: Task, models: Models, pipe: Connection, stop: Any) -> None:
    """Do a job, and tell what happens."""
    from fractalgen.studio.composing import compose

    def tell(kind: str, **message: Any) -> None:
        pipe.send(Event(task.job, kind, dumps(type=kind, job=task.job, **message)))

    def stopped() -> bool:
        return bool(stop.value == task.job)

    try:
        name = task.request.flags.get("model")
        model, settings = models.get(name), models.settings(name)
        with tempfile.TemporaryDirectory() as folder:
            results, cut = compose(
                task.request, task.document, model, settings, Path(folder), task.traces, tell, stopped
            )
        pipe.send(Event(task.job, "done", results=tuple(results), stopped=cut))
    except UserError as error:
        tell("error", message=one_line(error))
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001  one job that fails must not end the others
        traceback.print_exc()
        tell("error", message=f"internal error: {type(error).__name__}: {one_line(error)}"[:300])


def tidy() -> None:
    """Free what jobs leave: tables for pieces of each length, half a megabyte a bar, and the free pages of the heap."""
    from fractalgen.model.grid import earlier, neighbours, windows

    for tables in (earlier, neighbours, windows):
        tables.cache_clear()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # of glibc alone
            ctypes.CDLL(None).malloc_trim(0)


def answer(questions: Connection, models: Models) -> None:
    """Tell what is wrong with each request that comes, None if nothing is."""
    from fractalgen.studio.composing import judge

    with contextlib.suppress(EOFError, OSError):
        while True:
            request, document = questions.recv()
            mistake = None
            try:
                name = request.flags.get("model")
                judge(request, document, models.get(name), models.settings(name))
            except UserError as error:
                mistake = one_line(error)
            except Exception:  # noqa: BLE001  the job itself will tell
                traceback.print_exc()
            questions.send(mistake)


class Models:
    """Models by name, the latest ones kept in memory."""

    def __init__(self, cfg: StudioConfig) -> None:
        from fractalgen.devices import resolve_device

        self.cfg, self.device = cfg, resolve_device(cfg.device)
        self._first: Path | None = None
        self._loaded: dict[str, FractalGen] = {}
        self._lock = threading.Lock()

    def get(self, name: str | None) -> FractalGen:
        """A shipped model, the user's own one (its file's name), or the first (None).

        Raises:
            UserError: there is none of that name.
        """
        from fractalgen.api import load_pretrained

        path = self.path(name)
        with self._lock:
            model = self._loaded.pop(str(path), None)
            while len(self._loaded) >= MOST_MODELS:
                del self._loaded[next(iter(self._loaded))]
            self._loaded[str(path)] = model or load_pretrained(path, self.device)
            return self._loaded[str(path)]

    def path(self, name: str | None) -> Path:
        """The file of a model."""
        from fractalgen.checkpoint import find_model, model_name

        if self._first is None:  # of what is on the Hub, too: found once
            self._first = find_model(self.cfg.checkpoint, None if self.cfg.checkpoint else self.cfg.model)
        if name in (None, model_name(self._first)):
            return self._first
        return find_model(None, name)

    def settings(self, name: str | None) -> dict[str, Any]:
        """The flags by which the command line composes with this model as the studio does."""
        from fractalgen.checkpoint import SHIPPED

        path = self.path(name)
        chosen = {"model": path.stem} if path.parent == SHIPPED else {"checkpoint": str(path), "model": None}
        return {**chosen, "device": self.cfg.device, "threads": self.cfg.threads}

    def facts(self) -> list[dict[str, Any]]:
        """What a page needs to know of each model."""
        from fractalgen.cards import without_metadata
        from fractalgen.checkpoint import SHIPPED, model_name, read_card, read_checkpoint, read_config

        first = self.path(None)
        paths = dict.fromkeys((first, *sorted(SHIPPED.glob("*.safetensors"))))
        found = []
        for path in paths:
            config = read_config(read_checkpoint(path)[0], path)
            labels = {attribute.name: list(attribute.values) or None for attribute in config.attributes}
            lines = without_metadata(read_card(path)).split("\n\n")
            found.append(
                {
                    "name": model_name(path),
                    "default": path == first,
                    "labels": labels,
                    "bars": config.columns,
                    "plans": bool(config.plan_width),
                    "sees_future": config.sees_future,
                    "bar_columns": config.bar_columns,
                    "tempo": "tempo" in labels,
                    "meters": labels.get("meter") or ["4/4"],
                    "iterations": not config.is_autoregressive,
                    "description": " ".join(lines[1].split()) if len(lines) > 1 else "",
                }
            )
        return found

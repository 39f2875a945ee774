"""The queue: one job at a time, the projects in turn, and what the pages are told meanwhile."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fractalgen.errors import UserError
from fractalgen.studio.document import Document
from fractalgen.studio.project import Kind, Project, State
from fractalgen.studio.request import Request
from fractalgen.studio.worker import Event, Task, Worker, dumps, one_line

MOST_WAITING, MOST_OF_PROJECT = 64, 8
T = TypeVar("T")


class Busy(UserError):
    """Too many jobs are waiting."""


@dataclass
class Job:
    """Something to be composed; ``told``: what the pages have been told since it began."""

    number: int
    project: Project
    request: Request
    document: Document
    label: str
    traces: tuple[Path, ...] = ()
    keep: bool = True
    began: float = 0.0
    told: list[str] = field(default_factory=list)


class Queue:
    """Jobs of all projects; the next one is that of the project that has waited longest since it was served."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        """``tell(project, text)`` sends a message to the pages of a project; it may be called by any thread."""
        self._tell, self._lock = tell, threading.RLock()
        self._waiting: dict[str, deque[Job]] = {}  # by project, in the order in which they are served
        self._running: Job | None = None
        self._next = 1
        self.worker: Worker | None = None

    def submit(self, project: Project, request: Request, document: Document, label: str) -> tuple[int, int]:
        """A new job; returns its number and its position, 0 where it begins at once.

        Raises:
            Busy: the queue is full.
        """
        with self._lock:
            waiting = sum(map(len, self._waiting.values()))
            if waiting >= MOST_WAITING or len(self._waiting.get(project.id, ())) >= MOST_OF_PROJECT:
                raise Busy(f"{waiting} jobs are waiting, which is as many as there may be; try again later")
            job = Job(self._next, project, request, document, label)
            self._next += 1
            job.traces = tuple(project.new_trace(f"{job.number}-{i}") for i in range(request.num_samples))
            self._waiting.setdefault(project.id, deque()).append(job)
            self._begin()
            position = self._position(job)
            if job is not self._running:
                self._announce()
            return job.number, position

    def cancel(self, number: int, keep: bool) -> None:
        """Stop a job; ``keep``: what it has composed becomes its result.

        Raises:
            LookupError: it does not exist, or has ended.
        """
        with self._lock:
            if self._running is not None and self._running.number == number:
                self._running.keep = keep
                assert self.worker is not None
                self.worker.stop(number)
                return
            job = next((job for job in self._order() if job.number == number), None)
            if job is None:
                raise LookupError(number)
            self._waiting[job.project.id].remove(job)
            self._tell(job.project.id, _done(job, [], True))
            self._announce()

    def drop(self, project: str) -> None:
        """Stop all jobs of a project, which goes away."""
        with self._lock:
            self._waiting.pop(project, None)
            if self._running is not None and self._running.project.id == project:
                self.cancel(self._running.number, keep=False)

    def all(self) -> list[dict[str, Any]]:
        """The jobs, the running one first."""
        with self._lock:
            jobs = ([self._running] if self._running else []) + self._order()
            return [
                {
                    "job": job.number,
                    "project": job.project.id,
                    "state": job.request.state,
                    "mode": job.request.mode,
                    "label": job.label,
                    "position": self._position(job),
                }
                for job in jobs
            ]

    @contextmanager
    def joining(self, project: str, page: Callable[[str], AbstractContextManager[T]]) -> Iterator[tuple[list[str], T]]:
        """A page that opens: what it has missed of its project's jobs, and ``page(project)``, which gets all else."""
        with ExitStack() as stack:
            with self._lock:
                messages = stack.enter_context(page(project))
                running = self._running
                told = list(running.told) if running is not None and running.project.id == project else []
                told += [self._queued(job) for job in self._waiting.get(project, ())]
            yield told, messages

    def take(self, event: Event) -> None:
        """An event of the worker."""
        with self._lock:
            job = self._running
            if job is None or event.job != job.number:
                return
            if event.kind == "done":
                text = self._finish(job, event)
            else:
                text = event.text
                job.told.append(text)
            ended = event.kind in ("done", "error")
            if ended:
                for trace in job.traces:
                    trace.unlink(missing_ok=True)
                self._running = None
            self._tell(job.project.id, text)
            if ended:
                self._begin()
                self._announce()

    def _finish(self, job: Job, event: Event) -> str:
        """The states of a job that has ended, and the message about them."""
        results = event.results if job.keep or not event.stopped else ()
        states: list[int] = []
        try:
            label = job.label + " (stopped)" * event.stopped
            alone = job.request.num_samples == 1
            group = None if alone else job.number
            with job.project.lock:
                head = alone and job.project.head == job.request.state
                for index, result in enumerate(results):
                    name = label if alone else f"{label} {index + 1}"
                    kind: Kind = "compose" if alone else "alternative"
                    state = job.project.add(
                        job.request.state, name, kind, result.document, group=group, head=head, trace=result.trace
                    )
                    states.append(state.id)
                    self._tell(job.project.id, state_message(job.project, state))
        except (UserError, OSError) as error:  # the project is gone, or the disk is full
            return dumps(type="error", job=job.number, message=f"the result could not be saved: {one_line(error)}")
        return _done(job, states, event.stopped)

    def _begin(self) -> None:
        """Give the worker the next job, if it is free."""
        while self._running is None and self.worker is not None and (project := next(iter(self._waiting), None)):
            jobs = self._waiting.pop(project)
            if not jobs:
                continue
            job = jobs.popleft()
            if jobs:
                self._waiting[project] = jobs  # behind the others
            self._running, job.began = job, time.monotonic()
            self.worker.submit(Task(job.number, job.request, job.document, job.traces))

    def _order(self) -> list[Job]:
        """The waiting jobs in the order in which they will begin."""
        rows = [list(jobs) for jobs in self._waiting.values()]
        return [row[turn] for turn in range(max(map(len, rows), default=0)) for row in rows if turn < len(row)]

    def _position(self, job: Job) -> int:
        return 0 if job is self._running else self._order().index(job) + 1

    def _queued(self, job: Job) -> str:
        return dumps(type="queued", job=job.number, position=self._position(job))

    def _announce(self) -> None:
        """Tell all waiting jobs where they are."""
        for job in self._order():
            self._tell(job.project.id, self._queued(job))


def state_message(project: Project, state: State) -> str:
    """What pages are told of a state that is new, or that became the head."""
    return dumps(type="state", state=asdict(state), head=project.head, redo=project.redo)


def _done(job: Job, states: list[int], stopped: bool) -> str:
    seconds = round(time.monotonic() - job.began, 3) if job.began else 0.0
    return dumps(type="done", job=job.number, states=states, stopped=stopped, seconds=seconds)

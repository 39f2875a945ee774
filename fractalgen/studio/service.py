"""What the routes of the studio work with: projects, the queue with its worker, and the pages that listen."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from fractalgen.config import StudioConfig
from fractalgen.studio.document import Document
from fractalgen.studio.exports import Exports
from fractalgen.studio.jobs import Queue, state_message
from fractalgen.studio.project import Project, State
from fractalgen.studio.projects import Projects
from fractalgen.studio.request import Request
from fractalgen.studio.worker import Event, Worker, dumps

BACKLOG = 4_096  # messages that a page may be behind


class Hub:
    """The pages that are open, by project, and what is sent to them."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._pages: dict[str, set[asyncio.Queue[str | None]]] = {}

    def tell(self, project: str | None, text: str) -> None:
        """Send a message to the pages of a project, or to all pages (None), from any thread."""
        with self._lock:
            rows = self._pages.values() if project is None else [self._pages.get(project, ())]
            pages = tuple(chain.from_iterable(rows))
        if pages and self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the server is being closed
                self.loop.call_soon_threadsafe(self._put, pages, text)

    @staticmethod
    def _put(pages: tuple[asyncio.Queue[str | None], ...], text: str) -> None:
        for page in pages:
            if page.full():  # it does not listen: it may come again and get all there is
                page.get_nowait()
                page.put_nowait(None)
            else:
                page.put_nowait(text)

    @contextlib.contextmanager
    def page(self, project: str) -> Iterator[asyncio.Queue[str | None]]:
        """The messages of a page; None where it is too far behind."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(BACKLOG)
        with self._lock:
            self._pages.setdefault(project, set()).add(queue)
        try:
            yield queue
        finally:
            with self._lock:
                self._pages[project].discard(queue)
                if not self._pages[project]:
                    del self._pages[project]


class Studio:
    """What the routes work with."""

    def __init__(self, cfg: StudioConfig) -> None:
        self.cfg = cfg
        self.projects = Projects(cfg.output_dir)
        self.hub, self.exports = Hub(), Exports()
        self.queue = Queue(self.hub.tell)
        self.models: list[dict[str, Any]] = []
        self.ready = threading.Event()
        self.failure: str | None = None
        self.failed: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Start the worker."""
        self.queue.worker = Worker(self.cfg, self.take)

    def check(self, request: Request, document: Document) -> None:
        """Refuse what the model cannot compose.

        Raises:
            UserError: as the command line says it.
        """
        if self.queue.worker is not None:
            self.queue.worker.check(request, document)

    def changed(self, project: Project, state: State) -> None:
        """Tell the pages of a project of a state that is new, or that became the head."""
        self.hub.tell(project.id, state_message(project, state))

    def listed(self, project: str, name: str | None) -> None:
        """Tell all pages of a project that is new or has a new name, or that it was removed (None)."""
        self.hub.tell(None, dumps(type="project", project=project, name=name))

    def take(self, event: Event) -> None:
        """An event of the worker."""
        if event.kind == "ready":
            self.models = list(event.models)
            self.ready.set()
        elif event.kind == "failed":
            self.failure = event.text
            self.failed()
        else:
            self.queue.take(event)

    def close(self) -> None:
        """End all processes."""
        if self.queue.worker is not None:
            self.queue.worker.close()
        self.exports.close()
        self.projects.close()

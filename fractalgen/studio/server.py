"""The routes of the studio: HTTP and WebSocket.  What they do is done elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from operator import call
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, File, HTTPException, Query, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict
from starlette.background import BackgroundTask
from starlette.requests import Request as HttpRequest
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from fractalgen import __version__
from fractalgen.config import StudioConfig
from fractalgen.errors import UserError, shown
from fractalgen.files import ASSETS
from fractalgen.music.midi_parser import is_score
from fractalgen.studio.document import Document
from fractalgen.studio.exports import ENDINGS, KINDS, Crowded, Exports
from fractalgen.studio.imports import import_file, safe_name
from fractalgen.studio.jobs import MOST_OF_PROJECT, MOST_WAITING, Busy, Queue, state_message
from fractalgen.studio.projects import ENDING, Missing, Project, Projects, State
from fractalgen.studio.request import MOST_BARS, MOST_SAMPLES, Mode, Request, flag_facts
from fractalgen.studio.security import PROJECT_UPLOAD, UPLOAD, Guard
from fractalgen.studio.worker import Event, Worker

BACKLOG = 4_096  # messages that a page may be behind
LOADING = 120.0  # seconds until the models are read at the latest
for _ending, _kind in ((".js", "text/javascript"), (".mjs", "text/javascript"), (".css", "text/css")):
    mimetypes.add_type(_kind, _ending)  # the registry of some systems says otherwise
Kind = Literal["mid", "musicxml", "wav", "mp4", "gif", "png", "html", "trace"]


class Data(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Name(Data):
    """What a project is called."""

    name: str


class Edit(Data):
    """A state that was made by hand."""

    parent: int
    label: str = "edit"
    document: dict[str, Any]


class Head(Data):
    """The state that the piece is in."""

    state: int


class Area(Data):
    """A rectangle: ticks and pitches, the ends excluded."""

    start: int
    end: int
    low: int = 0
    high: int = 128


class Wish(Data):
    """What is to be composed."""

    state: int
    mode: Mode
    flags: dict[str, Any] = {}
    region: Area | None = None
    hand: Literal[0, 1] | None = None
    num_samples: int = 1
    lane: bool = False


class Hub:
    """The pages that are open, by project, and what is sent to them."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._pages: dict[str, set[asyncio.Queue[str | None]]] = {}

    def tell(self, project: str, text: str) -> None:
        """Send a message to the pages of a project, from any thread."""
        with self._lock:
            pages = tuple(self._pages.get(project, ()))
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


class Static(StaticFiles):
    """Files that a browser asks about each time, so that none is older than the program."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """A file, or that it has not changed."""
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


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


def create_app(cfg: StudioConfig, token: str | None = None) -> tuple[ASGIApp, Studio]:
    """The application, and what it works with; ``token``: what a request must have to be answered.

    Raises:
        UserError: the folder of the projects cannot be used.
    """
    studio = Studio(cfg)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        studio.hub.loop = asyncio.get_running_loop()
        studio.start()
        try:
            yield
        finally:
            await asyncio.to_thread(studio.close)

    app = FastAPI(
        title="FractalGen studio",
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    _errors(app)
    _pages(app)
    _projects(app, studio)
    _states(app, studio)
    _composing(app, studio)
    return Guard(app, cfg.host, token), studio


def _errors(app: FastAPI) -> None:
    """Every mistake is one line."""

    def answer(status: int, text: object) -> JSONResponse:
        return JSONResponse({"detail": " ".join(str(text).split())}, status)

    @app.exception_handler(UserError)
    def mistake(request: HttpRequest, error: UserError) -> JSONResponse:
        status = 404 if isinstance(error, Missing) else 429 if isinstance(error, Busy | Crowded) else 400
        return answer(status, error)

    @app.exception_handler(RequestValidationError)
    def invalid(request: HttpRequest, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return answer(400, f"{'.'.join(map(str, first['loc']))}: {shown(first['msg'], 200)}")

    @app.exception_handler(OSError)
    def disk(request: HttpRequest, error: OSError) -> JSONResponse:
        return answer(500, f"the disk: {error.strerror or error}")


def _pages(app: FastAPI) -> None:
    """The page and its files."""
    for folder in ("studio", "player", "piano"):
        app.mount(f"/static/{folder}", Static(directory=ASSETS / folder, check_dir=False))

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return FileResponse(ASSETS / "studio" / "index.html", headers={"cache-control": "no-cache"})


def _projects(app: FastAPI, studio: Studio) -> None:
    projects = studio.projects

    @app.get("/api/health")
    def health() -> dict[str, Any]:
        """Whether the models are there, and how many jobs there are."""
        return {"status": "ok", "ready": studio.ready.is_set(), "jobs": len(studio.queue.all())}

    @app.get("/api/info")
    def info() -> dict[str, Any]:
        """Models, flags and limits."""
        if not studio.ready.wait(LOADING):
            raise HTTPException(503, "the models are not there yet")
        return {
            "version": __version__,
            "folder": str(projects.folder.resolve()),
            "models": studio.models,
            "flags": flag_facts(),
            "limits": {
                "upload_bytes": UPLOAD,
                "project_bytes": PROJECT_UPLOAD,
                "bars": MOST_BARS,
                "samples": MOST_SAMPLES,
                "queue": MOST_WAITING,
                "queue_of_project": MOST_OF_PROJECT,
            },
        }

    @app.get("/api/projects")
    def listed() -> list[dict[str, Any]]:
        """All projects, the newest first."""
        return [summary(project) for project in projects.all()]

    @app.post("/api/projects")
    def create(body: Name) -> dict[str, Any]:
        """A new project."""
        return whole(projects.create(body.name))

    @app.post("/api/projects/open")
    def unpack(file: Annotated[UploadFile, File()]) -> dict[str, Any]:
        """A new project from a project file."""
        return whole(projects.unpack(file.file))

    @app.get("/api/projects/{project}")
    def opened(project: str) -> dict[str, Any]:
        """A project: its states, and the document of its head."""
        return whole(projects.get(project))

    @app.patch("/api/projects/{project}")
    def rename(project: str, body: Name) -> dict[str, Any]:
        """Call a project otherwise."""
        projects.get(project).rename(body.name)
        return summary(projects.get(project))

    @app.delete("/api/projects/{project}")
    def delete(project: str) -> dict[str, Any]:
        """Remove a project and all of its states."""
        projects.get(project)
        studio.queue.drop(project)
        projects.delete(project)
        return {}

    @app.get("/api/projects/{project}/file")
    def packed(project: str) -> FileResponse:
        """The project file."""
        found = projects.get(project)
        name = safe_name(found.name) + ENDING

        def write(path: Path) -> None:
            with path.open("wb") as file:
                found.pack(file)

        return _download(name, "application/zip", write)


def _states(app: FastAPI, studio: Studio) -> None:
    projects = studio.projects

    @app.get("/api/projects/{project}/states/{state}")
    def read(project: str, state: int) -> dict[str, Any]:
        """A state and its document."""
        found = projects.get(project)
        return {
            "state": asdict(found.state(state)),
            "document": found.document_json(state),
            "trace": found.trace(state) is not None,
        }

    def changed(project: Project, state: State) -> None:
        studio.hub.tell(project.id, state_message(project, state))

    @app.post("/api/projects/{project}/states")
    def edit(project: str, body: Edit) -> dict[str, Any]:
        """A new state that was made by hand; it becomes the head."""
        found = projects.get(project)
        state = found.add(body.parent, body.label, "edit", Document.from_json(body.document))
        changed(found, state)
        return {"state": asdict(state)}

    @app.put("/api/projects/{project}/head")
    def move(project: str, body: Head) -> dict[str, Any]:
        """Undo, redo, accept an alternative, or return to any state."""
        found = projects.get(project)
        found.move(body.state)
        changed(found, found.state(body.state))
        return {
            "state": asdict(found.state(body.state)),
            "document": found.document_json(body.state),
            "redo": found.redo,
        }

    @app.post("/api/projects/{project}/import")
    def bring(project: str, file: Annotated[UploadFile, File()]) -> dict[str, Any]:
        """A new state from a file: MIDI, MusicXML, or a text of chords for the piece as it is."""
        found = projects.get(project)
        name = safe_name(Path(file.filename or "file").name, endings=True)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            with path.open("wb") as target:
                shutil.copyfileobj(file.file, target)
            read = studio.exports.call if is_score(path) else call
            document, remarks = read(import_file, path, found.document(found.head))
        state = found.add(found.head, f"import {name}", "import", document)
        changed(found, state)
        return {"state": asdict(state), "remarks": remarks}

    @app.get("/api/projects/{project}/states/{state}/{kind}")
    def export(project: str, state: int, kind: Kind, bars: Annotated[str | None, Query()] = None) -> FileResponse:
        """The piece as a file; ``bars``: only these, as 5-8."""
        found = projects.get(project)
        document, trace = found.document(state), found.trace(state)
        name = safe_name(found.name)
        if bars is not None:
            document, trace, name = document.part(bars), None, f"{name} bars {bars.strip()}"
        return _download(
            name + ENDINGS[kind], KINDS[kind], lambda path: studio.exports.write(kind, document, trace, path)
        )


def _composing(app: FastAPI, studio: Studio) -> None:
    projects, queue = studio.projects, studio.queue

    @app.post("/api/projects/{project}/compose")
    def compose(project: str, body: Wish) -> dict[str, Any]:
        """Begin to compose, or wait for it; what happens is told by the WebSocket."""
        found = projects.get(project)
        request = Request.from_json(body.model_dump())
        document = found.document(request.state)
        request.check(document)
        number, position = queue.submit(found, request, document, request.label(document))
        return {"job": number, "position": position}

    @app.get("/api/jobs")
    def jobs() -> list[dict[str, Any]]:
        """The queue, the running job first."""
        return queue.all()

    @app.delete("/api/jobs/{job}")
    def cancel(job: int, keep: Annotated[bool, Query()] = True) -> dict[str, Any]:
        """Stop a job; what is there is kept unless ``keep`` is false."""
        try:
            queue.cancel(job, keep)
        except LookupError:
            raise HTTPException(404, f"job {job}: there is no such job, or it has ended") from None
        return {}

    @app.websocket("/api/live")
    async def live(socket: WebSocket, project: str = "") -> None:
        try:
            await asyncio.to_thread(projects.get, project)
        except UserError as error:
            await socket.close(4404, str(error)[:120])
            return
        await socket.accept()
        with queue.joining(project, studio.hub.page) as (told, messages):
            sender = asyncio.create_task(_send(socket, told, messages))
            try:
                while True:
                    await socket.receive_text()
            except (WebSocketDisconnect, RuntimeError, KeyError):
                pass
            finally:
                sender.cancel()


async def _send(socket: WebSocket, told: list[str], messages: asyncio.Queue[str | None]) -> None:
    """Send a page what it has missed, and then what happens."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        for text in told:
            await socket.send_text(text)
        while (text_now := await messages.get()) is not None:
            await socket.send_text(text_now)
        await socket.close(1013)


def summary(project: Project) -> dict[str, Any]:
    """A project as it stands in the list."""
    bars, notes = project.counts()
    return {
        "id": project.id,
        "name": project.name,
        "modified": project.modified,
        "bars": bars,
        "notes": notes,
    }


def whole(project: Project) -> dict[str, Any]:
    """A project as a page opens it."""
    with project.lock:
        return {
            "id": project.id,
            "name": project.name,
            "head": project.head,
            "redo": project.redo,
            "states": [asdict(state) for state in project.states.values()],
            "document": project.document_json(project.head),
        }


def _download(name: str, kind: str, write: Callable[[Path], None]) -> FileResponse:
    """A file that is written now and removed when it has been sent."""
    folder = Path(tempfile.mkdtemp(prefix="fractalgen-"))
    try:
        write(folder / name)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    task = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
    return FileResponse(folder / name, media_type=kind, filename=name, background=task)

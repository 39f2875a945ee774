"""The routes of the interface: HTTP and WebSocket.  What they do is done elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from operator import call
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File, HTTPException, Query, UploadFile, WebSocket, WebSocketDisconnect
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from pydantic import AfterValidator
from starlette.background import BackgroundTask

from fractalgen import __version__
from fractalgen.errors import UserError
from fractalgen.music.midi_parser import is_score
from fractalgen.studio.document import Document
from fractalgen.studio.exports import ENDINGS, KINDS, known_kind
from fractalgen.studio.imports import import_file, safe_name
from fractalgen.studio.jobs import MOST_OF_PROJECT, MOST_WAITING
from fractalgen.studio.project import Project
from fractalgen.studio.projects import ENDING
from fractalgen.studio.request import MOST_BARS, MOST_SAMPLES, Checked, Request, flag_facts
from fractalgen.studio.security import PROJECT_UPLOAD, UPLOAD
from fractalgen.studio.service import Studio

LOADING = 120.0  # seconds until the models are read at the latest
Kind = Annotated[str, AfterValidator(known_kind), InPath(json_schema_extra={"enum": [*KINDS]})]


class Name(Checked):
    """What a project is called."""

    name: str


class Edit(Checked):
    """A state that was made by hand."""

    parent: int
    label: str = "edit"
    document: dict[str, Any]


class Head(Checked):
    """The state that the piece is in."""

    state: int


def add_routes(app: FastAPI, studio: Studio) -> None:
    """Add all of them to an application."""
    _about(app, studio)
    _projects(app, studio)
    _states(app, studio)
    _files(app, studio)
    _composing(app, studio)


def _about(app: FastAPI, studio: Studio) -> None:
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
            "folder": str(studio.projects.folder.resolve()),
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


def _projects(app: FastAPI, studio: Studio) -> None:
    projects = studio.projects

    @app.get("/api/projects")
    def listed() -> list[dict[str, Any]]:
        """All projects, the newest first."""
        return [summary(project) for project in projects.all()]

    @app.post("/api/projects")
    def create(body: Name) -> dict[str, Any]:
        """A new project."""
        made = projects.create(body.name)
        studio.listed(made.id, made.name)
        return whole(made)

    @app.get("/api/projects/{project}")
    def opened(project: str) -> dict[str, Any]:
        """A project: its states, and the document of its head."""
        return whole(projects.get(project))

    @app.patch("/api/projects/{project}")
    def rename(project: str, body: Name) -> dict[str, Any]:
        """Call a project otherwise."""
        found = projects.get(project)
        found.rename(body.name)
        studio.listed(project, found.name)
        return summary(found)

    @app.delete("/api/projects/{project}")
    def delete(project: str) -> dict[str, Any]:
        """Remove a project and all of its states."""
        projects.get(project)
        studio.queue.drop(project)
        projects.delete(project)
        studio.listed(project, None)
        return {}


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

    @app.post("/api/projects/{project}/states")
    def edit(project: str, body: Edit) -> dict[str, Any]:
        """A new state that was made by hand; it becomes the head."""
        found = projects.get(project)
        state = found.edit(body.parent, body.label, Document.from_json(body.document))
        studio.changed(found, state)
        return {"state": asdict(state)}

    @app.put("/api/projects/{project}/head")
    def move(project: str, body: Head) -> dict[str, Any]:
        """Undo, redo, accept an alternative, or return to any state."""
        found = projects.get(project)
        found.move(body.state)
        studio.changed(found, found.state(body.state))
        return {
            "state": asdict(found.state(body.state)),
            "document": found.document_json(body.state),
            "redo": found.redo,
        }


def _files(app: FastAPI, studio: Studio) -> None:
    projects = studio.projects

    @app.post("/api/projects/open")
    def unpack(file: Annotated[UploadFile, File()]) -> dict[str, Any]:
        """A new project from a project file."""
        made = projects.unpack(file.file)
        studio.listed(made.id, made.name)
        return whole(made)

    @app.get("/api/projects/{project}/file")
    def packed(project: str) -> FileResponse:
        """The project file."""
        found = projects.get(project)
        name = safe_name(found.name) + ENDING

        def write(path: Path) -> None:
            with path.open("wb") as file:
                found.pack(file)

        return _download(name, "application/zip", write)

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
        studio.changed(found, state)
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
    def compose(project: str, body: Request) -> dict[str, Any]:
        """Begin to compose, or wait for it; what happens is told by the WebSocket."""
        found = projects.get(project)
        document = found.document(body.state)
        body.check(document)
        studio.check(body, document)
        number, position = queue.submit(found, body, document, body.label(document))
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
            await socket.accept()  # else a browser does not learn why
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
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        write(folder / name)
        undo.pop_all()
    task = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
    return FileResponse(folder / name, media_type=kind, filename=name, background=task)

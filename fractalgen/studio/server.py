"""The application: the page, its interface, and how mistakes are told."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.requests import Request as HttpRequest
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from fractalgen import __version__
from fractalgen.config import StudioConfig
from fractalgen.errors import UserError, shown
from fractalgen.files import ASSETS
from fractalgen.studio.exports import Crowded
from fractalgen.studio.jobs import Busy
from fractalgen.studio.project import Missing
from fractalgen.studio.routes import add_routes
from fractalgen.studio.security import Guard
from fractalgen.studio.service import Studio
from fractalgen.studio.worker import one_line

for _ending, _kind in ((".js", "text/javascript"), (".mjs", "text/javascript"), (".css", "text/css")):
    mimetypes.add_type(_kind, _ending)  # the registry of some systems says otherwise


class Static(StaticFiles):
    """Files that a browser asks about each time, so that none is older than the program."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """A file, or that it has not changed."""
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


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
    add_routes(app, studio)
    return Guard(app, cfg.host, token), studio


def _errors(app: FastAPI) -> None:
    """Every mistake is one line."""

    def answer(status: int, text: object) -> JSONResponse:
        return JSONResponse({"detail": one_line(text)}, status)

    @app.exception_handler(UserError)
    def mistake(request: HttpRequest, error: UserError) -> JSONResponse:
        status = 404 if isinstance(error, Missing) else 429 if isinstance(error, Busy | Crowded) else 400
        return answer(status, error)

    @app.exception_handler(RequestValidationError)
    def invalid(request: HttpRequest, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if isinstance(ours := first.get("ctx", {}).get("error"), UserError):
            return mistake(request, ours)
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

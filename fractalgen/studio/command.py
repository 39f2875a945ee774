"""``fractalgen studio``: serve the page until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
import sys
import webbrowser
from pathlib import Path
from urllib.parse import quote

from fractalgen.config import StudioConfig
from fractalgen.errors import UserError, missing
from fractalgen.studio.security import is_loopback


def serve(cfg: StudioConfig) -> int:
    """Serve the studio; the first line names its address and its folder.

    Raises:
        UserError: packages are missing, the port is taken, or the folder or the model cannot be used.
    """
    try:
        import uvicorn

        from fractalgen.studio.server import create_app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fractalgen"):
            raise
        raise missing("the studio", error.name or "packages", "studio") from error
    token = cfg.token or (None if is_loopback(cfg.host) else secrets.token_urlsafe(18))
    app, studio = create_app(cfg, token)
    listener = listening(cfg)
    address = address_of(cfg.host, listener.getsockname()[1], token)
    print(f"studio: {address}  (projects in {Path(cfg.output_dir).resolve()}; Ctrl-C ends it)", flush=True)
    if cfg.open_browser:
        webbrowser.open(address)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            ws_max_size=1 << 16,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=2,
            server_header=False,
        )
    )

    def stop() -> None:
        server.should_exit = True

    studio.failed = stop
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()
    if studio.failure is not None:
        raise UserError(studio.failure)
    print("the studio has ended")
    return 0


def listening(cfg: StudioConfig) -> socket.socket:
    """A socket at the address to listen at.

    Raises:
        UserError: the address does not exist here, or is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(cfg.host, cfg.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        if sys.platform != "win32":  # there it would let two programs listen at one address
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)  # who is early waits
    except OSError as error:
        raise UserError(f"--host {cfg.host} --port {cfg.port}: {error.strerror or error}") from error
    return listener


def address_of(host: str, port: int, token: str | None) -> str:
    """The address to open in a browser."""
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{port}/" + (f"?token={quote(token)}" if token else "")

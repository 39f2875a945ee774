"""A window, and a server of the player's modules, for the tests of one file."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from fractalgen.files import ASSETS
from tests.browser import Tab


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Tab:
    """One window for all tests of this file."""
    return Tab(browser)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder that is served, the package's modules and samples in it, and its address."""
    folder = tmp_path_factory.mktemp("served")
    for name in ("player", "piano"):
        (folder / name).symlink_to(ASSETS / name)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()

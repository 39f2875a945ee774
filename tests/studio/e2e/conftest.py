"""One studio with a small random model for all tests in a browser, and its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext

from fractalgen.studio.document import Document
from tests import tiny
from tests.browser import context
from tests.studio.e2e.driver import StudioTab
from tests.studio.server import Server

Opener = Callable[..., StudioTab]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("studio")
    config = tiny.model_config(plan_width=8, crop_length=64, attributes=("key",))
    checkpoint = tiny.save_model(folder / "tiny.safetensors", replace(config, future_context=True), -1.5)
    running = Server(folder / "projects", "--checkpoint", checkpoint, "--device", "cpu")
    running.warm()
    yield running
    running.kill()


@pytest.fixture(scope="module")
def windows(browser: Browser) -> BrowserContext:
    """Where all pages of a file are that need nothing special: the browser reads the page's modules once."""
    return context(browser)


@pytest.fixture
def open_studio(browser: Browser, windows: BrowserContext, server: Server) -> Iterator[Opener]:
    """Opens the page of a new project, with a piece in it; nothing may have been complained about when it is closed."""
    tabs: list[StudioTab] = []

    def opened(piece: Document | None = None, *, sound: bool = False, **options: Any) -> StudioTab:
        where = browser if options else windows
        tabs.append(StudioTab(where, server, server.project(piece), sound=sound, **options))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.close()

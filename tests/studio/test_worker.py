"""The process of the models as the server sees it, when it does not live long enough to compose."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from fractalgen.config import StudioConfig
from fractalgen.studio import worker
from fractalgen.studio.worker import MOST_DEATHS, Event, Worker


def dies(pipe: Any, questions: Any, stop: Any, cfg: StudioConfig) -> None:
    """In place of :func:`.serve`: tells that it has models, and dies with its first piece."""
    pipe.send(Event(-1, "ready"))
    os._exit(7)


def test_a_process_that_dies_before_it_has_composed_is_not_started_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "serve", dies)
    events: list[Event] = []
    failed = threading.Event()

    def told(event: Event) -> None:
        events.append(event)
        if event.kind == "failed":
            failed.set()

    started = Worker(StudioConfig(device="cpu"), told)
    try:
        assert failed.wait(60)
    finally:
        started.close()
    assert [event.kind for event in events] == ["ready"] * MOST_DEATHS + ["failed"]
    assert "status 7" in events[-1].text

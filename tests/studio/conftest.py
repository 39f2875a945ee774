"""A small model, a piece, and a studio with a real worker for the tests of the studio."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from fractalgen.config import StudioConfig
from fractalgen.studio.document import Document, Note
from fractalgen.studio.server import create_app
from fractalgen.studio.service import Studio
from tests import tiny

BAR = 4 * 480


def checkpoint(folder: Path, **changes: Any) -> str:
    """A random model of four bars that sees what lies ahead."""
    return tiny.save_model(folder / "tiny.safetensors", replace(tiny.model_config(), future_context=True, **changes))


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def piece() -> Document:
    """Four bars: a melody that is played a little late, a bass, two tempi, chords."""
    melody = [Note(i, 72 + i % 5, 13 + i * 240, 220, 61 + i, 0) for i in range(32)]
    bass = [Note(100 + i, 40 + i % 3, i * 960, 950, 51, 1) for i in range(8)]
    return Document(
        4 * BAR,
        ((0, 100.0), (BAR, 132.5)),
        key="D minor",
        notes=tuple(sorted((*melody, *bass), key=lambda note: (note.start, note.pitch))),
        chords=((0, "Dm"), (BAR, "Gm7"), (2 * BAR, "A7"), (3 * BAR, "Dm")),
        sections=((0, "A"), (2 * BAR, "B")),
    )


@pytest.fixture(scope="session")
def running(model_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Studio]]:
    """A studio with the small model, as a script on the same machine sees it."""
    cfg = StudioConfig(checkpoint=model_path, output_dir=str(tmp_path_factory.mktemp("studio")), device="cpu")
    app, studio = create_app(cfg)
    with TestClient(app, base_url="http://localhost") as client:
        assert studio.ready.wait(120)
        yield client, studio


@pytest.fixture
def client(running: tuple[TestClient, Studio]) -> TestClient:
    return running[0]

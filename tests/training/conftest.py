"""What tests of the training share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fractalgen.training.command import train
from tests import tiny


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.corpus(tmp_path_factory.mktemp("corpus") / "corpus.safetensors")


@pytest.fixture
def run(corpus: Path, tmp_path: Path) -> Any:
    """Trains in a fresh folder; settings may be changed."""

    def run(**changes: Any) -> Path:
        return train(tiny.train_config(tmp_path, **{"data": str(corpus), **changes}))

    return run

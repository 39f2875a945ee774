"""The layers of the package, as pyproject.toml states them: imports point downwards, in no cycle."""

from __future__ import annotations

from pathlib import Path

import pytest
from importlinter.cli import lint_imports

CONFIG = Path(__file__).parents[1] / "pyproject.toml"


def test_imports_point_downwards(capsys: pytest.CaptureFixture[str]) -> None:
    status = lint_imports(str(CONFIG), no_cache=True, no_logo=True)
    assert status == 0, capsys.readouterr().out

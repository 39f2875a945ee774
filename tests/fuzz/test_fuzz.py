from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import KINDS, run

COUNTS = {"midi": 300, "trace": 300, "corpus": 300, "checkpoint": 150, "yaml": 150}


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    tally = run(name, range(COUNTS[name]), tmp_path)
    assert tally.faults == []
    assert tally.refused > COUNTS[name] / 10
    assert tally.accepted > 0

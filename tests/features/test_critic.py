"""The critic that chooses among candidates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractalgen.errors import UserError
from fractalgen.features.critic import Critic
from fractalgen.features.table import FEATURES
from fractalgen.features.vector import feature_rows
from tests import tiny


@pytest.fixture(scope="module")
def sets() -> tuple[np.ndarray, np.ndarray]:
    """Rolls of two kinds: one twice as dense as the other."""
    songs, samples = ([tiny.tokens(seed, 64, notes) for seed in range(40)] for notes in (80, 40))
    return np.stack(songs), np.stack(samples)


def test_it_prefers_what_is_like_the_songs_that_it_learned(sets: tuple[np.ndarray, np.ndarray]) -> None:
    songs, samples = sets
    critic = Critic.fit(feature_rows(songs[:30]), feature_rows(samples[:20]), {})
    assert critic.scores(songs[30:]).min() > critic.scores(samples[20:]).max()
    # and learns the opposite where the sets are exchanged
    critic = Critic.fit(feature_rows(samples[:20]), feature_rows(songs[:30]), {})
    assert critic.scores(songs[30:]).max() < critic.scores(samples[20:]).min()


def test_a_file_holds_all_of_it(sets: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    critic = Critic.fit(feature_rows(sets[0]), feature_rows(sets[1]), {"songs": 40})
    critic.write(tmp_path / "critic.json")
    assert Critic.read(tmp_path / "critic.json") == critic


@pytest.mark.parametrize("change", ["{", "[]", "format", "version", "feature", "nan", "more", "text"])
def test_what_is_no_critic_is_refused_in_one_line(change: str, tmp_path: Path) -> None:
    path = tmp_path / "critic.json"
    content: dict[str, Any] = {
        "format": "fractalgen critic",
        "version": 1,
        "weights": dict.fromkeys(FEATURES, 0.5),
        "about": {},
    }
    match change:
        case "format" | "version":
            content[change] = 2
        case "feature":
            del content["weights"]["pitch_range"]
        case "nan" | "text":
            content["weights"]["pitch_range"] = {"nan": float("nan"), "text": "much"}[change]
        case "more":
            content["weights"]["beauty"] = 1
    path.write_text(change if change in ("{", "[]") else json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=r"critic\.json: not a critic of this program's 82 features$"):
        Critic.read(path)

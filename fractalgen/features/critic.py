"""A critic: which of several candidates for a piece sounds most like songs.

A linear classifier learns to tell samples of a model from songs by the features of the two-sample test.  Of candidates
that were composed for the same piece, the one that it takes for a song most readily is kept.  This is rejection
sampling with a discriminator (S. Azadi et al., "Discriminator Rejection Sampling", ICLR 2019), with a fixed number of
candidates.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fractalgen.errors import UserError
from fractalgen.features.statistics import Floats
from fractalgen.features.table import FEATURES
from fractalgen.features.vector import feature_rows
from fractalgen.files import replacing

FORMAT, VERSION = "fractalgen critic", 1
STRENGTH = 0.1  # inverse of the regularisation of logistic regression, here and in the two-sample test


@dataclass(frozen=True)
class Critic:
    """``weights``: what each feature, in its unit, adds to the log-odds that a roll is of a song.

    ``about``: how they were found (JSON data).
    """

    weights: Mapping[str, float]
    about: Mapping[str, Any]

    @classmethod
    def fit(cls, songs: Floats, samples: Floats, about: Mapping[str, Any]) -> Critic:
        """Learn to tell features (n, f) of excerpts of songs from those (m, f) of samples; both sides count alike."""
        from sklearn.linear_model import LogisticRegression  # takes a second to import
        from sklearn.preprocessing import StandardScaler

        values, is_song = np.concatenate([songs, samples]), np.arange(len(songs) + len(samples)) < len(songs)
        scaler = StandardScaler().fit(values)
        classifier = LogisticRegression(C=STRENGTH, max_iter=1000, class_weight="balanced")
        classifier.fit(scaler.transform(values), is_song)
        weights = classifier.coef_[0] / scaler.scale_
        return cls(dict(zip(FEATURES, weights.tolist(), strict=True)), about)

    def scores(self, tokens: Any, steps_per_bar: int = 16) -> Floats:
        """How much like a song each roll of (n, 128, T) is: its log-odds (n,), but for a constant."""
        return feature_rows(tokens, steps_per_bar) @ np.array(list(self.weights.values()))

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        content = {"format": FORMAT, "version": VERSION, "weights": dict(self.weights), "about": dict(self.about)}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Critic:
        """Read it again.

        Raises:
            UserError: not a critic, or one of other features than this program's.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            weights = {name: float(content["weights"][name]) for name in FEATURES}
            if (content["format"], content["version"]) != (FORMAT, VERSION):
                raise ValueError("of another format")
            if len(content["weights"]) > len(weights) or not all(map(math.isfinite, weights.values())):
                raise ValueError("not a number for each feature")
            return cls(weights, dict(content["about"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{path}: not a critic of this program's {len(FEATURES)} features") from error

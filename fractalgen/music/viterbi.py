"""The Viterbi search in which every change of state costs the same, whatever the two states are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def best_path(fit: npt.NDArray[Any], change: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The state at each of n moments: the path whose sum of ``fit`` (n, states), less the changes, is greatest.

    ``change``: what a change costs at each moment (n,), or at all.
    """
    states, costs = np.arange(fit.shape[1]), np.broadcast_to(change, len(fit))
    best, sources = fit[0], []
    for scores, cost in zip(fit[1:], costs[1:], strict=True):
        jump = int(best.argmax())
        sources.append(np.where(best >= best[jump] - cost, states, jump))
        best = np.maximum(best, best[jump] - cost) + scores
    path = [int(best.argmax())]
    for source in reversed(sources):
        path.append(int(source[path[-1]]))
    return np.array(path[::-1], np.int64)

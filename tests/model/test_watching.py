"""What a watcher is shown while a piece is composed is the piece and its trace."""

from __future__ import annotations

import numpy as np
import pytest

from fractalgen.model.sampling.recorder import DecidedPatch
from fractalgen.music.plan import Plan
from fractalgen.music.tokens import Meters
from fractalgen.rolls import compose_rolls, layout_of
from tests import tiny


class Watcher:
    """Puts together what it is shown."""

    def __init__(self, samples: int, levels: int, width: int) -> None:
        self.plans: dict[int, Plan | None] = {}
        self.tokens = np.full((samples, 128, width), -1)
        self.planes = np.full((samples, levels, 128, width), -1)
        self.steps: list[int] = []

    def planned(self, sample: int, plan: Plan | None) -> None:
        self.plans[sample] = plan

    def decided(self, patch: DecidedPatch) -> None:
        assert patch.sample in self.plans
        rows, columns = patch.tokens.shape
        here = (patch.sample, slice(patch.pitch, patch.pitch + rows), slice(patch.time, patch.time + columns))
        assert (self.tokens[here] == -1).all(), "a patch is decided once"
        self.tokens[here] = patch.tokens
        self.planes[here[0], 0, here[1], here[2]] = np.where(patch.tokens < 0, -1, patch.step)
        self.planes[here[0], 1:, here[1], here[2]] = np.where(patch.tokens < 0, -1, patch.planes)
        self.steps.append(patch.step)


@pytest.mark.parametrize("plan_width", [0, 8])
@pytest.mark.parametrize("kinds", [("ar", "ar", "ar", "ar"), ("mar", "ar", "ar", "ar")])
@pytest.mark.parametrize("meters", [((0, 4, 4),), ((0, 3, 4),)])
def test_what_is_shown_is_the_piece_and_its_trace(kinds: tuple[str, ...], plan_width: int, meters: Meters) -> None:
    config = tiny.model_config(generator_types=kinds, plan_width=plan_width, reveal_share=0.3)
    model = tiny.random_model(config)
    width = 60  # windows of the model's 32 steps follow each other
    layout = layout_of(model.config, width if plan_width else 64, None, meters)
    known = np.full((128, layout.num_steps), -1)
    known[40:50, 3:21] = 0
    watcher = Watcher(3, 4, layout.num_steps)
    rolls, traces = compose_rolls(
        model, 3, layout=layout, known=known, meters=meters, seed=5, batch_size=2, return_trace=True, watch=watcher
    )
    assert watcher.plans.keys() == {0, 1, 2}
    assert all((plan is not None) == bool(plan_width) for plan in watcher.plans.values())
    for sample, (roll, trace) in enumerate(zip(rolls, traces, strict=True)):
        composed = ~trace.strip(trace.known)
        assert composed.any()
        np.testing.assert_array_equal(watcher.tokens[sample] >= 0, composed)
        if kinds[0] == "ar":  # MAR levels silence holds without an onset afterwards
            np.testing.assert_array_equal(watcher.tokens[sample][composed], roll.tokens[composed])
        np.testing.assert_array_equal(watcher.planes[sample][:, composed], trace.strip(trace.decided)[:, composed])

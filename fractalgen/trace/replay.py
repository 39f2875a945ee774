"""A record that can be replayed, and the frames of a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, overload

import numpy as np

from fractalgen.config import View
from fractalgen.errors import UserError
from fractalgen.music.plan import Span
from fractalgen.trace.record import Record
from fractalgen.trace.views import VIEWS, Frame, Frames


class Trace(Record):
    """How one roll was composed, see :class:`fractalgen.trace.record.Record`; its moments are frames."""

    def frames(self, view: View = "process", record_interval: int = 0, max_frames: int = 0) -> Frames:
        """Replay the trace.

        Args:
            view: "process", what was decided when; "hierarchical", coarse to fine, ``num_iter_list`` frames a level;
                "levels", as process, with the patches that are being filled; "density", how likely cells were.
            record_interval: AR first level: patches between two frames; levels view: patches that sound between two
                that are shown (0: an eighth of all).
            max_frames: at most this many frames, evenly spread, the last always among them (0: all).

        Raises:
            UserError: an unknown view, a negative number, or a density view without chances.
        """
        if view not in VIEWS:
            raise UserError(f"--view {view}: choose one of {', '.join(VIEWS)}")
        for flag, value in (("record_interval", record_interval), ("gif_max_frames", max_frames)):
            if value < 0:
                raise UserError(f"--{flag} {value}: must be 0 or more")
        makers = VIEWS[view](self, record_interval)
        if 0 < max_frames < len(makers):
            chosen = np.linspace(len(makers) - 1, 0, max_frames).round().astype(int)[::-1]
            makers = [makers[index] for index in chosen]
        return Frames([partial(self._finished, maker) for maker in makers])

    def without_plan(self) -> Trace:
        """The same, as if it had been composed without a plan."""
        return dataclasses.replace(self, settings={k: v for k, v in self.settings.items() if k != "plan"})

    def with_lane(self, lane: Sequence[Span]) -> Trace:
        """The same under these sections and chords, in place of those of its plan; a file does not keep them."""
        shown = dataclasses.replace(self)
        vars(shown)["lane"] = tuple(lane)  # the value of the cached property
        return shown

    def _finished(self, maker: Callable[[], Frame]) -> Frame:
        """A frame without steps that do not exist, with the lane of the plan."""
        frame = maker()
        real = self.layout.model_steps
        place = np.searchsorted(real, [block.step for block in frame.blocks])
        changed: dict[str, Any] = {
            "blocks": tuple(
                dataclasses.replace(block, step=min(int(step), len(real) - block.size[1]))
                for block, step in zip(frame.blocks, place, strict=True)
                if block.size[1] <= len(real)
            )
        }
        for name in ("output", "tokens", "known", "open"):
            plane = getattr(frame, name)
            changed[name] = None if plane is None else self.strip(plane)
        return dataclasses.replace(frame, lane=self.lane, **changed)


class Intermediates(Sequence[Frame]):
    """The process frames of a batch sampled together; ``output``, ``tokens`` and ``known`` are (b, 128, T) arrays."""

    def __init__(self, traces: Sequence[Trace], record_interval: int = 0) -> None:
        if not traces:
            raise ValueError("intermediates need at least one trace")
        if any(not np.array_equal(trace.steps, traces[0].steps) for trace in traces):
            raise ValueError("intermediates: the traces of one batch must share their steps")
        self.traces = tuple(traces)
        self._frames = [trace.frames(record_interval=record_interval) for trace in traces]

    def __len__(self) -> int:
        return len(self._frames[0])

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        single = [frames[index] for frames in self._frames]
        tokens = np.stack([frame.tokens for frame in single if frame.tokens is not None])
        output = np.stack([frame.output for frame in single])
        given = any(trace.marked is not None for trace in self.traces)
        known = np.stack([trace.known for trace in self.traces]) if given else None
        return dataclasses.replace(single[0], output=output, tokens=tokens, known=known)

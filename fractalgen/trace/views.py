"""Views of a trace: which moments are shown, and what is known of the roll at each of them.

A view turns a :class:`fractalgen.trace.record.Record` into makers of :class:`Frame`, which are called when a
frame is looked at.  Nothing here knows how frames are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from fractalgen.errors import UserError
from fractalgen.music.plan import Span
from fractalgen.music.tokens import SILENCE, velocities
from fractalgen.trace.record import Record

DEFAULT_SPACING = 8  # an AR run shows a frame every eighth of its sequence by default
MOMENTS = 16  # levels view: at most so many frames inside a first-level patch
STEPS_PER_BAR = 16  # four quarters of four sixteenths


@dataclass(frozen=True)
class ZoomedPatch:
    """Cells that a frame shows enlarged beside the roll: so many pitches and time steps from these on."""

    level: int
    size: tuple[int, int]
    pitch: int
    step: int


@dataclass(frozen=True, eq=False)
class Frame:
    """One moment of a replay.

    Attributes:
        level: the level that decided last, from 0.
        iteration: the place of the frame in the sequence of its level.
        level_name: the label of the frame, such as ``AR L0 patch 45/128``.
        output: velocities from 0 to 1, (128, T), or (b, 128, T) for a batch; chances where ``shows`` is "chance".
        tokens: the cells themselves: all of them, or the known ones (silence elsewhere) where the frame shows blocks;
            None if there are none.
        elapsed: seconds since sampling began, where the view follows the clock.
        progress: share of the replay that is done, from 0 to 1.
        known: the cells that were given and not composed, shaped like ``output``; None if all were composed.
        step: place in the view's own count, of ``steps`` (0: it has none).
        steps: see ``step``.
        steps_per_bar: how long most bars are.
        bars: steps at which bars begin.
        shows: what ``output`` holds.
        blocks: what is shown enlarged, the coarsest first.
        open: cells on which nothing is decided yet, where the view tells them from silence.
        lane: chords and form that the piece was composed by.
    """

    level: int
    iteration: int
    level_name: str
    output: NDArray[np.float32]
    tokens: NDArray[np.uint8] | None = None
    elapsed: float | None = None
    progress: float = 1.0
    known: NDArray[np.bool_] | None = None
    step: int = 0
    steps: int = 0
    steps_per_bar: int = STEPS_PER_BAR
    bars: tuple[int, ...] | None = None
    shows: Literal["velocity", "chance"] = "velocity"
    blocks: tuple[ZoomedPatch, ...] = ()
    open: NDArray[np.bool_] | None = None
    lane: tuple[Span, ...] = ()


Makers: TypeAlias = list[Callable[[], Frame]]
T = TypeVar("T")


class Frames(Sequence[Frame]):
    """Frames that are computed when they are looked at; slicing gives frames again."""

    def __init__(self, makers: Sequence[Callable[[], Frame]]) -> None:
        self._makers = makers

    def __len__(self) -> int:
        return len(self._makers)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> Frames: ...
    def __getitem__(self, index: int | slice) -> Frame | Frames:
        return Frames(self._makers[index]) if isinstance(index, slice) else self._makers[index]()


def process(trace: Record, record_interval: int) -> Makers:
    """Chronological: what was known, then the roll after chosen steps of the first level."""
    return [partial(_after, trace, done) for done in _shown(trace, record_interval)]


def density(trace: Record, record_interval: int) -> Makers:
    """How likely each cell was to sound, in the order of decision.

    Raises:
        UserError: the trace was recorded without chances.
    """
    chances = trace.chances
    if chances is None:
        raise UserError("--view density: this trace was recorded without chances; compose the piece again")
    share = chances.astype(np.float32) / 255

    def frame(done: int) -> Frame:
        """The chances of what ``done`` steps have decided."""
        after = _after(trace, done)
        output = np.where(_decided(trace, done), share, np.float32(0))
        return replace(after, output=output, tokens=None, shows="chance")

    return [partial(frame, done) for done in _shown(trace, record_interval)]


def hierarchical(trace: Record, record_interval: int) -> Makers:
    """Coarse to fine: the plan, if there is one, then the levels, each of which sharpens the blocks of the one above.

    A block is drawn at the mean velocity of its sounding cells.  The level that reaches single cells still draws them
    at the mean of the block they came from; their own velocities arrive with the last level.  Known cells are there
    from the first frame on, as they are.
    """
    levels = len(trace.patch_sizes)
    total = sum(trace.num_iter_list)
    given = None if trace.marked is None else np.where(trace.known, trace.tokens, np.uint8(SILENCE))

    def detail(level: int) -> NDArray[np.float32]:
        """The roll as known when ``level`` has finished; before the first it is empty."""
        if level < 0:
            return np.zeros_like(trace.velocities)
        if level < levels - 2:
            return block_means(trace.velocities, trace.patches[level])
        if level < levels - 1:
            return np.where(trace.tokens != SILENCE, detail(level - 1), np.float32(0)) if level else trace.velocities
        return trace.velocities

    def frame(level: int, step: int) -> Frame:
        """The roll when ``level`` is at frame ``step`` of its share."""
        count = trace.num_iter_list[level]
        decided = trace.decided[level].astype(np.int64)
        reached = (decided >= 0) & (decided * count // _local_steps(trace, level) <= step)
        output = np.where(reached, detail(level), detail(level - 1))
        final = level == levels - 1
        done = sum(trace.num_iter_list[:level]) + step + 1
        return Frame(
            level=level,
            iteration=step + 1,
            level_name=f"L{level} step {step + 1}/{count}",
            output=trace.velocities if final else np.where(trace.known, trace.velocities, output),
            tokens=trace.tokens if final else given,
            progress=done / total,
            known=trace.marked,
            step=done,
            steps=total,
            steps_per_bar=trace.steps_per_bar,
            bars=trace.bars,
        )

    def plan() -> Frame:
        """The plan alone: nothing is composed yet."""
        start = frame(0, 0)
        known = np.where(trace.known, trace.velocities, np.float32(0))
        return replace(start, iteration=0, level_name="Plan", output=known, tokens=given, progress=0.0, step=0)

    makers: Makers = [plan] if trace.plan is not None else []
    return makers + [
        partial(frame, level, step) for level in range(levels) for step in range(trace.num_iter_list[level])
    ]


def levels(trace: Record, record_interval: int) -> Makers:
    """Inside the patches: as :func:`process`, but chosen patches are filled cell by cell, and shown enlarged.

    The moment at which a cell was decided is its local step at every level, the coarsest first: comparing those
    tuples tells what is there and what is not.  Steps in which something sounds are chosen evenly, and in each of
    them the moments at which cells of a patch came to sound.
    """
    depth = len(trace.patch_sizes) - 1  # the last plane, of velocities, contains no order
    moments = np.zeros(trace.tokens.shape, np.int64)
    for plane in trace.decided[:depth].astype(np.int64):
        moments = moments * (int(plane.max(initial=0)) + 2) + plane + 1
    sounding = (trace.tokens != SILENCE) & ~trace.known & (trace.decided[0] >= 0)
    count, last = len(trace.steps), int(moments.max(initial=0))

    def frame(focus: tuple[int, int], moment: int, final: bool = False) -> Frame:
        """The roll when the cell in ``focus`` had just been decided."""
        done = count if final else int(trace.decided[0][focus]) + 1
        after = _after(trace, done)
        visible = trace.known | (moments <= moment)
        tokens = np.where(visible, trace.tokens, np.uint8(SILENCE))
        inner = [] if final else range(1, depth)
        places = [f"L{level} step {trace.decided[level][focus] + 1}/{_local_steps(trace, level)}" for level in inner]
        return replace(
            after,
            level_name="   ".join([after.level_name, *places]),
            output=velocities(tokens, trace.velocity_bins),
            tokens=tokens,
            blocks=_blocks(trace, focus),
            open=~visible,
        )

    patch = trace.patches[0]
    groups = [_moments_of(moments, sounding, corner, patch) for corner in _sounding_patches(trace, sounding)]
    spacing = record_interval or max(1, len(groups) // DEFAULT_SPACING)
    chosen = [cell for group in _every(groups, spacing) for cell in group]
    first = chosen[0] if chosen else (0, 0)

    def opening() -> Frame:
        """Before anything was decided."""
        return replace(_after(trace, 0), blocks=_blocks(trace, first), open=~trace.known)

    makers: Makers = [opening, *(partial(frame, cell, int(moments[cell])) for cell in chosen)]
    if count:
        makers.append(partial(frame, chosen[-1] if chosen else first, last, True))
    return makers


VIEWS: dict[str, Callable[[Record, int], Makers]] = {
    "process": process,
    "hierarchical": hierarchical,
    "levels": levels,
    "density": density,
}


def _every(items: list[T], spacing: int) -> list[T]:
    """Every ``spacing``-th item, the last always among them."""
    shown = items[spacing - 1 :: spacing]
    return shown + items[-1:] if len(items) % spacing else shown


def _shown(trace: Record, record_interval: int) -> list[int]:
    """Numbers of first-level steps after which a frame is shown; 0 is before the first."""
    count = len(trace.steps)
    spacing = (record_interval or max(1, count // DEFAULT_SPACING)) if trace.generators[0] == "ar" else 1
    return [0, *_every(list(range(1, count + 1)), spacing)]


def _decided(trace: Record, done: int) -> NDArray[np.bool_]:
    """Cells that the first ``done`` steps have decided."""
    return (trace.decided[0] >= 0) & (trace.decided[0] < done)


def _after(trace: Record, done: int) -> Frame:
    """The roll after ``done`` steps of the first level."""
    count = len(trace.steps)
    tokens = np.where(trace.known | _decided(trace, done), trace.tokens, np.uint8(SILENCE))
    iteration, batch = (int(n) + 1 for n in trace.steps[done - 1]) if done else (0, 0)
    label = f"Iter {iteration} batch {batch}"
    if trace.generators[0] == "ar":  # counts what is composed: known patches take no step
        iteration, label = done, f"AR L0 patch {done}/{count}"
    return Frame(
        level=0,
        iteration=iteration,
        level_name=label if done else "Init",
        output=velocities(tokens, trace.velocity_bins),
        tokens=tokens,
        elapsed=float(trace.seconds[done - 1]) if done else 0.0,
        progress=done / max(count, 1),
        known=trace.marked,
        step=done,
        steps=count,
        steps_per_bar=trace.steps_per_bar,
        bars=trace.bars,
    )


def _local_steps(trace: Record, level: int) -> int:
    """Steps that a level takes inside its parent."""
    return int(trace.decided[level].max(initial=0)) + 1


def _blocks(trace: Record, cell: tuple[int, int]) -> tuple[ZoomedPatch, ...]:
    """The patches of levels 1, 2, ... that hold a cell, single cells apart."""
    pitch, step = cell
    return tuple(
        ZoomedPatch(level, (high, wide), pitch // high * high, step // wide * wide)
        for level, (high, wide) in enumerate(trace.patches[:-1], start=1)
    )


def _sounding_patches(trace: Record, sounding: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Corners (pitch, step) of first-level patches in which something composed sounds, in order of decision.

    Of patches that were drawn together it is the one in which most sounds: they fill at the same time.
    """
    high, wide = trace.patches[0]
    pitches, steps = trace.tokens.shape
    blocks = (pitches // high, high, steps // wide, wide)
    cells = sounding.reshape(blocks).sum(axis=(1, 3))
    moment = trace.decided[0].reshape(blocks).max(axis=(1, 3))  # its cells agree but for known ones, which are -1
    filled = sorted(np.argwhere(cells).tolist(), key=lambda at: cells[*at])
    busiest = {int(moment[row, column]): (row * high, column * wide) for row, column in filled}
    return [busiest[step] for step in sorted(busiest)]


def _moments_of(
    moments: NDArray[np.int64], sounding: NDArray[np.bool_], corner: tuple[int, int], patch: tuple[int, int]
) -> list[tuple[int, int]]:
    """One cell (pitch, step) for every moment at which cells of a patch came to sound, at most ``MOMENTS`` of them."""
    pitch, step = corner
    here = (slice(pitch, pitch + patch[0]), slice(step, step + patch[1]))
    cells = np.argwhere(sounding[here])
    _, first = np.unique(moments[here][sounding[here]], return_index=True)
    if len(first) > MOMENTS:
        first = first[np.linspace(0, len(first) - 1, MOMENTS).round().astype(int)]
    return [(pitch + int(row), step + int(column)) for row, column in cells[first]]


def block_means(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Every block of (pitches, steps) of a (128, T) plane at the mean of its sounding cells (0: none sounds)."""
    height, width = plane.shape
    blocks = plane.reshape(height // size[0], size[0], width // size[1], size[1])
    sounding = (blocks > 0).sum(axis=(1, 3), dtype=np.float32)
    means = blocks.sum(axis=(1, 3)) / np.maximum(sounding, 1)
    return means.repeat(size[0], axis=0).repeat(size[1], axis=1)

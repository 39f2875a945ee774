"""The record of how a roll was composed, and its replay as frames.

A cell is written once, so the whole process is the finished roll plus, for every level, the number of the step at
which that level decided the cell.  Those few integer planes are a :class:`Trace`; pictures of any moment and of any
level are computed from it on demand.  Nothing here knows the model or how frames are drawn.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from fractalgen.config import View
from fractalgen.errors import UserError
from fractalgen.files import replacing
from fractalgen.pianoroll import SILENCE, velocities

FORMAT = "fractalgen.trace"
VERSION = 1
DEFAULT_SPACING = 8  # an AR run shows a frame every eighth of its sequence unless told otherwise

_ARRAYS: dict[str, type[np.generic]] = {
    "tokens": np.uint8,
    "decided": np.int16,
    "steps": np.int16,
    "known": np.bool_,
    "seconds": np.float32,
}


@dataclass(frozen=True, eq=False)
class Frame:
    """One moment of a replay.

    ``output`` holds velocities in 0..1, (128, T), or (b, 128, T) for a batch; ``tokens`` the cells themselves: all of
    them, or the known ones (silence elsewhere) where the frame shows blocks, None if there are none; ``elapsed``
    seconds since sampling began, where the view follows the clock; ``progress`` the share of the replay that is done,
    0..1; ``known`` the cells that were given and not composed, shaped like ``output``, None if all were composed.
    """

    level: int
    iteration: int
    level_name: str
    output: NDArray[np.float32]
    tokens: NDArray[np.uint8] | None = None
    elapsed: float | None = None
    progress: float = 1.0
    known: NDArray[np.bool_] | None = None


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


@dataclass(frozen=True, eq=False)
class Trace:
    """How one roll was composed.

    Attributes:
        tokens: the finished roll, uint8 (128, T); 0 silence, 1 hold, 2.. onset by velocity bin.
        decided: int16 (levels, 128, T).  Plane 0: index into ``steps`` of the step at which the first level decided
            the cell's patch, silent or not.  Plane l: the local step inside its parent at which level l decided the
            child patch that contains the cell.  -1 where the level never went (a silent parent) and on known cells.
        steps: int16 (number of steps, 2): (iteration, batch) of each step of the first level, counted from 0; for
            AR the iteration is the patch's rank in scan order and the batch 0.
        known: bool (128, T), cells that were given and not composed.
        generators: "ar" or "mar" per level.
        patch_sizes: height of the region that each level owns, the last one 1.
        scan_order: "column_major" or "row_major".
        num_iter_list: iterations per level; also the frames per level of the hierarchical view.
        velocity_bins: number of velocity bins of ``tokens``.
        seed, checkpoint, settings: where the roll came from; plain JSON data.
        seconds: float32 (number of steps,), time since the beginning at which each step ended.
    """

    tokens: NDArray[np.uint8]
    decided: NDArray[np.int16]
    steps: NDArray[np.int16]
    known: NDArray[np.bool_]
    generators: tuple[str, ...]
    patch_sizes: tuple[int, ...]
    scan_order: str
    num_iter_list: tuple[int, ...]
    seconds: NDArray[np.float32]
    velocity_bins: int = 32
    seed: int | None = None
    checkpoint: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        cells = self.tokens.shape
        levels = len(self.patch_sizes)
        count = len(self.steps)
        shapes = {
            "tokens": (self.patch_sizes[0], *cells[1:2]),
            "decided": (levels, *cells),
            "steps": (count, 2),
            "known": cells,
            "seconds": (count,),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != _ARRAYS[name]:
                wanted = f"{np.dtype(_ARRAYS[name])} {shape}"
                raise ValueError(f"trace: {name} must be {wanted}, not {array.dtype} {array.shape}")
        for name in ("generators", "num_iter_list"):
            if len(getattr(self, name)) != levels:
                raise ValueError(f"trace: {name} has {len(getattr(self, name))} values for {levels} levels")
        if levels < 2 or self.patch_sizes[-1] != 1 or any(cells[1] % patch for patch in self.patch_sizes[1:]):
            raise ValueError(f"trace: patch sizes {self.patch_sizes} do not tile a roll of {cells[1]} steps")
        if self.decided[0].max(initial=-1) >= count:
            raise ValueError(f"trace: a cell was decided at step {self.decided[0].max()} of {count}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        same = all(np.array_equal(getattr(self, name), getattr(other, name)) for name in _ARRAYS)
        return same and self._header() == other._header()

    @property
    def width(self) -> int:
        """Number of time steps."""
        return int(self.tokens.shape[1])

    @property
    def num_patches(self) -> int:
        """Number of patches of the first level, known ones included."""
        patch = self.patch_sizes[1]
        return (self.patch_sizes[0] // patch) * (self.width // patch)

    @cached_property
    def marked(self) -> NDArray[np.bool_] | None:
        """``known`` for the frames: None if every cell was composed."""
        return self.known if self.known.any() else None

    @cached_property
    def velocities(self) -> NDArray[np.float32]:
        """Velocities of the finished roll in 0..1, (128, T)."""
        return velocities(self.tokens, self.velocity_bins)

    def frames(self, view: View = "process", record_interval: int = 0, max_frames: int = 0) -> Frames:
        """Replay the trace.

        Args:
            view: "process", what was decided when; "hierarchical", coarse to fine, ``num_iter_list`` frames a level.
            record_interval: process view of an AR first level: patches between two frames (0: an eighth of all).
            max_frames: at most this many frames, evenly spread, the last always among them (0: all).

        Raises:
            UserError: an unknown view or a negative number.
        """
        if view not in _VIEWS:
            raise UserError(f"--view {view}: choose one of {', '.join(_VIEWS)}")
        for flag, value in (("record_interval", record_interval), ("gif_max_frames", max_frames)):
            if value < 0:
                raise UserError(f"--{flag} {value}: must be 0 or more")
        makers = _VIEWS[view](self, record_interval)
        if 0 < max_frames < len(makers):
            chosen = np.linspace(len(makers) - 1, 0, max_frames).round().astype(int)[::-1]
            makers = [makers[index] for index in chosen]
        return Frames(makers)

    def _header(self) -> dict[str, Any]:
        """Everything but the arrays, as it comes back from JSON."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _ARRAYS}
        result: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, "version": VERSION, **plain}))
        return result

    def save(self, path: str | Path) -> None:
        """Write a compressed ``.npz`` (arrays and one JSON text, no pickles); equal traces give equal bytes."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, header=np.array(json.dumps(self._header())), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: no such file, not a trace, damaged, or written by a newer version.
        """
        try:
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
                header = json.loads(str(file["header"]))
                if header["format"] != FORMAT:
                    raise ValueError(f"its format is {header['format']!r}")
                if header["version"] > VERSION:
                    message = f"trace version {header['version']}; this program reads up to {VERSION}"
                    raise UserError(f"{path}: {message}: update FractalGen")
                fields = {name: value for name, value in header.items() if name not in ("format", "version")}
                for name in ("generators", "patch_sizes", "num_iter_list"):
                    fields[name] = tuple(fields[name])
                return cls(**fields, **{name: file[name] for name in _ARRAYS})
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
            # The last four: a foreign array file, or a trace whose parts do not fit together.
            raise UserError(f"{path}: not a FractalGen trace ({error})") from error


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


def _process(trace: Trace, record_interval: int) -> list[Callable[[], Frame]]:
    """Chronological: what was known, then the roll after chosen steps of the first level."""
    count = len(trace.steps)
    autoregressive = trace.generators[0] == "ar"
    spacing = (record_interval or max(1, count // DEFAULT_SPACING)) if autoregressive else 1
    shown = list(range(spacing, count + 1, spacing))
    if count and (not shown or shown[-1] != count):
        shown.append(count)

    def frame(done: int) -> Frame:
        """The roll after ``done`` steps."""
        decided = trace.decided[0]
        visible = trace.known | ((decided >= 0) & (decided < done))
        tokens = np.where(visible, trace.tokens, np.uint8(SILENCE))
        iteration, batch = (int(n) + 1 for n in trace.steps[done - 1]) if done else (0, 0)
        label = f"AR L0 patch {iteration}/{trace.num_patches}" if autoregressive else f"Iter {iteration} batch {batch}"
        return Frame(
            level=0,
            iteration=iteration,
            level_name=label if done else "Init",
            output=velocities(tokens, trace.velocity_bins),
            tokens=tokens,
            elapsed=float(trace.seconds[done - 1]) if done else 0.0,
            progress=done / max(count, 1),
            known=trace.marked,
        )

    return [partial(frame, done) for done in [0, *shown]]


def _hierarchical(trace: Trace, record_interval: int) -> list[Callable[[], Frame]]:
    """Coarse to fine: every level sharpens the blocks of the one above, in its own order of decision.

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
            return _block_means(trace.velocities, trace.patch_sizes[level + 1])
        if level < levels - 1:
            return np.where(trace.tokens != SILENCE, detail(level - 1), np.float32(0)) if level else trace.velocities
        return trace.velocities

    def frame(level: int, step: int) -> Frame:
        """The roll when ``level`` is at frame ``step`` of its share."""
        count = trace.num_iter_list[level]
        decided = trace.decided[level].astype(np.int64)
        local_steps = max(int(decided.max(initial=0)) + 1, 1)
        reached = (decided >= 0) & (decided * count // local_steps <= step)
        output = np.where(reached, detail(level), detail(level - 1))
        final = level == levels - 1
        return Frame(
            level=level,
            iteration=step + 1,
            level_name=f"L{level} step {step + 1}/{count}",
            output=trace.velocities if final else np.where(trace.known, trace.velocities, output),
            tokens=trace.tokens if final else given,
            progress=(sum(trace.num_iter_list[:level]) + step + 1) / total,
            known=trace.marked,
        )

    return [partial(frame, level, step) for level in range(levels) for step in range(trace.num_iter_list[level])]


_VIEWS: dict[str, Callable[[Trace, int], list[Callable[[], Frame]]]] = {
    "process": _process,
    "hierarchical": _hierarchical,
}


def _block_means(plane: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Replace every size x size block of a (128, T) plane by the mean of its sounding cells (0: none sounds)."""
    height, width = plane.shape
    blocks = plane.reshape(height // size, size, width // size, size)
    sounding = (blocks > 0).sum(axis=(1, 3), dtype=np.float32)
    means = blocks.sum(axis=(1, 3)) / np.maximum(sounding, 1)
    return means.repeat(size, axis=0).repeat(size, axis=1)

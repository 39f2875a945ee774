"""Timings of works that take turns, and figures from them.

Works that are compared take turns; each round gives one ratio, and the median of the ratios counts.  So other work on
the machine, which comes and goes, hits both sides.  Process time, which it hardly touches, stands beside wall time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import torch
from tqdm import tqdm

Kind = Literal["ar", "mar", "mixed"]


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often."""

    configs: tuple[str, ...] = ("tiny", "small", "base")
    kinds: tuple[Kind, ...] = ("ar", "mar")
    batches: tuple[int, ...] = (1, 8, 16, 64)
    bars: tuple[int, ...] = (4, 16, 64, 256)
    train_batches: tuple[int, ...] = (1, 8)
    max_children: tuple[int, ...] | None = None  # of training: these instead of the configuration's
    activation_checkpointing: bool = False
    width: int = 256  # time steps of a crop and of a sample
    repeats: int = 3
    warm_up: bool = True
    dense_patches: int = 2  # of an AR first level, measured for the whole
    trained: bool = False  # shipped weights where there are such
    data: str | None = None  # corpus of the training crops (default: random cells as dense as POP909)
    device: str = "cpu"


class Timing(NamedTuple):
    """Seconds of one run: of the clock, and of all cores of this process together."""

    wall: float
    cpu: float

    def times(self, factor: float) -> Timing:
        """So many of these."""
        return Timing(self.wall * factor, self.cpu * factor)

    def plus(self, other: Timing) -> Timing:
        """Both, one after the other."""
        return Timing(self.wall + other.wall, self.cpu + other.cpu)


@dataclass(frozen=True)
class Row:
    """One figure: ``value`` in ``unit``, the times it was made from, and what ``reference`` needs for the same."""

    part: str
    config: str
    what: str
    value: float
    unit: str
    seconds: float | None = None
    cpu_seconds: float | None = None
    reference: str = ""
    reference_seconds: float | None = None
    times_faster: float | None = None
    times_faster_cpu: float | None = None
    note: str = ""
    rounds: list[Timing] = field(default_factory=list)
    reference_rounds: list[Timing] = field(default_factory=list)


def row(
    name: tuple[str, str, str],
    unit: str,
    count: float,
    rounds: list[Timing],
    against: tuple[str, list[Timing]] | None = None,
    note: str = "",
    per: bool = False,
) -> Row:
    """``count`` things in each of these rounds, as things a second or (``per``) as seconds a thing."""
    seconds = median(timing.wall for timing in rounds)
    part, config, what = name
    result = Row(
        part,
        Path(config).stem,
        what,
        value=seconds / count if per else count / seconds,
        unit=unit,
        seconds=seconds,
        cpu_seconds=median(timing.cpu for timing in rounds),
        note=note,
        rounds=rounds,
    )
    if against is None:
        return result
    reference, others = against
    pairs = list(zip(rounds, others, strict=True))
    return replace(
        result,
        reference=reference,
        reference_seconds=median(other.wall for other in others),
        times_faster=median(other.wall / mine.wall for mine, other in pairs),
        times_faster_cpu=median(other.cpu / max(mine.cpu, 1e-9) for mine, other in pairs),
        reference_rounds=others,
    )


def take_turns(plan: Plan, works: Mapping[str, Callable[[int], object]]) -> dict[str, list[Timing]]:
    """Seconds of each work in every round; works get the number of the round, for a seed."""
    times: dict[str, list[Timing]] = {name: [] for name in works}
    rounds = range(-1 if plan.warm_up else 0, plan.repeats)
    with tqdm(total=len(rounds) * len(works), leave=False, dynamic_ncols=True) as bar:
        for number in rounds:
            for name, work in works.items():
                bar.set_description(name)
                synchronise(plan)
                wall, cpu = time.perf_counter(), time.process_time()
                work(max(number, 0))
                synchronise(plan)
                if number >= 0:
                    times[name].append(Timing(time.perf_counter() - wall, time.process_time() - cpu))
                bar.update()
    return times


def synchronise(plan: Plan) -> None:
    """Wait for the accelerator."""
    if torch.device(plan.device).type == "cuda":
        torch.cuda.synchronize(plan.device)

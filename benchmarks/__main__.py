"""How fast FractalGen is, in one table: beside the dense reference, and from start-up to the last picture.

    python -m benchmarks [--only training sampling ...] [--configs tiny small base] [--json FILE] [--quick]

training: crops a second; memory: its peak, and that of long pieces; sampling: seconds for 16 bars by batch, AR and MAR,
recorded or not; lengths: seconds a bar from short to long pieces; startup: ``inference.py`` to its first MIDI file;
prepare: files a second (with --midi); gif: frames a second.  Figures of busy machines differ; their ratios hardly do.
Threads are set by OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from tqdm import tqdm

from benchmarks import measure, parser, peak_megabytes
from benchmarks.compare_tables import markdown
from benchmarks.speed import (
    BAR,
    VELOCITY_BINS,
    Trainee,
    build_model,
    configuration,
    lengths,
    sampling,
    seeded,
    training,
    training_crops,
)
from benchmarks.timing import Kind, Plan, Row, Timing, row
from fractalgen.data.sources import MIDI_ENDINGS
from fractalgen.errors import UserError
from fractalgen.files import write_json

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("training", "memory", "sampling", "lengths", "startup", "prepare", "gif")
HEAD = ("part", "config", "what", "figure", "", "wall s", "CPU s", "reference", "its s", "times", "by CPU", "note")
"""The columns of the table: the fields of a :class:`Row` but for the rounds."""
QUICK: dict[str, Any] = {
    "configs": ("tiny",),
    "batches": (1,),
    "bars": (1, 4),
    "train_batches": (1, 2),
    "width": 32,
    "repeats": 1,
    "warm_up": False,
    "dense_patches": 1,
}


# ------------------------------------------------------------------------------------------- work in other processes


def run_process(command: Sequence[str], until: Callable[[], bool] | None = None) -> tuple[Timing, str]:
    """Seconds of a command, its start-up included, and what it prints; the clock stops when ``until`` is true.

    Raises:
        UserError: it fails.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    seconds = None
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,  # a pipe that nobody reads would stop it
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            while until is not None and seconds is None and process.poll() is None:
                if until():
                    seconds = time.perf_counter() - began
                time.sleep(0.005)
            output, _ = process.communicate()
        finally:
            process.kill()
        if process.returncode:
            errors.seek(0)
            said = errors.read().splitlines() or [""]
            raise UserError(f"{' '.join(command)}: exit status {process.returncode}: {said[-1]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timing(time.perf_counter() - began if seconds is None else seconds, cpu), output


def startup(plan: Plan) -> Iterator[Row]:
    """``inference.py``, one candidate, to its first MIDI file, beside what importing PyTorch alone takes."""
    times: dict[str, list[Timing]] = {"midi": [], "torch": []}
    for _ in range(plan.repeats + plan.warm_up):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            command = [sys.executable, "inference.py", "--output_dir", name, "--seed", "1", "--best_of", "1"]
            command += ["--target_width", str(plan.width), "--device", plan.device]
            times["midi"].append(run_process(command, lambda folder=folder: any(folder.glob("*.mid")))[0])  # type: ignore[misc]
        times["torch"].append(run_process([sys.executable, "-c", "import torch"])[0])
    midi, bare = (found[plan.warm_up :] for found in times.values())
    yield row(
        ("startup", "shipped", f"{plan.width // BAR} bars"),
        "s",
        1,
        midi,
        ("import torch", bare),
        note="CPU time of the whole command",
        per=True,
    )


def prepare(plan: Plan, midi: Path) -> Iterator[Row]:
    """``fractalgen prepare`` on a folder, start-up and writing included."""
    files = sum(path.suffix.lower() in MIDI_ENDINGS for path in midi.rglob("*"))
    if not files:
        raise UserError(f"--midi {midi}: no MIDI file there")
    times = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fractalgen", "prepare", "--data", str(midi.resolve())]
        for _ in range(plan.repeats + plan.warm_up):
            times.append(run_process([*command, "--out", str(Path(folder, "corpus.safetensors"))])[0])
    yield row(("prepare", "", f"{files} files"), "files/s", files, times[plan.warm_up :])


def gif() -> Iterator[Row]:
    """Frames of hierarchical GIFs, drawn and written, beside matplotlib and imageio."""
    from benchmarks import rendering  # needs imageio, which is only compared against

    traces = [rendering.recorded(tokens) for tokens in rendering.chorales()[: rendering.SAMPLES]]
    with tempfile.TemporaryDirectory() as folder:
        found = rendering.compare_gifs(Path(folder), traces)
    ours, theirs = (found[name]["seconds_a_sample"] for name in ("fractalgen", "matplotlib"))
    yield Row(
        "gif",
        "",
        f"{found['frames']} frames",
        value=found["frames"] / ours,
        unit="frames/s",
        seconds=ours,
        reference="matplotlib and imageio",
        reference_seconds=theirs,
        times_faster=theirs / ours,
    )


# ------------------------------------------------------------------------------------------------------------ memory


def memory(plan: Plan, name: str, kind: Kind) -> Iterator[Row]:
    """Peak memory of training, dense and not, and of composing short and long pieces; each in a fresh process."""
    batches = plan.train_batches
    works = [("train", 1), ("train_dense", 1)] + [("train", batch) for batch in batches if batch > 1]
    works += [("compose", bars) for bars in sorted({min(plan.bars), max(plan.bars)})]
    labels = {"train": "training, batch {}", "train_dense": "training, dense, batch {}", "compose": "{} bars"}
    for work, number in tqdm(works, desc=f"{Path(name).stem} {kind}, memory", leave=False, dynamic_ncols=True):
        job = {"plan": dataclasses.asdict(plan), "name": name, "kind": kind, "work": work, "number": number}
        _, output = run_process([sys.executable, "-m", "benchmarks", "--job", json.dumps(job)])
        found = json.loads(output.splitlines()[-1])
        note = f"{found['before']:.0f} MB of them before it began"
        yield Row("memory", Path(name).stem, f"{kind}, {labels[work].format(number)}", found["peak"], "MB", note=note)


def memory_job(plan: dict[str, Any], name: str, kind: Kind, work: str, number: int) -> dict[str, float]:
    """Megabytes of this process (CUDA: of the device) before and at the peak of a work of ``number`` crops or bars."""
    todo = Plan(**plan)
    if work == "compose":
        model = build_model(todo, name, kind)
        before = most_memory(todo)
        model.sample(1, width=BAR * number, window=todo.width, generator=seeded(todo, 0))
    else:
        trainee = Trainee(todo, name, kind)
        crops = training_crops(todo, number).to(todo.device)
        before = most_memory(todo)
        for step in range(2):  # the second one beside the optimiser's state
            trainee.passes(crops, work == "train_dense", step)
            trainee.update(step)
    return {"before": before, "peak": most_memory(todo)}


def most_memory(plan: Plan) -> float:
    """The most memory held so far, in MiB."""
    if torch.device(plan.device).type == "cuda":
        return torch.cuda.max_memory_allocated(plan.device) / 2**20
    return peak_megabytes()


# ------------------------------------------------------------------------------------------------------- the command


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def table(rows: Sequence[Row]) -> str:
    """All figures, one a line."""

    def cell(value: str | float | None) -> str:
        if value is None or isinstance(value, str):
            return value or ""
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"

    lines = [[cell(value) for value in list(vars(item).values())[: len(HEAD)]] for item in rows]
    return f"{markdown([HEAD, *lines])}\n\ntimes: how many times faster than the reference, the median over rounds"


def plan_of(args: argparse.Namespace) -> Plan:
    """The defaults, or the quick ones, and the flags given."""
    names = {item.name for item in dataclasses.fields(Plan)}
    given = {name: value for name, value in vars(args).items() if name in names and value is not None}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    plan = Plan(**{**(QUICK if args.quick else {}), **given})
    if plan.width < BAR or plan.width % BAR:
        raise UserError(f"--width {plan.width}: must be a positive multiple of {BAR}")
    for name in ("batches", "bars", "train_batches", "repeats", "dense_patches"):
        values = getattr(plan, name)
        least = min(values) if isinstance(values, tuple) else values
        if least < 1:
            raise UserError(f"--{name} {least}: must be at least 1")
    for name, kind in itertools.product(plan.configs, plan.kinds):
        # mistakes are told before hours have passed
        configuration(plan, name, kind).model_config(velocity_bins=VELOCITY_BINS)
    return plan


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, write the figures after every part, print the table."""
    if args.job:
        print(json.dumps(memory_job(**json.loads(args.job))))
        return {}
    plan = plan_of(args)
    wanted = args.only or [part for part in PARTS if part != "prepare" or args.midi]
    if "prepare" in wanted and not args.midi:
        raise UserError("--only prepare: name a folder of MIDI files with --midi")
    if "gif" in wanted and importlib.util.find_spec("imageio") is None:
        raise UserError("gif: imageio, which is compared with, is missing (pip install 'fractalgen-piano[dev]')")
    of_models = {"training": training, "memory": memory, "sampling": sampling, "lengths": lengths}
    others = {"startup": lambda: startup(plan), "prepare": lambda: prepare(plan, Path(args.midi)), "gif": gif}
    works: list[tuple[str, Iterator[Row]]] = []
    for part in PARTS:
        if part in wanted and part in of_models:
            works += [(part, of_models[part](plan, *which)) for which in itertools.product(plan.configs, plan.kinds)]
        elif part in wanted:
            works.append((part, others[part]()))
    result: dict[str, Any] = {"machine": machine(), "plan": dataclasses.asdict(plan), "rows": []}
    rows: list[Row] = []
    with tqdm(works, dynamic_ncols=True) as bar:
        for part, measured in bar:
            bar.set_description(part)
            rows += measured
            result["rows"] = [dataclasses.asdict(item) for item in rows]
            if args.json:
                write_json(args.json, result)
    print(table(rows))
    return result


def flags() -> argparse.ArgumentParser:
    """The command line; flags of :class:`Plan` that are absent stay so, for --quick to fill in."""
    top = parser("benchmarks", "how fast FractalGen is, beside its dense reference")
    top.add_argument("--only", nargs="+", choices=PARTS, help="parts to measure (default: all; prepare with --midi)")
    top.add_argument("--configs", nargs="+", help="names in configs/, or files (default: tiny small base)")
    top.add_argument("--kinds", nargs="+", choices=get_args(Kind), help="mixed: L0 is MAR (default: ar mar)")
    top.add_argument("--batches", nargs="+", type=int, help="samples drawn together (default: 1 8 16 64)")
    top.add_argument("--train_batches", nargs="+", type=int, help="crops a training step (default: 1 8)")
    top.add_argument("--max_children", nargs="+", type=int, help="training: most visited of each level, as 0 96 512 0")
    top.add_argument(
        "--activation_checkpointing", action="store_true", default=None, help="training: recompute in the backward pass"
    )
    top.add_argument("--bars", nargs="+", type=int, help="lengths of pieces (default: 4 16 64 256)")
    top.add_argument("--width", type=int, help="time steps of crops and samples (default: 256, which are 16 bars)")
    top.add_argument("--repeats", type=int, help="rounds, of which the median counts (default: 3)")
    top.add_argument("--dense_patches", type=int, help="patches of the dense reference that are measured (default: 2)")
    top.add_argument("--trained", action="store_true", help="small: the shipped weights instead of random ones")
    top.add_argument("--data", help="corpus of the training crops (default: random cells, as dense as POP909)")
    top.add_argument("--midi", help="folder of MIDI files, for the part prepare")
    top.add_argument("--device", help="cpu, cuda ... (default: cpu)")
    top.add_argument("--quick", action="store_true", help="a look at whether everything works; its figures mean little")
    top.add_argument("--job", help=argparse.SUPPRESS)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    return measure(flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())

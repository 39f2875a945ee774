"""How fast traces are drawn, how large the files are and how much memory a long piece takes.

The samples are crops of the embedded chorales, recorded as if an AR model had composed them in scan order.

* GIF: four samples of 15 frames (128 x 256 cells at 4 pixels, labelled) against colour-mapping each frame with
  matplotlib and writing it with imageio's defaults, in one run.
* A piece of 2,400 time steps, five minutes at 120 quarters a minute, in every format: seconds, file size and memory.
* The size of a trace file.

    python -m benchmarks.rendering [--skip mp4 ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks import measure, parser, peak_megabytes
from fractalgen import render
from fractalgen.config import RenderCommandConfig, RenderConfig
from fractalgen.data.corpus import Corpus
from fractalgen.data.crops import ValidCrops
from fractalgen.render.command import ENDINGS
from fractalgen.trace import Trace
from fractalgen.trace.views import Frame
from tests import tiny

SAMPLES, WIDTH, LONG = 4, 256, 2400
REPEATS = 3  # the fastest of so many runs counts: other work on the machine only ever adds time


def recorded(tokens: NDArray[np.uint8]) -> Trace:
    """A roll (128, T) as a sampler in column-major order would have recorded it, chances (made up) included."""
    trace = tiny.trace(tokens)
    chances = np.random.default_rng(0).integers(0, 256, tokens.shape) * (trace.decided[1] >= 0)
    return dataclasses.replace(trace, chances=chances.astype(np.uint8))


def chorales() -> list[NDArray[np.uint8]]:
    """Crops of real music, (128, 256) each."""
    crops = ValidCrops(Corpus.open("chorales"), "valid", WIDTH)
    return [crops[index]["tokens"].numpy().astype(np.uint8) for index in range(-(-LONG // WIDTH))]


def with_matplotlib(frames: Sequence[Frame], path: Path, cfg: RenderConfig) -> None:
    """What is compared against: a colour map, letters, and imageio as it comes."""
    import imageio.v2 as imageio
    import matplotlib

    colour_map, font = matplotlib.colormaps[cfg.gif_cmap], ImageFont.load_default(cfg.gif_font_size)
    strip = 2 * round(0.95 * cfg.gif_font_size)
    pictures = []
    for frame in frames:
        large = frame.output[::-1].repeat(cfg.gif_scale, 0).repeat(cfg.gif_scale, 1)
        roll = colour_map(large, bytes=True)[..., :3]
        picture = Image.new("RGB", (roll.shape[1], roll.shape[0] + strip))
        picture.paste(Image.fromarray(roll), (0, strip))
        ImageDraw.Draw(picture).text((7, strip / 2), frame.level_name, fill="white", font=font, anchor="lm")
        pictures.append(np.asarray(picture))
    imageio.mimsave(path, pictures, format="GIF", duration=1000 / cfg.gif_fps)  # type: ignore[arg-type]


def fastest(write: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        write()
        times.append(time.perf_counter() - began)
    return min(times)


def rolls_of(path: Path, height: int) -> list[NDArray[np.uint8]]:
    """The rolls of a GIF's frames, RGB (height, width, 3): the lowest part of each picture."""
    with Image.open(path) as file:
        rolls = []
        for index in range(getattr(file, "n_frames", 1)):
            file.seek(index)
            rolls.append(np.asarray(file.convert("RGB"))[-height:])
        return rolls


def compare_gifs(folder: Path, traces: Sequence[Trace]) -> dict[str, Any]:
    """Seconds and bytes a sample of both ways, and whether the rolls of ours are those of the frames."""
    cfg = RenderConfig()
    samples = [list(trace.frames("hierarchical")) for trace in traces]
    result: dict[str, Any] = {"samples": len(samples), "frames": len(samples[0])}
    for name, write in (("matplotlib", with_matplotlib), ("fractalgen", render.save_gif)):
        paths = [folder / f"{name}_{index}.gif" for index in range(len(samples))]
        write(samples[0], paths[0], cfg)  # whatever is loaded once

        def run(write: Any = write, paths: list[Path] = paths) -> None:
            for frames, path in zip(samples, paths, strict=True):
                write(frames, path, cfg)

        result[name] = {
            "seconds_a_sample": round(fastest(run) / len(samples), 4),
            "bytes_a_sample": round(np.mean([path.stat().st_size for path in paths])),
        }
    result["times_faster"] = round(
        result["matplotlib"]["seconds_a_sample"] / result["fractalgen"]["seconds_a_sample"], 1
    )
    height = 128 * cfg.gif_scale
    result["rolls_identical"] = all(
        np.array_equal(roll, np.asarray(render.image(frame, cfg).convert("RGB"))[-height:])
        for frames, path in zip(samples, paths, strict=True)
        for roll, frame in zip(rolls_of(path, height), frames, strict=True)
    )
    return result


def draw_long(form: str, trace: str, out: str) -> None:
    """One format, in a process of its own, which prints its seconds and its memory (its children's included)."""
    began = time.perf_counter()
    render.run_render(RenderCommandConfig(traces=(trace,), format=form, out=out, record_interval=LONG // 16))  # type: ignore[arg-type]
    encoder = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10 if form == "mp4" else 0
    memory = peak_megabytes() + encoder
    print(json.dumps({"seconds": round(time.perf_counter() - began, 1), "megabytes": round(memory)}))


def long_piece(folder: Path, trace: Trace, forms: Sequence[str]) -> dict[str, Any]:
    """A long piece in every format."""
    path = folder / "long.trace.npz"
    trace.save(path)
    result = {}
    for form in forms:
        out = folder / f"long{ENDINGS[form]}"
        command = [sys.executable, "-m", "benchmarks.rendering", "--draw", form, str(path), str(out)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        files = [out] if out.is_file() else list(out.iterdir())
        result[form] = {**json.loads(answer), "file_megabytes": round(sum(f.stat().st_size for f in files) / 1e6, 2)}
        print(f"{form}: {result[form]}", flush=True)
    return result


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, and print the figures."""
    if args.draw:
        draw_long(*args.draw)
        return {}
    music = chorales()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        traces = [recorded(tokens) for tokens in music[:SAMPLES]]
        traces[0].save(folder / "sample.trace.npz")
        result = {
            "gif": compare_gifs(folder, traces),
            "trace_bytes": (folder / "sample.trace.npz").stat().st_size,
        }
        print(json.dumps(result, indent=2), flush=True)
        forms = [form for form in ENDINGS if form not in args.skip]
        whole = np.concatenate(music, axis=1)[:, :LONG]
        result["long"] = long_piece(folder, recorded(np.ascontiguousarray(whole)), forms)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    top = parser("benchmarks.rendering", "speed, size and memory of drawing")
    top.add_argument("--skip", nargs="*", default=[], choices=list(ENDINGS), help="formats to leave out")
    top.add_argument("--draw", nargs=3, metavar=("FORMAT", "TRACE", "OUT"), help="one drawing, for the memory of it")
    return measure(top, run, arguments)


if __name__ == "__main__":
    sys.exit(main())

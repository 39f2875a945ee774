"""Properties of devices: which arithmetic is fast, and the number of processor threads."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from fractalgen.config import Precision
from fractalgen.errors import UserError

SIZE, REPEATS = 256, 3  # of the matrix product that is timed: 30 ms where bfloat16 is slow
GAIN = 1.3  # processors without bfloat16 units stay far below, those that have them far above


@functools.cache
def product_speeds(device: torch.device) -> tuple[float, float]:
    """GFLOP/s of a small matrix product on ``device`` in float32 and in bfloat16, each the best of a few."""
    speeds = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(SIZE, SIZE, device=device, dtype=dtype)
        seconds = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            (matrix @ matrix)[0, 0].item()  # waits for the device
            seconds.append(time.perf_counter() - began)
        speeds.append(2 * SIZE**3 / min(seconds) / 1e9)
    return speeds[0], speeds[1]


def fast_dtype(device: torch.device) -> torch.dtype:
    """The type in which matrix products are fast on ``device``: by capability on CUDA, by timing on a CPU."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        in_float32, in_bfloat16 = product_speeds(device)
        fast = in_bfloat16 > GAIN * in_float32
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32


def choose_precision(wanted: Precision, device: torch.device) -> Literal["32", "bf16"]:
    """``auto`` as the arithmetic that is fast on ``device``; a choice as it is, with a warning where it is slow."""
    fast: Literal["32", "bf16"] = "bf16" if fast_dtype(device) == torch.bfloat16 else "32"
    if wanted == "bf16" and fast == "32" and device.type == "cpu":
        in_float32, in_bfloat16 = product_speeds(device)
        warnings.warn(
            f"--precision bf16 is slow on this processor: a matrix product runs at {in_bfloat16:.1f} GFLOP/s in"
            f" bfloat16, at {in_float32:.1f} in float32; --precision auto chooses the faster",
            RuntimeWarning,
            stacklevel=2,
        )
    return fast if wanted == "auto" else wanted


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context of a forward pass in that precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=choose_precision(precision, device) == "bf16")


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """PyTorch's operations use ``count`` processor threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def resolve_device(name: str) -> str:
    """``auto`` as CUDA where it is available, else the processor; any other name is tried.

    Apple's ``mps`` has to be named: nobody has measured it, and a piece alone gives a GPU little to do at a time.

    Raises:
        UserError: the device is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name}: not available here ({str(error).splitlines()[0]})") from None
    return name

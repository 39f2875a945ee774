"""Settings of ``fractalgen evaluate``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fractalgen.config.fields import DEFAULT_MODEL, Precision, setting
from fractalgen.config.sampling import SamplingConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SamplingConfig):
    """``fractalgen evaluate``: the likelihood of real music, and how close generated music comes to it."""

    data: str = field(metadata={"help": "packed corpus made by `fractalgen prepare`, or `chorales` (embedded)"})
    model: str | None = setting(None, f"a shipped model by name (default: {DEFAULT_MODEL})")
    checkpoint: str | None = setting(None, "a model of your own instead: .ckpt or .safetensors")
    split: Literal["test", "valid", "train", "all"] | None = setting(
        None, "songs to evaluate (default: test, or all where the corpus has no test songs)"
    )
    limit: int = setting(0, "score at most so many crops, evenly spread (0: all)")
    stride: int = setting(
        0, "score whole songs by windows that move on by so many steps, the past being known (0: separate crops)"
    )
    scheduled: bool = setting(False, "MAR: score under num_iter_list and mar_order, not the any-order bound")
    num_samples: int = setting(0, "rolls to generate and compare with real ones (0: likelihood only)")
    json: str | None = setting(None, "file for all figures")
    report: str | None = setting(None, "HTML page with plots and examples")
    batch_size: int = setting(8, "crops or samples computed together")
    seed: int = setting(0, "seed of samples, orders and shuffled rolls")
    device: str = setting("auto", "cpu, cuda, cuda:1, mps, or auto")
    precision: Precision = setting(
        "auto", "arithmetic: float32, bfloat16 autocast, or the one that is faster on the device"
    )

"""Settings of ``fractalgen evaluate``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from fractalgen.config.fields import DEFAULT_MODEL, Groups, Precision, setting
from fractalgen.config.sampling import SamplingConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SamplingConfig):
    """``fractalgen evaluate``: the likelihood of real music, and how close generated music comes to it."""

    groups: ClassVar[Groups] = {
        "most used": ("data", "model", "checkpoint", "split", "num_samples", "report", "json"),
        "likelihood": ("limit", "stride", "scheduled"),
        "sampling": (
            *("temperature", "plan_temperature", "filter_threshold", "cfg", "cfg_schedule", "candidates"),
            *("max_polyphony", "num_iter_list", "mar_order", "batch_generate_size", "best_of", "critic", "seed"),
        ),
        "computation": ("batch_size", "device", "precision", "threads", "scheduler"),
    }

    data: str = field(metadata={"help": "packed corpus made by `fractalgen prepare`, or `chorales` (included)"})
    model: str | None = setting(None, f"name of a shipped model, or hf://owner/name (default: {DEFAULT_MODEL})")
    checkpoint: str | None = setting(None, "your own model instead: .ckpt, .safetensors or the folder of a saved model")
    split: Literal["test", "valid", "train", "all"] | None = setting(
        None, "songs to evaluate (default: test, or all where the corpus has no test songs)"
    )
    limit: int = setting(0, "score at most this many crops, evenly spread (0: all)", low=0)
    stride: int = setting(
        0,
        "score whole songs by windows that advance by this many steps, each given its past (0: score separate crops)",
        low=0,
    )
    scheduled: bool = setting(
        False, "MAR levels: score under num_iter_list and mar_order instead of the any-order bound"
    )
    num_samples: int = setting(0, "rolls to generate and compare with real ones (0: likelihood only)", low=0)
    best_of: int = setting(
        1,
        "candidates for each sample; the model's critic keeps the one that is most like songs",
        low=1,
        high=64,
    )
    critic: str | None = setting(
        None,
        "file for a critic that learns to tell these samples from training songs (NAME.critic.json beside the model)",
    )
    json: str | None = setting(None, "file for all figures")
    report: str | None = setting(None, "HTML page with plots and examples")
    batch_size: int = setting(8, "crops or samples that are computed together", low=1)
    seed: int = setting(0, "seed of samples, orders and shuffled rolls", low=0, high=2**63 - 1)
    scheduler: str | None = setting(
        None, "address of a Dask scheduler whose workers draw the samples (tcp://HOST:8786), see docs/distributed.md"
    )
    device: str = setting("auto", "cpu, cuda, cuda:1, mps, or auto (cuda if there is one, else cpu)")
    precision: Precision = setting(
        "auto", "arithmetic: float32, bfloat16 autocast, or whichever is faster on the device"
    )

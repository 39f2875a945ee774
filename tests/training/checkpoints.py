"""What a training leaves: its checkpoints and its log."""

from __future__ import annotations

from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def weights_and_moments(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint, and the moments of the optimiser by parameter and name."""
    content = torch.load(path, weights_only=True)
    moments = content["optimizer_states"][0]["state"]
    return content["state_dict"] | {f"{i}/{k}": v for i, state in moments.items() for k, v in state.items()}


def same_state(first: Path, second: Path) -> bool:
    """Whether the weights and moments of two checkpoints agree bit by bit."""
    a, b = weights_and_moments(first), weights_and_moments(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def checkpoint(version: Path, step: int) -> Path:
    """The checkpoint of a step."""
    (path,) = (version / "checkpoints").glob(f"step_{step:08d}-val_loss_*.ckpt")
    return path


def scalars(version: Path) -> EventAccumulator:
    """The log of a run."""
    return EventAccumulator(str(version), size_guidance={"scalars": 0, "images": 0}).Reload()

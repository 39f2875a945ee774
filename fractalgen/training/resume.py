"""Where a run continues: its checkpoint, step and folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from fractalgen import checkpoint
from fractalgen.config import ModelConfig, TrainConfig
from fractalgen.errors import UserError

LEVEL_FLAGS = {
    "patch": "--patch_sizes",
    "width": "--embed_dims",
    "depth": "--num_blocks",
    "heads": "--num_heads",
    "generator": "--generator_types",
    "context": "--context_pitches, _past, _future",
    "steps": "the grid of the corpus",
}  # by what a level keeps


@dataclass(frozen=True)
class ResumePoint:
    """Where a run begins, or continues.

    ``crops_seen``: number of the next crop.  ``crops_per_step``: of the run before, None if there is none or it did not
    say.  ``version``: the folder of that run, None for a new one.
    """

    step: int = 0
    crops_seen: int = 0
    crops_per_step: int | None = None
    version: str | None = None


def resume_point(cfg: TrainConfig, config: ModelConfig) -> tuple[TrainConfig, ResumePoint]:
    """The settings with which a run begins or continues from ``--resume``, and where.

    A cool-down that begins here is a branch: it ends ``cooldown_steps`` later, and has a version folder of its own.

    Raises:
        UserError: not a checkpoint for training, another architecture, or nothing left to do.
    """
    path = None
    if cfg.resume is not None:
        automatic = cfg.resume == "auto"
        path = newest_whole(Path(cfg.run_dir if automatic else cfg.resume), missing_ok=automatic)
    if path is None:
        return replace(cfg, resume=None), ResumePoint()
    cfg = replace(cfg, resume=str(path))
    header, _ = checkpoint.read_checkpoint(path, flag="resume")
    check_same_model(cfg, path, checkpoint.read_config(header, path, flag="resume").to_dict(), config.to_dict())
    step, before = header.get("step"), header.get("train", {})
    if type(step) is not int or not isinstance(before, dict) or type(before.get("max_steps", 0)) is not int:
        raise UserError(f"--resume {path}: damaged checkpoint (its step or its settings are missing)")
    for name in ("data", "ema_decay", "seed", "learning_rate", "schedule"):
        if name in before and before[name] != getattr(cfg, name):
            remark = f"--resume {path}: --{name} there is {before[name]}, here {getattr(cfg, name)}"
            rank_zero_only(print)(remark, file=sys.stderr)
    branches = cfg.cooldown_steps > 0 and not before.get("cooldown_steps")
    if cfg.cooldown_steps:
        cfg = replace(cfg, max_steps=step + cfg.cooldown_steps if branches else before.get("max_steps", step))
    if step >= cfg.max_steps:
        raise UserError(f"--resume {path}: already at step {step}, --max_steps is {cfg.max_steps}")
    checkpoints = path.resolve().parent
    logs = Path(cfg.run_dir, "lightning_logs").resolve()
    here = checkpoints.name == "checkpoints" and checkpoints.parent.parent == logs
    version = checkpoints.parent.name if here and not branches else None
    crops_per_step = header.get("crops_per_step")
    if crops_per_step is None:  # an older checkpoint, of one device
        crops_per_step = before.get("batch_size", cfg.batch_size) * before.get("accumulate_grad_batches", 1)
    seen = header.get("crops_seen", step * crops_per_step)
    return cfg, ResumePoint(step, seen, crops_per_step, version)


def check_same_model(cfg: TrainConfig, path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse to continue with another architecture (UserError naming both values)."""
    if saved["future_context"] != wanted["future_context"]:
        does = "sees known cells after the current one" if saved["future_context"] else "sees only what comes before"
        raise UserError(f"--resume {path}: the model there {does}, --reveal_share {cfg.reveal_share} makes another")
    for name, flag in LEVEL_FLAGS.items():
        old, new = (" ".join(str(level[name]) for level in side["levels"]) for side in (saved, wanted))
        if old != new:
            raise UserError(f"--resume {path}: {flag} there is {old}, here {new}")
    for name in saved.keys() - {"attributes", "crop_length", "dropout", "label_dropout", "max_children", "levels"}:
        if saved[name] != wanted[name]:
            raise UserError(f"--resume {path}: {name} there is {saved[name]}, here {wanted[name]}")
    if saved["attributes"] != wanted["attributes"]:
        old, new = (" ".join(attribute["name"] for attribute in side["attributes"]) for side in (saved, wanted))
        another = " of another corpus" if old == new else ""
        raise UserError(f"--resume {path}: attributes there are {old or 'none'}{another}, here {new or 'none'}")


def newest_whole(path: Path, missing_ok: bool = False) -> Path | None:
    """A checkpoint, or the newest readable one in a run folder; unreadable ones are reported.

    See :func:`fractalgen.checkpoint.newest_checkpoint`.

    Raises:
        UserError: there is none, unless ``missing_ok``: then None.
    """
    if path.is_file() and path.suffix.lower() == ".ckpt":
        return path
    if not path.is_dir() and not missing_ok:
        raise UserError(f"--resume {path}: {'not a .ckpt file' if path.is_file() else 'no such file'}")
    newest, faults = checkpoint.newest_checkpoint(path.rglob("[!.]*.ckpt"), "resume")
    for fault in faults:
        print(f"left out: {fault}", file=sys.stderr)
    if newest is None and not missing_ok:
        raise UserError(f"--resume {path}: no complete checkpoint (.ckpt) in this folder")
    return newest

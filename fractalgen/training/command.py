"""Training: ``train(TrainConfig)`` builds data, model, callbacks and the Lightning trainer, and runs it.

Crops, and what is told of them, are a function of (seed, index), all other randomness one of (seed, batch, device): a
resumed run continues exactly as if it had never stopped, and devices share the crops of a step.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.utilities import rank_zero_only

from fractalgen.config import TrainConfig, check_bounds
from fractalgen.data.corpus import Corpus
from fractalgen.data.labeller import chosen
from fractalgen.data.loaders import CropData
from fractalgen.devices import choose_precision
from fractalgen.errors import UserError, one_line
from fractalgen.files import writable_folder
from fractalgen.music.tokens import PITCHES
from fractalgen.training.averaging import AveragedWeights
from fractalgen.training.callbacks import LastCheckpoint, StepBar, WholeFiles
from fractalgen.training.distributed import allow_unused_parameters, strategy_of
from fractalgen.training.fine_tuning import start_from
from fractalgen.training.loggers import logger_of, next_version
from fractalgen.training.module import Training
from fractalgen.training.pictures import Pictures
from fractalgen.training.resume import ResumePoint, resume_point

# Lightning's advice about what is meant to be so here.
EXPECTED_WARNINGS = (
    r"The '\w+' does not have many workers",  # --num_workers decides
    r"Checkpoint directory .* exists and is not empty",  # a resumed run continues in its folder
    r"The dirpath has changed from",  # a run resumed into another folder
    r"(GPU|TPU) available but not used",  # --accelerator decides
    r"The `srun` command is available on your system but is not used",  # a machine of a SLURM cluster trains alone, too
    # a moving average may end where a run continues
    r".*callbacks used to create the checkpoint need to be provided.*\['AveragedWeights'\]",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # inside Lightning, for newer versions of PyTorch
)


def train(cfg: TrainConfig) -> Path:
    """Train as configured; returns the run's ``version_N`` folder.

    Raises:
        UserError: settings, files or devices that cannot work; nothing has been written then.
    """
    check_flags(cfg)
    corpus = Corpus.open(cfg.data)
    config = cfg.model_config(
        velocity_bins=corpus.velocity_bins,
        steps_per_quarter=corpus.steps_per_quarter,
        attributes=chosen(corpus, cfg.attributes),
    )
    if config.pitches != PITCHES:
        raise UserError(f"--patch_sizes {config.pitches} ...: the first must be {PITCHES}, the pitches of a roll")
    data = CropData(cfg, corpus)
    cfg, point = resume_point(cfg, config)
    data.step, data.crops_before = point.step, point.crops_seen
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no tips and advertisements
    with warnings.catch_warnings():
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        trainer = build_trainer(cfg, data, point)
        data.trainer = trainer
        if point.crops_per_step not in (None, data.crops_per_step()):
            rank_zero_only(print)(
                f"--resume {cfg.resume}: {point.crops_per_step} crops a step there, {data.crops_per_step()} here"
                f" (--batch_size {cfg.batch_size} x --accumulate_grad_batches {cfg.accumulate_grad_batches} x"
                f" {trainer.world_size} devices): it goes on with the next crops, on a course of its own",
                file=sys.stderr,
            )
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        module = Training(config, cfg)
        if cfg.init_from is not None and cfg.resume is None:
            start_from(module.model, cfg.init_from)
        with torch.no_grad():  # what the network refuses is reported before anything is written
            module.model.nll(data.val_crops[0]["tokens"][None])
        writable_folder(Path(cfg.run_dir, "lightning_logs"))
        try:
            trainer.fit(module, datamodule=data, ckpt_path=cfg.resume, weights_only=True)
        except SystemExit as error:  # what Lightning makes of Ctrl-C before the first step
            raise KeyboardInterrupt from error
        finally:  # Lightning leaves the workers when an error comes in a validation, and the process waits for them
            trainer.fit_loop.teardown()
        folder = trainer.log_dir
    assert folder is not None
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # Lightning leaves its process group open, whose threads now and then abort the interpreter on its way out
        torch.distributed.destroy_process_group()
    return Path(folder)


def check_flags(cfg: TrainConfig) -> None:
    """Refuse settings that cannot work with any corpus (UserError naming flag and value)."""
    check_bounds(cfg)
    if cfg.init_from is not None and cfg.resume not in (None, "auto"):
        raise UserError(f"--init_from {cfg.init_from} and --resume {cfg.resume}: give only one of them")
    if not 0 <= cfg.ema_decay < 1:
        raise UserError(f"--ema_decay {cfg.ema_decay}: must be from 0 to below 1")
    if not 0 <= cfg.cooldown_steps <= cfg.max_steps:
        raise UserError(f"--cooldown_steps {cfg.cooldown_steps}: must be from 0 to --max_steps {cfg.max_steps}")
    if cfg.cooldown_steps and cfg.schedule != "constant":
        raise UserError(
            f"--cooldown_steps {cfg.cooldown_steps}: for --schedule constant, not --schedule {cfg.schedule}"
        )
    if cfg.strategy not in ("auto", *StrategyRegistry.available_strategies()):
        raise UserError(f"--strategy {cfg.strategy}: must be auto, ddp, fsdp, or another strategy that Lightning names")
    if cfg.strategy.startswith("fsdp") and cfg.optimizer == "muon":
        raise UserError(f"--strategy {cfg.strategy} --optimizer muon: Muon needs whole matrices; use --optimizer adamw")
    if cfg.plan_only and not cfg.plan_width:
        raise UserError(f"--plan_only with --plan_width {cfg.plan_width}: there is no planner to train")


def training_device(accelerator: str) -> torch.device:
    """The kind of device on which Lightning trains for ``--accelerator``."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def build_trainer(cfg: TrainConfig, data: CropData, point: ResumePoint) -> pl.Trainer:
    """The Lightning trainer of a run that begins or continues at ``point``."""
    version = point.version or next_version(cfg.run_dir)
    best = ModelCheckpoint(
        Path(cfg.run_dir, "lightning_logs", version, "checkpoints"),
        monitor="val_loss",
        filename="step_{step:08d}-val_loss_{val_loss:.4f}",
        auto_insert_metric_name=False,
        save_top_k=cfg.keep_checkpoints,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    average = [AveragedWeights(cfg.ema_decay)] if cfg.ema_decay else []
    precision = choose_precision(cfg.precision, training_device(cfg.accelerator))
    logger = logger_of(cfg, version, point.step)
    try:
        trainer = pl.Trainer(
            accelerator=cfg.accelerator,
            devices=cfg.devices,
            num_nodes=cfg.num_nodes,
            strategy=strategy_of(cfg.strategy),
            precision={"32": "32-true", "bf16": "bf16-mixed"}[precision],  # type: ignore[arg-type]
            max_steps=cfg.max_steps,
            # Lightning counts batches; check_val_every_n_epoch=None: over the whole run, which is one endless epoch
            val_check_interval=cfg.val_check_interval_steps * cfg.accumulate_grad_batches,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=1,
            accumulate_grad_batches=cfg.accumulate_grad_batches,
            gradient_clip_val=cfg.gradient_clip or None,
            use_distributed_sampler=False,
            # no_grad instead: what is computed once in a validation may be used in training
            inference_mode=False,
            logger=logger,
            callbacks=[
                *average,
                best,
                LastCheckpoint(cfg.val_check_interval_steps),
                Pictures(data.val_crops, cfg.log_images_every_n_steps, cfg.num_images_to_log, cfg.seed),
                StepBar(cfg.log_every_n_steps),
            ],
            plugins=[WholeFiles()],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        nodes = f" --num_nodes {cfg.num_nodes}" if cfg.num_nodes > 1 else ""
        asked = f"--accelerator {cfg.accelerator} --devices {cfg.devices}{nodes} --strategy {cfg.strategy}"
        raise UserError(f"{asked}: {one_line(error)}") from error
    allow_unused_parameters(trainer.strategy)
    return trainer

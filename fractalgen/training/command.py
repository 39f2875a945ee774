"""Training: ``train(TrainConfig)`` builds data, model, callbacks and the Lightning trainer, and runs it.

All randomness is a function of (seed, batch, device): a run that is resumed goes on exactly as if it had never
stopped, and devices draw different crops and masks.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fractalgen import checkpoint
from fractalgen.api import FractalGen
from fractalgen.config import ModelConfig, TrainConfig, check_bounds
from fractalgen.data.corpus import Corpus
from fractalgen.data.labeller import chosen
from fractalgen.data.loaders import MASKS, VALIDATION, Batch, CropData, stream
from fractalgen.devices import choose_precision
from fractalgen.errors import UserError
from fractalgen.files import replacing
from fractalgen.model.masking import random_known
from fractalgen.model.transformer import Transformer
from fractalgen.music.tokens import PITCHES
from fractalgen.training.callbacks import AveragedWeights, LastCheckpoint, Pictures, StepBar, WholeFiles
from fractalgen.training.fine_tuning import start_from
from fractalgen.training.optimisers import make_optimizer

if TYPE_CHECKING:
    from fractalgen.model.losses import NLL

# Nats per hundred cells: close to nats per note (about 0.9 onsets in a hundred cells of POP909), so that the
# gradient's norm has a scale for which clipping at 1 and AdamW's epsilon were made; nats per cell are far smaller.
LOSS_SCALE = 100.0

# Lightning's advice about what is meant to be so here.
EXPECTED_WARNINGS = (
    r"The '\w+' does not have many workers",  # --num_workers decides
    r"Checkpoint directory .* exists and is not empty",  # a resumed run goes on in its folder
    r"The dirpath has changed from",  # a run resumed into another folder
    r"(GPU|TPU) available but not used",  # --accelerator decides
    # a moving average may begin or end where a run goes on
    r"The checkpoint was not created with WeightAveraging",
    r".*callbacks used to create the checkpoint need to be provided.*\['AveragedWeights'\]",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # inside Lightning, for newer versions of PyTorch
)


class Tally:
    """Sums of negative log-likelihoods over crops, and what they are divided by."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.exact = True

    def add(self, nll: NLL, tokens: Tensor, known: Tensor | None = None) -> None:
        """Count a batch: ``tokens`` (b, 128, T), and which of them were ``known``."""
        self.names, self.exact = list(nll.terms), nll.exact
        scored = torch.ones_like(tokens, dtype=torch.bool) if known is None else ~known
        cells, notes = scored.sum(), ((tokens >= 2) & scored).sum()
        values = [cells, notes, nll.total.sum(), *(term.sum() for term in nll.terms.values())]
        batch = torch.stack([value.detach().float() for value in values])
        self.sums = batch if self.sums is None else self.sums + batch

    def metrics(self, prefix: str) -> dict[str, float]:
        """TensorBoard tags and values; what is only an upper bound (MAR) says so in its name."""
        assert self.sums is not None
        cells, notes, total, *terms = self.sums.tolist()
        bound = "" if self.exact else "_upper_bound"
        result = {f"{prefix}_loss": total / cells}
        for name, nats in (("", total), *zip((f"/{name}" for name in self.names), terms, strict=True)):
            result[f"{prefix}/nats_per_cell{bound}{name}"] = nats / cells
            result[f"{prefix}/bits_per_note{bound}{name}"] = nats / math.log(2) / notes if notes else math.nan
        return result


def conditions(batch: Batch) -> list[Tensor] | None:
    """The labels of a batch as the model takes them: one (b,) tensor per attribute, None where there are none."""
    labels = batch["labels"]
    return list(labels.unbind(1)) if labels.shape[1] else None


def share_done(step: int, first: int, last: int) -> float:
    """How far ``step`` has come from ``first`` (0) to ``last`` (1)."""
    return min(1.0, max(0, step - first) / max(1, last - first))


class Training(pl.LightningModule):
    """The model under training: loss, optimiser, schedule, logged figures."""

    def __init__(self, config: ModelConfig, cfg: TrainConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.model = FractalGen(config)
        for module in self.model.modules():
            if isinstance(module, Transformer):
                module.recompute = cfg.activation_checkpointing
        self.tally, self.val_tally, self.labelled_tally = Tally(), Tally(), Tally()
        self.logged_step = 0
        self.began, self.seconds_before = time.monotonic(), 0.0
        self.gradient_norm = torch.tensor(0.0)
        self.shown: dict[str, float] = {}

    def on_fit_start(self) -> None:
        """Write down the resolved configuration."""
        log_dir = self.trainer.log_dir  # collective
        if self.trainer.is_global_zero and log_dir is not None:
            millions = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
            arithmetic = "bfloat16" if "bf16" in str(self.trainer.precision) else "float32"
            print(f"{millions:.1f} M parameters on {self.device} in {arithmetic}, run folder {log_dir}", flush=True)
            resolved = asdict(replace(self.cfg, output_dir=self.cfg.run_dir))
            with replacing(Path(log_dir, "config.yaml")) as temporary:
                temporary.write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean negative log-likelihood of the batch in nats per hundred cells."""
        torch.manual_seed(stream(self.cfg.seed, MASKS, batch_idx, self.global_rank))
        tokens = batch["tokens"]
        known = random_known(tokens, self.cfg.reveal_share) if self.cfg.reveal_share > 0 else None
        nll = self.model.nll(tokens, conditions(batch), known=known, subsample=True)
        self.tally.add(nll, tokens, known)
        return nll.total.mean() * (LOSS_SCALE / tokens[0].numel())

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the mean over the last steps, and end the run with a validation."""
        step = self.global_step
        if step >= self.trainer.max_steps:
            self.trainer.should_stop = True  # Lightning validates before it stops, and does so only once
        if step == self.logged_step or step % self.cfg.log_every_n_steps:
            return
        self.logged_step = step
        metrics = self.tally.metrics("train")
        exact, self.tally = self.tally.exact, Tally()
        if not math.isfinite(metrics["train_loss"]):
            raise UserError(
                f"the training loss became {metrics['train_loss']} before step {step}: lower --learning_rate"
                f" {self.cfg.learning_rate} or --gradient_clip {self.cfg.gradient_clip}, or use --precision 32"
            )
        norm = float(self.gradient_norm)
        self.write({**metrics, "learning_rate": self.learning_rate(step - 1), "train/gradient_norm": norm})
        self.shown = {"bits/note": metrics["train/bits_per_note" + ("" if exact else "_upper_bound")]}

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self.val_tally, self.labelled_tally = Tally(), Tally()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch, with the same masks at every validation: without labels, and beside it given its labels.

        Without labels the figures compare with those of other models, and of ``fractalgen evaluate``.
        """
        seed, tokens = stream(self.cfg.seed, VALIDATION, batch_idx, self.global_rank), batch["tokens"]
        torch.manual_seed(seed)
        self.val_tally.add(self.model.nll(tokens), tokens)
        if (labels := conditions(batch)) is not None:
            torch.manual_seed(seed)
            self.labelled_tally.add(self.model.nll(tokens, labels), tokens)

    def on_validation_epoch_end(self) -> None:
        """Log the mean over all crops of all devices."""
        if self.trainer.sanity_checking:
            return
        self.val_tally.sums = self.trainer.strategy.reduce(self.val_tally.sums, reduce_op="sum")
        metrics = self.val_tally.metrics("val")
        self.write(metrics)
        if self.model.config.attributes:
            self.labelled_tally.sums = self.trainer.strategy.reduce(self.labelled_tally.sums, reduce_op="sum")
            self.write(self.labelled_tally.metrics("val_given_labels"))
        for name in ("val_loss", "val/bits_per_note" + ("" if self.val_tally.exact else "_upper_bound")):
            self.log(name, metrics[name], logger=False, sync_dist=True)

    def write(self, metrics: dict[str, float]) -> None:
        """Log at the number of optimiser steps done (Lightning's own count is one behind during validation)."""
        if self.logger is not None:
            self.logger.log_metrics(metrics, step=self.global_step)

    def learning_rate(self, step: int) -> float:
        """Learning rate of optimiser step ``step`` (from 0): linear warm-up, then as ``--schedule`` says."""
        cfg = self.cfg
        warm = min(1.0, (step + 1) / max(1, cfg.warmup_steps))
        if cfg.schedule == "cosine":
            left = (1 + math.cos(math.pi * share_done(step, cfg.warmup_steps, cfg.max_steps))) / 2
        else:  # Haegele et al. 2024
            left = 1 - math.sqrt(share_done(step, cfg.max_steps - cfg.cooldown_steps, cfg.max_steps))
        return min(warm * cfg.learning_rate, cfg.min_learning_rate + (cfg.learning_rate - cfg.min_learning_rate) * left)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser of :mod:`fractalgen.training.optimisers` that ``--optimizer`` names."""
        return make_optimizer(self.model, self.cfg.optimizer, self.cfg.learning_rate)

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip, and keep the norm for the log (Lightning's own would refuse a fused optimiser under autocast)."""
        limit = gradient_clip_val or math.inf
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The schedule is a function of the step alone, so that it has no state to resume and every flag counts."""
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate(self.global_step)
            group["weight_decay"] = self.cfg.weight_decay if group["decays"] else 0.0

    def on_save_checkpoint(self, content: dict[str, Any]) -> None:
        """Make the file self-describing."""
        val_loss = self.trainer.callback_metrics.get("val_loss")
        content[checkpoint.HEADER_KEY] = checkpoint.make_header(
            self.model.config,
            step=self.global_step,
            seconds=round(self.seconds_before + time.monotonic() - self.began),
            val_loss=None if val_loss is None else float(val_loss),
            train={**asdict(self.cfg), "output_dir": None, "resume": None},
        )

    def on_load_checkpoint(self, content: dict[str, Any]) -> None:
        """Let Lightning count batches from the optimiser steps done, also when ``accumulate_grad_batches`` changed.

        A run that goes on without a moving average goes on from the weights that were trained.
        """
        if not self.cfg.ema_decay:
            content["state_dict"] = content.get("current_model_state", content["state_dict"])
        self.logged_step = step = content[checkpoint.HEADER_KEY]["step"]
        self.seconds_before = content[checkpoint.HEADER_KEY].get("seconds", 0.0)
        batches = step * self.cfg.accumulate_grad_batches
        progress = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            counts.update(dict.fromkeys(counts, batches))


class EventLog(TensorBoardLogger):
    """TensorBoard events in ``<run folder>/lightning_logs/version_N``, without the empty ``hparams.yaml``."""

    @rank_zero_only
    def save(self) -> None:
        """Write pending events."""
        self.experiment.flush()


def resume_point(cfg: TrainConfig, config: ModelConfig) -> tuple[TrainConfig, int, str | None]:
    """How to go on from ``--resume``: settings, step, and the version folder where it belongs to this run folder.

    A cool-down that begins here is a branch: it ends ``cooldown_steps`` later, and has a version folder of its own.

    Raises:
        UserError: not a checkpoint for training, another architecture, or nothing left to do.
    """
    if cfg.resume is None:
        return cfg, 0, None
    path = newest_whole(Path(cfg.resume))
    cfg = replace(cfg, resume=str(path))
    header, _ = checkpoint.read_checkpoint(path, flag="resume")
    saved, wanted = checkpoint.read_config(header, path, flag="resume").to_dict(), config.to_dict()
    if saved["future_context"] != wanted["future_context"]:
        does = "sees known cells after the current one" if saved["future_context"] else "sees only what comes before"
        raise UserError(f"--resume {path}: the model there {does}, --reveal_share {cfg.reveal_share} makes another")
    for name in saved.keys() - {"attributes", "crop_length", "dropout", "label_dropout", "max_children"}:
        if saved[name] != wanted[name]:
            raise UserError(f"--resume {path}: {name} there is {saved[name]}, here {wanted[name]}")
    if saved["attributes"] != wanted["attributes"]:
        old, new = (" ".join(attribute["name"] for attribute in side["attributes"]) for side in (saved, wanted))
        another = " of another corpus" if old == new else ""
        raise UserError(f"--resume {path}: attributes there are {old or 'none'}{another}, here {new or 'none'}")
    step, before = header.get("step"), header.get("train", {})
    if type(step) is not int or not isinstance(before, dict) or type(before.get("max_steps", 0)) is not int:
        raise UserError(f"--resume {path}: damaged checkpoint (its step or its settings are missing)")
    branches = cfg.cooldown_steps > 0 and not before.get("cooldown_steps")
    if cfg.cooldown_steps:
        cfg = replace(cfg, max_steps=step + cfg.cooldown_steps if branches else before.get("max_steps", step))
    if step >= cfg.max_steps:
        raise UserError(f"--resume {path}: already at step {step}, --max_steps is {cfg.max_steps}")
    folder = path.resolve().parent.parent
    here = (
        folder.parent == Path(cfg.run_dir, "lightning_logs").resolve() and path.resolve().parent.name == "checkpoints"
    )
    return cfg, step, folder.name if here and not branches else None


def newest_whole(path: Path) -> Path:
    """A checkpoint, or the newest of those in a run's folder that can be read; one that cannot is told.

    Raises:
        UserError: there is none.
    """
    if path.is_file() and path.suffix == ".ckpt":
        return path
    if not path.is_dir():
        raise UserError(f"--resume {path}: {'not a .ckpt file' if path.is_file() else 'no such file'}")
    for file in sorted(path.rglob("[!.]*.ckpt"), key=lambda file: file.stat().st_mtime_ns, reverse=True):
        try:
            checkpoint.read_checkpoint(file, flag="resume")
            return file
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    raise UserError(f"--resume {path}: no whole checkpoint (.ckpt) in this folder")


def train(cfg: TrainConfig) -> Path:
    """Train as configured; returns the run's ``version_N`` folder.

    Raises:
        UserError: settings, files or devices that cannot work; nothing has been written then.
    """
    check_bounds(cfg)
    if cfg.init_from is not None and cfg.resume is not None:
        raise UserError(f"--init_from {cfg.init_from} and --resume {cfg.resume}: one of them, please")
    if not 0 <= cfg.ema_decay < 1:
        raise UserError(f"--ema_decay {cfg.ema_decay}: must be from 0 to below 1")
    if not 0 <= cfg.cooldown_steps <= cfg.max_steps:
        raise UserError(f"--cooldown_steps {cfg.cooldown_steps}: must be from 0 to --max_steps {cfg.max_steps}")
    if cfg.cooldown_steps and cfg.schedule != "constant":
        raise UserError(
            f"--cooldown_steps {cfg.cooldown_steps}: for --schedule constant, not --schedule {cfg.schedule}"
        )
    corpus = Corpus.open(cfg.data)
    config = cfg.model_config(
        velocity_bins=corpus.velocity_bins,
        steps_per_quarter=corpus.steps_per_quarter,
        attributes=chosen(corpus, cfg.attributes),
    )
    if config.pitches != PITCHES:
        raise UserError(f"--patch_sizes {config.pitches} ...: the first must be {PITCHES}, the pitches of a roll")
    data = CropData(cfg, corpus)
    cfg, step, version = resume_point(cfg, config)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no tips and advertisements
    with warnings.catch_warnings():
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        trainer = build_trainer(cfg, data, step, version)
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        module = Training(config, cfg)
        if cfg.init_from is not None:
            start_from(module.model, cfg.init_from)
        with torch.no_grad():  # what the network refuses is told before anything is written
            module.model.nll(data.val_crops[0]["tokens"][None])
        make_folder(cfg)
        try:
            trainer.fit(module, datamodule=data, ckpt_path=cfg.resume, weights_only=True)
        except SystemExit as error:  # what Lightning makes of Ctrl-C before the first step
            raise KeyboardInterrupt from error
        folder = trainer.log_dir
    assert folder is not None
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # Lightning leaves its process group open, whose threads now and then abort the interpreter on its way out
        torch.distributed.destroy_process_group()
    return Path(folder)


def make_folder(cfg: TrainConfig) -> None:
    """Make the folder of the run's versions, or say why not."""
    logs = Path(cfg.run_dir, "lightning_logs")
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output_dir {cfg.run_dir}: {logs} cannot be made ({error.strerror})") from error
    if not os.access(logs, os.W_OK):
        raise UserError(f"--output_dir {cfg.run_dir}: {logs} is not writable")


def training_device(accelerator: str) -> torch.device:
    """The kind of device on which Lightning trains for ``--accelerator``."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def build_trainer(cfg: TrainConfig, data: CropData, step: int = 0, version: str | None = None) -> pl.Trainer:
    """The Lightning trainer of a run that goes on at optimiser step ``step`` (in folder ``version``, if it exists)."""
    # hide from TensorBoard what a run logged after the checkpoint that it goes on from
    purge: dict[str, Any] = {"purge_step": step + 1} if step else {}
    best = ModelCheckpoint(
        monitor="val_loss",
        filename="step_{step:08d}-val_loss_{val_loss:.4f}",
        auto_insert_metric_name=False,
        save_top_k=cfg.keep_checkpoints,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    average = [AveragedWeights(cfg.ema_decay)] if cfg.ema_decay else []
    precision = choose_precision(cfg.precision, training_device(cfg.accelerator))
    try:
        return pl.Trainer(
            accelerator=cfg.accelerator,
            devices=cfg.devices,
            strategy=cfg.strategy,
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
            logger=EventLog(cfg.run_dir, name="lightning_logs", version=version, default_hp_metric=False, **purge),
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
        text = " ".join(str(error).split())
        raise UserError(
            f"--accelerator {cfg.accelerator} --devices {cfg.devices} --strategy {cfg.strategy}: {text}"
        ) from error

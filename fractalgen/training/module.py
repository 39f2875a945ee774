"""The model under training as Lightning sees it: loss, optimiser, schedule, logged figures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from fractalgen import checkpoint
from fractalgen.api import FractalGen
from fractalgen.config import ModelConfig, TrainConfig
from fractalgen.data.loaders import MASKS, VALIDATION, Batch
from fractalgen.errors import UserError
from fractalgen.files import replacing
from fractalgen.model.losses import NLL
from fractalgen.model.plans import Plans
from fractalgen.model.transformer import Transformer
from fractalgen.seeds import stream
from fractalgen.training.distributed import load_weights, sharded_model
from fractalgen.training.metrics import Tally
from fractalgen.training.optimisers import make_optimizer

# Nats per hundred cells: close to nats per note (about 0.9 onsets in a hundred cells of POP909), so that the
# gradient's norm has a scale for which clipping at 1 and AdamW's epsilon were made; nats per cell are far smaller.
LOSS_SCALE = 100.0
VALIDATED = ("val", "val_given_labels", "val_given_plan")


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
        self.tally = Tally()
        self.tallies = {prefix: Tally() for prefix in VALIDATED}
        self.logged_step = 0
        self.began, self.seconds_before = time.monotonic(), 0.0
        self.gradient_norm = torch.tensor(0.0)
        self.shown: dict[str, float] = {}
        self.clip: Callable[[float], Tensor] = partial(clip_grad_norm_, list(self.model.parameters()))

    def on_fit_start(self) -> None:
        """Write down the resolved configuration."""
        if (model := sharded_model(self.trainer)) is not None:
            self.clip = model.clip_grad_norm_
        log_dir = self.trainer.log_dir  # collective
        if self.trainer.is_global_zero and log_dir is not None:
            millions = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
            arithmetic = "bfloat16" if "bf16" in str(self.trainer.precision) else "float32"
            print(f"{millions:.1f} M parameters on {self.device} in {arithmetic}, run folder {log_dir}", flush=True)
            resolved = asdict(replace(self.cfg, output_dir=self.cfg.run_dir))
            with replacing(Path(log_dir, "config.yaml")) as temporary:
                temporary.write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean negative log-likelihood of the batch in nats per hundred cells.

        What is told of a crop is a function of its index.  What is drawn in here (orders of MAR levels, which of too
        many patches are visited, dropout) is a function of the batch and the device.
        """
        torch.manual_seed(stream(self.cfg.seed, MASKS, batch_idx, self.global_rank))
        tokens = batch["tokens"]
        if self.cfg.plan_only:
            return self.plan_step(batch)
        shown = {**batch, **batch.get("told", {})}
        known, absent, flat = (shown.get(name) for name in ("known", "absent", "flat"))
        labels, plans = conditions(shown), Plans.of(shown)
        nll = self.model.nll(tokens, labels, known=known, plans=plans, absent=absent, flat=flat, subsample=True)
        loss = nll.total
        planned = self.plan_nll(batch)
        if planned:
            loss = loss + torch.stack(list(planned.values())).sum(0)
        self.tally.add(nll, tokens, known, planned)
        return loss.mean() * (LOSS_SCALE / tokens[0].numel())

    def plan_nll(self, batch: Batch) -> dict[str, Tensor]:
        """What the plans of a batch cost, most of them given their key; nothing where there are none."""
        plans = Plans.of(batch)
        return (
            {} if plans is None else self.model.plan_nll(plans, conditions({"labels": batch["told"]["labels_of_plan"]}))
        )

    def plan_step(self, batch: Batch) -> Tensor:
        """Mean negative log-likelihood of the plans of a batch in nats a chord."""
        planned = self.plan_nll(batch)
        self.tally.add(NLL(planned, {}, exact=True), batch["tokens"])
        return torch.stack(list(planned.values())).sum(0).mean() / batch["chords"].shape[1]

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the mean over the last steps, and end the run with a validation."""
        step = self.global_step
        if step >= self.trainer.max_steps:
            self.trainer.should_stop = True  # Lightning validates before it stops, and does so only once
        if step == self.logged_step or step % self.cfg.log_every_n_steps:
            return
        self.logged_step = step
        metrics = self.over_devices(self.tally).metrics("train")
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
        self.tallies = {prefix: Tally() for prefix in VALIDATED}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch, with the same masks at every validation: without labels, given its labels, given its plan.

        Without labels and plan the figures compare with those of other models, and of ``fractalgen evaluate``.
        """
        seed, tokens = stream(self.cfg.seed, VALIDATION, batch_idx, self.global_rank), batch["tokens"]
        labels, plans, absent, flat = conditions(batch), Plans.of(batch), batch.get("absent"), batch.get("flat")

        def count(prefix: str, nll: NLL, planned: dict[str, Tensor] | None = None) -> None:
            self.tallies[prefix].add(nll, tokens, planned=planned, counted=batch["counted"])

        if self.cfg.plan_only and plans is not None:
            count("val", NLL(self.model.plan_nll(plans), {}, exact=True))
            return
        torch.manual_seed(seed)
        count("val", self.model.nll(tokens, absent=absent, flat=flat))
        if labels is not None:
            torch.manual_seed(seed)
            count("val_given_labels", self.model.nll(tokens, labels, absent=absent, flat=flat))
        if plans is not None:
            torch.manual_seed(seed)
            nll = self.model.nll(tokens, absent=absent, flat=flat, plans=plans)
            count("val_given_plan", nll, self.model.plan_nll(plans))

    def over_devices(self, tally: Tally) -> Tally:
        """The tally of all devices, whose figures are ratios of their sums."""
        assert tally.sums is not None
        tally.sums = self.trainer.strategy.reduce(tally.sums, reduce_op="sum")
        return tally

    def on_validation_epoch_end(self) -> None:
        """Log the mean over all crops of all devices."""
        if self.trainer.sanity_checking:
            return
        metrics: dict[str, float] = {}
        for prefix, tally in self.tallies.items():
            if tally.sums is not None:  # the same ones on all devices
                metrics |= self.over_devices(tally).metrics(prefix)
        self.write(metrics)
        for name in ("val_loss", "val/bits_per_note" + ("" if self.tallies["val"].exact else "_upper_bound")):
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
        trained = self.model.planner if self.cfg.plan_only else self.model
        assert trained is not None
        return make_optimizer(trained, self.cfg.optimizer, self.cfg.learning_rate)

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip, and keep the norm for the log (Lightning's own would refuse a fused optimiser under autocast)."""
        limit = gradient_clip_val or math.inf
        self.gradient_norm = self.clip(limit)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The schedule is a function of the step alone, so that it has no state to resume and every flag counts."""
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate(self.global_step)
            group["weight_decay"] = self.cfg.weight_decay if group["decays"] else 0.0

    def on_save_checkpoint(self, content: dict[str, Any]) -> None:
        """Make the file self-describing."""
        val_loss = self.trainer.callback_metrics.get("val_loss")
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        content[checkpoint.HEADER_KEY] = checkpoint.make_header(
            self.model.config,
            step=self.global_step,
            crops_per_step=data.crops_per_step(),
            crops_seen=data.crops_seen(),
            written=time.time(),  # file times are lost when a run is copied
            seconds=round(self.seconds_before + time.monotonic() - self.began),
            val_loss=None if val_loss is None else float(val_loss),
            train={**asdict(self.cfg), "output_dir": None, "resume": None},
        )

    def on_load_checkpoint(self, content: dict[str, Any]) -> None:
        """Let Lightning count batches from the optimiser steps done, also when ``accumulate_grad_batches`` changed.

        A run that continues without a moving average continues from the trained weights.
        """
        if not self.cfg.ema_decay and "current_model_state" in content:
            content["state_dict"] = content["current_model_state"]
            load_weights(self.trainer, self, content["state_dict"])
        self.logged_step = step = content[checkpoint.HEADER_KEY]["step"]
        self.seconds_before = content[checkpoint.HEADER_KEY].get("seconds", 0.0)
        batches = step * self.cfg.accumulate_grad_batches
        progress = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            counts.update(dict.fromkeys(counts, batches))

"""A moving average of the weights under training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from fractalgen.training.distributed import load_weights, weights_changed


class AveragedWeights(Callback):
    """A moving average of the weights: what is validated, drawn and saved as the model, beside the trained weights.

    A step keeps the share ``decay`` of the average, at first less, (1 + n) / (10 + n) after n steps, so that it soon
    forgets the weights that it began with.  Each device averages what it holds, which may be a part of the weights
    (FSDP).  (Lightning's own callback averages whole weights only.)
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.count = 0  # of weights in the average
        self.averages: list[Tensor] = []  # one per parameter

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the weights as they are, or go on with those of a checkpoint."""
        weights = [parameter.detach() for parameter in pl_module.parameters()]
        averages = self.averages or [weight.clone() for weight in weights]
        self.averages = [average.to(weight.device) for average, weight in zip(averages, weights, strict=True)]

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Blend in the weights after each optimiser step."""
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready % trainer.accumulate_grad_batches:
            return
        kept = min(self.decay, (1 + self.count) / (10 + self.count)) if self.count else 0.0
        torch._foreach_lerp_(self.averages, list(pl_module.parameters()), 1 - kept)
        self.count += 1

    @contextmanager
    def in_place(self, pl_module: LightningModule) -> Iterator[None]:
        """The averaged weights in the model, for the time of the block."""
        self.swap(pl_module)
        try:
            yield
        finally:
            self.swap(pl_module)

    @torch.no_grad()
    def swap(self, pl_module: LightningModule) -> None:
        """Exchange the averaged and the trained weights."""
        for average, parameter in zip(self.averages, pl_module.parameters(), strict=True):
            trained = parameter.clone()
            parameter.copy_(average)
            average.copy_(trained)
        weights_changed(pl_module.trainer)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average."""
        self.swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on with the trained weights."""
        self.swap(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """``state_dict`` is the average, ``current_model_state`` the trained weights; collective."""
        checkpoint["current_model_state"] = checkpoint["state_dict"]
        checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self.count)}
        with self.in_place(pl_module):
            # the tensors of the model itself, unless they were gathered from several devices
            state = trainer.strategy.lightning_module_state_dict()
            checkpoint["state_dict"] = {name: value.clone() for name, value in state.items()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the average, which the model has just loaded, and with the trained weights, if there are both."""
        self.averages = [parameter.detach().clone() for parameter in pl_module.parameters()]
        self.count = 0
        if "current_model_state" in checkpoint:
            self.count = int(checkpoint["averaging_state"]["n_averaged"])
            load_weights(trainer, pl_module, checkpoint["current_model_state"])

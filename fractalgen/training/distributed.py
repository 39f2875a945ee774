"""What differs where several devices train one model: strategies, weights in parts, and waiting for each other."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import (
    FullOptimStateDictConfig,
    FullyShardedDataParallel,
    OptimStateKeyType,
    StateDictType,
)
from torch.optim import Optimizer

PATIENCE = timedelta(days=7)  # that processes have with one that draws


class Sharded(FSDPStrategy):
    """Lightning's FSDP, on CPUs as well; checkpoints are those of any other run.

    The whole model is one unit: which of its parts are needed depends on the music, and all devices must gather the
    same ones.
    """

    def _setup_model(self, model: nn.Module) -> nn.Module:
        """Wrap the model; Lightning's own leaves the device to PyTorch where it has no number, which refuses CPUs."""
        wrapped = FullyShardedDataParallel(
            model,
            cpu_offload=self.cpu_offload,
            mixed_precision=self.mixed_precision_config,
            sharding_strategy=self.sharding_strategy,
            device_id=self.root_device,
            **self.kwargs,
        )
        # on a CPU, what was brought there would share its memory with what is gathered next
        optimizers = FullOptimStateDictConfig(offload_to_cpu=self.root_device.type != "cpu")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "FSDP.state_dict_type", FutureWarning)
            FullyShardedDataParallel.set_state_dict_type(
                wrapped, StateDictType.FULL_STATE_DICT, optim_state_dict_config=optimizers
            )
        return wrapped

    @property
    def sharded(self) -> FullyShardedDataParallel:
        """The wrapped model."""
        assert isinstance(self.model, FullyShardedDataParallel)
        return self.model

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """All weights; collective."""
        assert self.lightning_module is not None
        with FullyShardedDataParallel.summon_full_params(self.sharded, writeback=False):
            return {name: value.detach().cpu().clone() for name, value in self.lightning_module.state_dict().items()}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The state of the optimiser for all weights; collective."""
        plain = getattr(optimizer, "optimizer", optimizer)
        state = FullyShardedDataParallel.optim_state_dict(self.sharded, plain)
        return self.rekeyed(state, OptimStateKeyType.PARAM_ID, plain)

    def rekeyed(self, state: dict[str, Any], keys: OptimStateKeyType, optimizer: Optimizer) -> dict[str, Any]:
        """The state with names in place of the numbers that it has in checkpoints, or the other way."""
        return FullyShardedDataParallel.rekey_optim_state_dict(state, keys, self.sharded, optim=optimizer)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint and load weights and states of optimisers."""
        content: dict[str, Any] = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
        assert self.lightning_module is not None
        load_weights(self.lightning_module.trainer, self.lightning_module, content["state_dict"])
        for optimizer, saved in zip(self.optimizers, content["optimizer_states"], strict=True):
            state = self.rekeyed(saved, OptimStateKeyType.PARAM_NAME, optimizer)
            optimizer.load_state_dict(FullyShardedDataParallel.optim_state_dict_to_load(self.sharded, optimizer, state))
        return content


def strategy_of(name: str) -> str | Strategy:
    """The strategy that ``--strategy`` names, for the Lightning trainer."""
    return Sharded() if name == "fsdp" else name


def allow_unused_parameters(strategy: Strategy) -> None:
    """Let DDP go on where a batch does not need all weights (music without labels, or without bars that come back)."""
    if isinstance(strategy, DDPStrategy):
        strategy._ddp_kwargs.setdefault("find_unused_parameters", True)


def sharded_model(trainer: Trainer) -> FullyShardedDataParallel | None:
    """The model whose weights lie on several devices in parts; None if each device has all of them."""
    model = trainer.strategy.model
    return model if isinstance(model, FullyShardedDataParallel) else None


def weights_changed(trainer: Trainer) -> None:
    """Each device forgets the weights that it has gathered from the others, because they are others now."""
    model = sharded_model(trainer)
    if model is None or model._handle is None or not hasattr(model._handle.flat_param, "_local_shard"):
        return  # nothing was gathered yet
    # As after a step of training.  There is no public way: `summon_full_params` keeps what was gathered before it, and
    # so does the outermost unit after a pass without gradients.  `fully_shard` has `reshard`, but is not this strategy.
    model._handle.reshard(free_unsharded_flat_param=True)


@contextmanager
def whole_weights(trainer: Trainer) -> Iterator[None]:
    """Each device has all weights, for the time of the block; collective."""
    model = sharded_model(trainer)
    with nullcontext() if model is None else FullyShardedDataParallel.summon_full_params(model, writeback=False):
        yield


def load_weights(trainer: Trainer, module: LightningModule, state: Mapping[str, Tensor]) -> None:
    """Load all weights, of which each device may keep a part."""
    model = sharded_model(trainer)
    with nullcontext() if model is None else FullyShardedDataParallel.summon_full_params(model):
        module.load_state_dict(state)


class WaitingRoom:
    """Where processes wait for one that has something to do alone, much longer than for the next step of training.

    A process that dies is noticed at once.
    """

    def __init__(self) -> None:
        self.group = None
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            self.group = distributed.new_group(backend="gloo", timeout=PATIENCE)  # collective

    def wait(self) -> None:
        """Go on when all processes have come here; collective."""
        if self.group is not None:
            distributed.all_reduce(torch.zeros(1), group=self.group)

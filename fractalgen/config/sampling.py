"""How a roll is drawn."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fractalgen.config.fields import CfgSchedule, ConfigError, MarOrder, setting
from fractalgen.errors import shown


@dataclass(frozen=True)
class SamplingConfig:
    """How a roll is drawn from the model."""

    num_iter_list: tuple[int, ...] = setting(
        (8, 4, 2, 1), "iterations of each MAR level, L0 to L3 (and frames of each level in the hierarchical view)"
    )
    temperature: float | tuple[float, ...] = setting(
        1.0, "divides the logits; below 1 safer, above 1 bolder: one number, or one per level, L0 to L3"
    )
    cfg: float = setting(1.0, "classifier-free guidance scale: uncond + cfg * (cond - uncond)")
    cfg_schedule: CfgSchedule = setting("constant", "guidance: constant, or growing linearly over a level's steps")
    filter_threshold: float = setting(0.0, "rule out choices less likely than this (0: none)")
    batch_generate_size: int = setting(64, "patches per sample that a MAR iteration generates together")
    mar_order: MarOrder = setting(
        "random", "MAR levels: patches in a random order, or in scan order, so that music grows from left to right"
    )
    max_polyphony: int = setting(0, "most notes that may sound together (0: no limit)")
    threads: int = setting(
        1, "processor threads; two gain a few percent at best, and wait for each other where others use the processor"
    )
    candidates: int = setting(
        8, "where known music lies ahead of a model that cannot listen to it: candidates drawn, of which one is kept"
    )

    def __post_init__(self) -> None:
        temperatures = self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)
        if not temperatures or not all(0.01 <= value <= 100 for value in temperatures):
            raise ConfigError(f"--temperature {shown(' '.join(map(str, temperatures)))}: must be from 0.01 to 100")
        for name, low, high in (
            ("cfg", 0, 1000),
            ("filter_threshold", 0, 1),
            ("batch_generate_size", 1, 1_000_000),
            ("max_polyphony", 0, 128),
            ("candidates", 1, 1000),
            ("threads", 1, 1024),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"--{name} {getattr(self, name)}: must be from {low} to {high}")
        # the default number of iterations serves any number of levels
        if len(temperatures) not in (1, len(self.num_iter_list)) and self.num_iter_list != SamplingConfig.num_iter_list:
            raise ConfigError(
                f"--temperature: {len(temperatures)} numbers for {len(self.num_iter_list)} levels, give one or one each"
            )
        if self.cfg_schedule not in ("constant", "linear"):
            raise ConfigError(f"--cfg_schedule {self.cfg_schedule}: must be constant or linear")
        if self.mar_order not in ("random", "scan"):
            raise ConfigError(f"--mar_order {self.mar_order}: must be random or scan")

    def level_temperature(self, level: int) -> float:
        """The temperature of a level, 0 being the first."""
        if not isinstance(self.temperature, tuple):
            return self.temperature
        return self.temperature[level if len(self.temperature) > 1 else 0]


def sampling_settings(settings: SamplingConfig) -> SamplingConfig:
    """Only what says how rolls are drawn, of a command's settings."""
    return SamplingConfig(**{item.name: getattr(settings, item.name) for item in fields(SamplingConfig)})

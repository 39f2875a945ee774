"""How a roll is drawn."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fractalgen.config.fields import CfgSchedule, ConfigError, MarOrder, check_bounds, setting


@dataclass(frozen=True)
class SamplingConfig:
    """How a roll is drawn from the model.

    Raises:
        ConfigError: a value beyond its bounds.
    """

    num_iter_list: tuple[int, ...] = setting(
        (8, 4, 2, 1),
        "iterations of each MAR level, L0 to L3; also the number of frames per level of the hierarchical view",
    )
    temperature: float | tuple[float, ...] = setting(
        1.0,
        "divisor of the logits: below 1 is safer, above 1 is bolder; one number, or one per level, L0 to L3",
        low=0.01,
        high=100,
    )
    plan_temperature: float = setting(
        1.0, "models with plans: divisor of the logits of chords and returns; below 1 is more usual", low=0.01, high=100
    )
    cfg: float = setting(
        1.0, "classifier-free guidance scale: uncond + cfg * (cond - uncond); 1 is no guidance", low=0, high=1000
    )
    cfg_schedule: CfgSchedule = setting(
        "constant", "guidance scale: the same at every step, or growing linearly over the steps of a level"
    )
    filter_threshold: float = setting(
        0.0, "exclude choices whose probability is below this value (0: exclude none)", low=0, high=1
    )
    batch_generate_size: int = setting(
        64, "MAR levels: patches per sample that are generated together", low=1, high=1_000_000
    )
    mar_order: MarOrder = setting("random", "MAR levels: decide patches in random order or in scan order")
    max_polyphony: int = setting(0, "maximum number of notes that sound together (0: no limit)", low=0, high=128)
    threads: int = setting(
        1,
        "processor threads; more than one gains a few percent on an idle machine and loses much on a busy one",
        low=1,
        high=1024,
    )
    candidates: int = setting(
        8,
        "models without future context: number of candidates drawn where given music follows; the one that fits it best"
        " is kept",
        low=1,
        high=1000,
    )

    def __post_init__(self) -> None:
        check_bounds(self)
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

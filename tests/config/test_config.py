"""Settings that cannot work are refused by name, before anything is built."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from fractalgen.config import (
    ConfigError,
    EvaluateConfig,
    GenerateConfig,
    ModelConfig,
    PrepareConfig,
    RenderCommandConfig,
    SamplingConfig,
    TrainConfig,
)
from fractalgen.config.values import as_typed


def test_model_configurations_survive_plain_data() -> None:
    config = TrainConfig().model_config()
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert [level.patch for level in config.levels] == [128, 16, 4, 1]
    assert config.vocabulary == 34


def test_mar_levels_look_ahead_unless_told_otherwise() -> None:
    kinds: Any = ("mar", "mar", "ar", "ar")
    futures = [level.context[2] for level in TrainConfig(generator_types=kinds).model_config().levels]
    assert futures == [0, 16, 0, 0]
    told = TrainConfig(generator_types=kinds, context_future=(0, 0, 0, 0)).model_config()
    assert [level.context[2] for level in told.levels] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_sizes": (128, 16, 5, 1)}, "--patch_sizes: 16 cannot be split into patches of 5"),
        ({"patch_sizes": (128, 16, 0, 1)}, "--patch_sizes: 16 cannot be split into patches of 0"),
        ({"patch_sizes": (128, 16, 4, 2)}, "--patch_sizes: the last level must be 1"),
        ({"embed_dims": (512, 256, 128)}, "--embed_dims: 3 values for the 4 levels"),
        ({"embed_dims": (512, 256, 127, 64)}, "--embed_dims: even numbers from 2 to 16384, not 127"),
        ({"num_heads": (8, 3, 2, 2)}, "--embed_dims: 256 is not divisible by --num_heads 3"),
        ({"num_heads": (8, 0, 2, 2)}, "--num_heads at least 1, --num_blocks 1 to 256, not"),
        ({"context_past": (0, -4, 4, 0)}, "--context_pitches, --context_past, --context_future: 0 to 4096, not"),
        ({"max_children": (1, 0, 0, 0)}, "--max_children 1 ...: the first .the roll. must be 0"),
        ({"generator_types": ("ar", "diffusion", "ar", "ar")}, "--generator_types: 'ar' or 'mar', not 'diffusion'"),
        ({"scan_order": "spiral"}, "scan_order: 'column_major' or 'row_major', not 'spiral'"),
        ({"crop_length": 250}, "--crop_length 250: the width must be a positive multiple of the patch size 16"),
        ({"dropout": 1.5}, "--dropout, --label_dropout: shares"),
    ],
)
def test_architectures_that_cannot_be_built(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TrainConfig(), **change).model_config()


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"cfg": -1.0},
        {"filter_threshold": 2.0},
        {"batch_generate_size": 0},
        {"cfg_schedule": "quadratic"},
    ],
)
def test_sampling_settings_that_cannot_work(change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(ConfigError, match=f"--{name} {change[name]}: must be"):
        SamplingConfig(**change)


@pytest.mark.parametrize(
    "config",
    [EvaluateConfig, GenerateConfig, PrepareConfig, RenderCommandConfig, TrainConfig],
    ids=lambda c: c.__name__,
)
def test_every_setting_stands_once_in_the_help(config: Any) -> None:
    listed = [name for names in config.groups.values() for name in names]
    assert sorted(listed) == sorted(item.name for item in dataclasses.fields(config))


def test_bounds_are_both_included_and_undefined_numbers_lie_beyond_them() -> None:
    for value in (0.01, 100.0, (0.01, 1.0, 1.0, 100.0)):
        SamplingConfig(temperature=value)
    for wrong in (0.0, 101.0, math.nan, (1.0, math.nan, 1.0, 1.0)):
        with pytest.raises(ConfigError, match=r"--temperature .*: must be from 0.01 to 100"):
            SamplingConfig(temperature=wrong)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (None, "none"), (0.5, "0.5"), (2.0, "2"), (91.999996, "92"), ((4, 1.0), "4 1"), ((), "none")],
)
def test_values_are_shown_as_they_are_typed(value: object, text: str) -> None:
    assert as_typed(value) == text

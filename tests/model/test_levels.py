"""Models of any number of levels go all the way: trained, scored, sampled, with no flag that names four."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fractalgen import FractalGen, Trace, sampling
from fractalgen.cli import main
from fractalgen.config import SamplingConfig
from fractalgen.model.sampling.recorder import StepLog
from fractalgen.model.sampling.windows import ranks
from fractalgen.training.command import train
from tests import tiny
from tests.model.properties.helpers import random_model, tiny_config


@pytest.mark.slow
@pytest.mark.parametrize("patches", [(128, 1), (128, 16, 1), (128, 32, 8, 4, 1)])
@pytest.mark.parametrize("generator", ["ar", "mar"])
def test_any_number_of_levels(tmp_path: Path, patches: tuple[int, ...], generator: str) -> None:
    count = len(patches)
    if count == 2 and generator == "ar":
        pytest.skip("a roll of single cells is a long sequence")
    data = tiny.corpus(tmp_path / "corpus.safetensors")
    width = max(16, patches[1])
    context = (0, *[1] * (count - 2), 0)
    version = train(
        tiny.train_config(
            tmp_path,
            data=str(data),
            patch_sizes=patches,
            generator_types=(generator,) * count,
            context_pitches=context,
            context_past=context,
            max_children=(0,) * count,
            max_steps=1,
            batch_size=1,
            crop_length=width,
            accumulate_grad_batches=1,
            val_crops=1,
            val_check_interval_steps=1,
            log_images_every_n_steps=1,
            num_images_to_log=1,
            embed_dims=(16,) * count,
            num_blocks=(1,) * count,
            num_heads=(2,) * count,
        )
    )
    assert len(list((version / "generation_gifs").glob("*.gif"))) == 1
    path = str(version / "checkpoints" / "last.ckpt")
    model = FractalGen.from_pretrained(path)
    tokens, frames = model.sample(1, width=width, return_intermediates=True)
    assert frames is not None
    assert tokens.shape == (1, 128, width)
    assert len(model.generate(width=width, sampling=SamplingConfig(temperature=(1.0,) * count))) == 1
    out = ["--output_dir", str(tmp_path / "out"), "--target_width", str(width), "--save_gif"]
    assert main(["generate", "--checkpoint", path, *out]) == 0
    evaluate = ["evaluate", "--checkpoint", path, "--data", str(data), "--limit", "2", "--num_samples", "2"]
    assert main([*evaluate, "--split", "valid"]) == 0


@pytest.mark.parametrize("scan_order", ["row_major", "column_major"])
def test_ranks_of_a_long_piece_are_those_of_the_whole(scan_order: str) -> None:
    config = tiny_config("ar ar ar ar", (16, 8, 4, 1), width=32, velocity_bins=4, scan_order=scan_order)
    tokens, frames = random_model(config).sample(
        1, width=80, generator=torch.Generator().manual_seed(0), return_intermediates=True
    )
    assert frames is not None
    trace = frames.traces[0]
    assert sorted(trace.steps[:, 0].tolist()) == list(range(2 * 10))
    order = np.arange(20).reshape(2, 10) if scan_order == "row_major" else np.arange(20).reshape(10, 2).T
    assert np.array_equal(trace.steps[trace.decided[0][::8, ::8], 0], order)
    assert ranks(config, 80, 0, 80) == list(range(20))
    assert tokens.shape[2] == 80


def test_a_piece_of_more_steps_than_int16_can_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SHORT", 40)
    model = random_model(tiny_config("mar ar", (2, 1), width=4, echoes=()))
    for width, kind in ((8, np.int16), (64, np.int32)):
        tokens, frames = model.sample(
            1, num_iter_list=(8, 1), width=width, batch_generate_size=1, return_intermediates=True
        )
        assert frames is not None
        trace = frames.traces[0]
        assert trace.steps.dtype == trace.decided.dtype == np.dtype(kind)
        trace.save(tmp_path / "long.trace.npz")
        assert Trace.load(tmp_path / "long.trace.npz") == trace
        assert np.array_equal(trace.tokens, tokens[0].numpy())
    # what counts the steps on the way holds more than int16 does
    log = StepLog(1)
    for _ in range(40_000):
        log.add(0, 0)
    assert torch.tensor([log.add(0, 0)], dtype=torch.int32).item() == 40_000
